# Studies: comparisons of runs (pipelines/studies/*.yaml), and the tuning of their methods.


rule score_study:
    input:
        samples=lambda wildcards: [f"{run}/eval/samples.jsonl" for run in further_runs(wildcards)],
    output:
        done="{results}/{profile}/{scenario}/scores-{study}.json",
    params:
        source=stage_digest("score"),
        runs=further_runs,
    log:
        "{results}/{profile}/{scenario}/logs/score-{study}.log",
    benchmark:
        "{results}/{profile}/{scenario}/benchmarks/score-{study}.tsv"
    conda:
        "envs/pilot-bench.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=120,
    message:
        "score the additional runs of the study {wildcards.study}, {wildcards.scenario} ({wildcards.profile})"
    shell:
        "pilot-bench evaluate --no-answers --summary {output.done:q} {params.runs:q} "
        "2>&1 | tee -i {log:q} >&2"


rule study:
    input:
        scores=scores_of,
    output:
        index=report(
            "{results}/{profile}/studies/{study}/index.md",
            caption="report/study.rst",
            category="Studies",
            labels={"profile": "{profile}", "study": "{study}"},
        ),
    params:
        source=stage_digest("studies"),
        parts=lambda wildcards: digest_json(study_of(wildcards.study).model_dump(mode="json")),
        methods=lambda wildcards: method_options(study_of(wildcards.study).methods) + seed_options(wildcards.study),
    log:
        "{results}/{profile}/studies/{study}/study.log",
    benchmark:
        "{results}/{profile}/studies/{study}/benchmark.tsv"
    conda:
        "envs/pilot-bench.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    message:
        "write tables and figures of the study {wildcards.study} ({wildcards.profile})"
    shell:
        "pilot-bench study {wildcards.study:q} --paper --profile {wildcards.profile:q} "
        "--results {wildcards.results:q} {params.methods:q} 2>&1 | tee -i {log:q} >&2"


rule tune:
    input:
        assignment=rules.partition.output.assignment,
        features=rules.features.output.index,
    output:
        trials="{results}/{profile}/{scenario}/tuning/{method}.json",
    params:
        source=lambda wildcards: stage_digest("tuning", wildcards.method),
        scenario=lambda wildcards: scenario_digest(wildcards.scenario, "partition"),
        profile=lambda wildcards: tuning_digest(wildcards.profile, wildcards.method),
    log:
        "{results}/{profile}/{scenario}/logs/tune-{method}.log",
    benchmark:
        "{results}/{profile}/{scenario}/benchmarks/tune-{method}.tsv"
    conda:
        "envs/pilot-bench.yaml"
    threads: 1
    resources:
        mem_mb=by_device(2000, 64000),
        runtime=by_device(120, 1440),
        gpu=by_device(0, 1),
        disk_mb=by_device(1000, 40000),
    message:
        "tune {wildcards.method}, {wildcards.scenario} ({wildcards.profile})"
    shell:
        "pilot-bench tune --scenario {wildcards.scenario:q} --profile {wildcards.profile:q} "
        "--method {wildcards.method:q} --results {wildcards.results:q} 2>&1 | tee -i {log:q} >&2"


rule tuning_table:
    input:
        trials=lambda wildcards: expand(
            rules.tune.output.trials, method=study_of("zoo").methods, **dict(wildcards)
        ),
    output:
        csv=report(
            "{results}/{profile}/{scenario}/tuning/tuning.csv",
            caption="report/tuning.rst",
            category="Tuning",
            labels={"profile": "{profile}", "scenario": "{scenario}"},
        ),
        markdown="{results}/{profile}/{scenario}/tuning/tuning.md",
    params:
        source=stage_digest("tuning_table"),
        methods=lambda wildcards: method_options(study_of("zoo").methods),
    log:
        "{results}/{profile}/{scenario}/logs/tuning.log",
    benchmark:
        "{results}/{profile}/{scenario}/benchmarks/tuning.tsv"
    conda:
        "envs/pilot-bench.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    message:
        "write the table of tuning trials, {wildcards.scenario} ({wildcards.profile})"
    shell:
        "pilot-bench tuning {wildcards.results:q}/{wildcards.profile:q}/{wildcards.scenario:q} "
        "{params.methods:q} 2>&1 | tee -i {log:q} >&2"
