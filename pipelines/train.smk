# One job per method and seed. Round checkpoints are not declared: Snakemake removes declared outputs before a rerun,
# but a killed run needs them to resume. If source or settings have changed since, the old run's folder is renamed.


rule train:
    input:
        assignment=rules.partition.output.assignment,
        features=rules.features.output.index,
    output:
        manifest="{results}/{profile}/{scenario}/runs/{method}/seed{seed}/manifest.json",
    params:
        source=lambda wildcards: stage_digest("train", wildcards.method),
        scenario=lambda wildcards: scenario_digest(wildcards.scenario, "run"),
        profile=lambda wildcards: profile_digest(wildcards.profile, wildcards.method),
        fault=[],
    log:
        "{results}/{profile}/{scenario}/logs/train-{method}-{seed}.log",
    benchmark:
        "{results}/{profile}/{scenario}/benchmarks/train-{method}-{seed}.tsv"
    conda:
        "envs/pilot-bench.yaml"
    threads: 1
    resources:
        mem_mb=by_device(2000, 64000),
        runtime=by_device(60, 1440),
        gpu=by_device(0, 1),
        disk_mb=by_device(1000, 40000),
    message:
        "train {wildcards.method}, seed {wildcards.seed}, {wildcards.scenario} ({wildcards.profile})"
    shell:
        "pilot-bench train --scenario {wildcards.scenario:q} --profile {wildcards.profile:q} "
        "--method {wildcards.method:q} --seed {wildcards.seed:q} --results {wildcards.results:q} "
        "{params.fault:q} --replace-changed 2>&1 | tee -i {log:q} >&2"
