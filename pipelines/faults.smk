# Runs with a fault: each method once per fault, one seed, compared with the scenario's fault-free runs of that seed.


use rule train as train_fault with:
    output:
        manifest="{results}/{profile}/{scenario}/faults/{fault}/runs/{method}/seed{seed}/manifest.json",
    params:
        source=lambda wildcards: stage_digest("train", wildcards.method),
        scenario=lambda wildcards: scenario_digest(wildcards.scenario, "run"),
        profile=lambda wildcards: profile_digest(wildcards.profile, wildcards.method),
        settings=lambda wildcards: fault_digest(wildcards.fault),
        fault=lambda wildcards: ["--fault", wildcards.fault],
    log:
        "{results}/{profile}/{scenario}/logs/train-{fault}-{method}-{seed}.log",
    benchmark:
        "{results}/{profile}/{scenario}/benchmarks/train-{fault}-{method}-{seed}.tsv"
    message:
        "train {wildcards.method}, seed {wildcards.seed}, with the fault {wildcards.fault}, "
        "{wildcards.scenario} ({wildcards.profile})"


use rule answers as answers_fault with:
    input:
        manifest=rules.train_fault.output.manifest,
    output:
        samples="{results}/{profile}/{scenario}/faults/{fault}/runs/{method}/seed{seed}/eval/samples.jsonl",
    log:
        "{results}/{profile}/{scenario}/logs/answers-{fault}-{method}-{seed}.log",
    benchmark:
        "{results}/{profile}/{scenario}/benchmarks/answers-{fault}-{method}-{seed}.tsv"
    message:
        "answer the test sets with {wildcards.method}, seed {wildcards.seed}, trained with the fault {wildcards.fault}, "
        "{wildcards.scenario} ({wildcards.profile})"


rule score_faults:
    input:
        samples=lambda wildcards: [f"{run}/eval/samples.jsonl" for run in faulty_and_fault_free_runs(wildcards)],
    output:
        done="{results}/{profile}/{scenario}/faults/scores.json",
    params:
        source=stage_digest("score"),
        runs=faulty_and_fault_free_runs,
    log:
        "{results}/{profile}/{scenario}/logs/score-faults.log",
    benchmark:
        "{results}/{profile}/{scenario}/benchmarks/score-faults.tsv"
    conda:
        "envs/pilot-bench.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    message:
        "score the answers with and without faults, {wildcards.scenario} ({wildcards.profile})"
    shell:
        "pilot-bench evaluate --no-answers --summary {output.done:q} {params.runs:q} "
        "2>&1 | tee -i {log:q} >&2"


rule tables_faults:
    input:
        scores=rules.score_faults.output.done,
    output:
        table=report(
            "{results}/{profile}/{scenario}/faults/tables/faults.csv",
            caption="report/faults.rst",
            category="Faults",
            labels={"profile": "{profile}", "scenario": "{scenario}", "result": "table"},
        ),
        markdown="{results}/{profile}/{scenario}/faults/tables/faults.md",
        figure=report(
            "{results}/{profile}/{scenario}/faults/figures/faults.png",
            caption="report/faults.rst",
            category="Faults",
            labels={"profile": "{profile}", "scenario": "{scenario}", "result": "heat map"},
        ),
        pdf="{results}/{profile}/{scenario}/faults/figures/faults.pdf",
    params:
        source=stage_digest("faults"),
    log:
        "{results}/{profile}/{scenario}/logs/tables-faults.log",
    benchmark:
        "{results}/{profile}/{scenario}/benchmarks/tables-faults.tsv"
    conda:
        "envs/pilot-bench.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    message:
        "write table and heat map of the faults, {wildcards.scenario} ({wildcards.profile})"
    shell:
        "pilot-bench faults --paper "
        "{wildcards.results:q}/{wildcards.profile:q}/{wildcards.scenario:q} 2>&1 | tee -i {log:q} >&2"
