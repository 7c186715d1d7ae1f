# Answers of each run through lm-eval; scores of all runs of a scenario together (one tokeniser, one METEOR process).


def runs_of(wildcards):
    """Run folders of a scenario: its methods with its seeds, and the reference rows."""
    scenario = load_scenario(wildcards.scenario)
    names = [(method, seed) for method in scenario.methods for seed in scenario.seeds]
    names += [(method, 0) for method in REFERENCES]
    folder = f"{wildcards.results}/{wildcards.profile}/{wildcards.scenario}/runs"
    return [f"{folder}/{method}/seed{seed}" for method, seed in names]


rule answers:
    input:
        manifest=rules.train.output.manifest,
    output:
        samples="{results}/{profile}/{scenario}/runs/{method}/seed{seed}/eval/samples.jsonl",
    params:
        source=stage_digest("answers"),
    benchmark:
        "{results}/{profile}/{scenario}/benchmarks/answers-{method}-{seed}.tsv"
    threads: 1
    resources:
        mem_mb=sized(2000, 64000),
        runtime=sized(60, 1440),
        gpu=sized(0, 1),
    shell:
        "OMP_NUM_THREADS=1 pilot-bench evaluate --no-score "
        "{wildcards.results}/{wildcards.profile}/{wildcards.scenario}/runs/{wildcards.method}/seed{wildcards.seed}"


rule score:
    input:
        samples=lambda wildcards: [f"{run}/eval/samples.jsonl" for run in runs_of(wildcards)],
    output:
        done="{results}/{profile}/{scenario}/scores.json",
    params:
        source=stage_digest("score"),
        runs=runs_of,
    benchmark:
        "{results}/{profile}/{scenario}/benchmarks/score.tsv"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    shell:
        "OMP_NUM_THREADS=1 pilot-bench evaluate --no-answers --summary {output.done} {params.runs}"
