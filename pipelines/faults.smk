# Runs with a fault: each method once per fault, one seed, beside the scenario's ordinary runs of the same seed.


def fault_runs(wildcards):
    """Folders of a scenario's runs with a fault."""
    methods = [name for name in FAULT_METHODS if name in load_scenario(wildcards.scenario).methods]
    folder = f"{wildcards.results}/{wildcards.profile}/{wildcards.scenario}/faults"
    faults = SMOKE_FAULTS if wildcards.scenario == "smoke" else fault_names()
    return [f"{folder}/{fault}/runs/{method}/seed0" for fault in faults for method in methods]


def runs_with_and_without(wildcards):
    """The same, and the ordinary runs that they are held against; scoring a run twice gives the same bytes."""
    faulty = fault_runs(wildcards)
    folder = f"{wildcards.results}/{wildcards.profile}/{wildcards.scenario}/runs"
    return [f"{folder}/{method}/seed0" for method in dict.fromkeys(run.split("/")[-2] for run in faulty)] + faulty


rule train_fault:
    input:
        assignment=rules.partition.output.assignment,
        features=rules.features.output.index,
    output:
        manifest="{results}/{profile}/{scenario}/faults/{fault}/runs/{method}/seed{seed}/manifest.json",
    params:
        source=lambda wildcards: stage_digest("train", wildcards.method),
        scenario=lambda wildcards: scenario_digest(wildcards.scenario, "partition"),
        profile=lambda wildcards: profile_digest(wildcards.profile, wildcards.method),
        fault=lambda wildcards: fault_digest(wildcards.fault),
    benchmark:
        "{results}/{profile}/{scenario}/benchmarks/train-{fault}-{method}-{seed}.tsv"
    threads: 1
    resources:
        mem_mb=sized(2000, 64000),
        runtime=sized(60, 1440),
        gpu=sized(0, 1),
    shell:
        "OMP_NUM_THREADS=1 pilot-bench train --scenario {wildcards.scenario} --profile {wildcards.profile} "
        "--method {wildcards.method} --seed {wildcards.seed} --results {wildcards.results} --fault {wildcards.fault}"


rule answers_fault:
    input:
        manifest=rules.train_fault.output.manifest,
    output:
        samples="{results}/{profile}/{scenario}/faults/{fault}/runs/{method}/seed{seed}/eval/samples.jsonl",
    params:
        source=stage_digest("answers"),
        run=subpath(input.manifest, parent=True),
    benchmark:
        "{results}/{profile}/{scenario}/benchmarks/answers-{fault}-{method}-{seed}.tsv"
    threads: 1
    resources:
        mem_mb=sized(2000, 64000),
        runtime=sized(60, 1440),
        gpu=sized(0, 1),
    shell:
        "OMP_NUM_THREADS=1 pilot-bench evaluate --no-score {params.run}"


rule score_faults:
    input:
        samples=lambda wildcards: [f"{run}/eval/samples.jsonl" for run in runs_with_and_without(wildcards)],
    output:
        done="{results}/{profile}/{scenario}/faults/scores.json",
    params:
        source=stage_digest("score"),
        runs=runs_with_and_without,
    benchmark:
        "{results}/{profile}/{scenario}/benchmarks/score-faults.tsv"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    shell:
        "OMP_NUM_THREADS=1 pilot-bench evaluate --no-answers --summary {output.done} {params.runs}"


rule tables_faults:
    input:
        scores=rules.score_faults.output.done,
    output:
        expand("{{results}}/{{profile}}/{{scenario}}/faults/{name}", name=FAULT_OUTPUTS),
    params:
        source=stage_digest("faults"),
    benchmark:
        "{results}/{profile}/{scenario}/benchmarks/tables-faults.tsv"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    shell:
        "OMP_NUM_THREADS=1 pilot-bench faults {wildcards.results}/{wildcards.profile}/{wildcards.scenario}"
