# Answers of each run through lm-eval; scores of all runs of a scenario together (one tokeniser, one METEOR process).


rule answers:
    input:
        manifest=rules.train.output.manifest,
    output:
        samples="{results}/{profile}/{scenario}/runs/{method}/seed{seed}/eval/samples.jsonl",
    params:
        source=stage_digest("answers"),
        run=subpath(input.manifest, parent=True),
    log:
        "{results}/{profile}/{scenario}/logs/answers-{method}-{seed}.log",
    benchmark:
        "{results}/{profile}/{scenario}/benchmarks/answers-{method}-{seed}.tsv"
    conda:
        "envs/pilot-bench.yaml"
    threads: 1
    resources:
        mem_mb=by_device(2000, 64000),
        runtime=by_device(60, 1440),
        gpu=by_device(0, 1),
    message:
        "answer the test sets with {wildcards.method}, seed {wildcards.seed}, "
        "{wildcards.scenario} ({wildcards.profile})"
    shell:
        "pilot-bench evaluate --no-score {params.run:q} 2>&1 | tee -i {log:q} >&2"


rule score:
    input:
        samples=lambda wildcards: [f"{run}/eval/samples.jsonl" for run in runs_of(wildcards)],
    output:
        done="{results}/{profile}/{scenario}/scores.json",
    params:
        source=stage_digest("score"),
        runs=runs_of,
    log:
        "{results}/{profile}/{scenario}/logs/score.log",
    benchmark:
        "{results}/{profile}/{scenario}/benchmarks/score.tsv"
    conda:
        "envs/pilot-bench.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    message:
        "score the answers of all runs of {wildcards.scenario} ({wildcards.profile})"
    shell:
        "pilot-bench evaluate --no-answers --summary {output.done:q} {params.runs:q} "
        "2>&1 | tee -i {log:q} >&2"
