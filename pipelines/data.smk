# Data, shards and vision features of a scenario: computed once, read by every run.


rule data:
    output:
        manifest="{results}/{profile}/{scenario}/data/manifest.json",
    params:
        source=stage_digest("data"),
        settings=lambda wildcards: scenario_digest(wildcards.scenario, "data"),
    log:
        "{results}/{profile}/{scenario}/logs/data.log",
    benchmark:
        "{results}/{profile}/{scenario}/benchmarks/data.tsv"
    conda:
        "envs/pilot-bench.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    message:
        "build the data of {wildcards.scenario} ({wildcards.profile})"
    shell:
        "pilot-bench data build --scenario {wildcards.scenario:q} --profile {wildcards.profile:q} "
        "--results {wildcards.results:q} 2>&1 | tee -i {log:q} >&2"


rule partition:
    input:
        data=rules.data.output.manifest,
    output:
        assignment="{results}/{profile}/{scenario}/partition/assignment.parquet",
        heterogeneity="{results}/{profile}/{scenario}/partition/heterogeneity.json",
    params:
        source=stage_digest("partition"),
        settings=lambda wildcards: scenario_digest(wildcards.scenario, "partition"),
    log:
        "{results}/{profile}/{scenario}/logs/partition.log",
    benchmark:
        "{results}/{profile}/{scenario}/benchmarks/partition.tsv"
    conda:
        "envs/pilot-bench.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    message:
        "split {wildcards.scenario} over its clients ({wildcards.profile})"
    shell:
        "pilot-bench partition --scenario {wildcards.scenario:q} --profile {wildcards.profile:q} "
        "--results {wildcards.results:q} 2>&1 | tee -i {log:q} >&2"


rule features:
    input:
        data=rules.data.output.manifest,
        checkpoint=shipped_checkpoint,
        seen=images_of_clients,
    output:
        index="{results}/{profile}/{scenario}/features/index.json",
    params:
        source=stage_digest("features"),
        backbone=lambda wildcards: backbone_settings_digest(wildcards.profile),
    log:
        "{results}/{profile}/{scenario}/logs/features.log",
    benchmark:
        "{results}/{profile}/{scenario}/benchmarks/features.tsv"
    conda:
        "envs/pilot-bench.yaml"
    threads: 1
    resources:
        mem_mb=by_device(2000, 64000),
        runtime=by_device(30, 1440),
        gpu=by_device(0, 1),
        disk_mb=by_device(1000, 130000),
    message:
        "compute the vision features of {wildcards.scenario} ({wildcards.profile})"
    shell:
        "pilot-bench backbone features --scenario {wildcards.scenario:q} "
        "--profile {wildcards.profile:q} --results {wildcards.results:q} 2>&1 | tee -i {log:q} >&2"
