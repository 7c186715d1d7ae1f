# Audits of what messages reveal: methods with kept messages, without noise and with noise, on a scenario with canaries.


rule audit:
    input:
        manifest=rules.train.output.manifest,
        samples=ancient("{results}/{profile}/{scenario}/runs/{method}/seed{seed}/eval/samples.jsonl"),  # one at a time holds the run
    output:
        findings="{results}/{profile}/{scenario}/runs/{method}/seed{seed}/audit/findings.json",
    params:
        source=stage_digest("audit"),
        run=subpath(input.manifest, parent=True),
    log:
        "{results}/{profile}/{scenario}/logs/audit-{method}-{seed}.log",
    benchmark:
        "{results}/{profile}/{scenario}/benchmarks/audit-{method}-{seed}.tsv"
    conda:
        "envs/pilot-bench.yaml"
    threads: 1
    resources:
        mem_mb=by_device(2000, 64000),
        runtime=by_device(60, 1440),
        gpu=by_device(0, 1),
    message:
        "audit the messages of {wildcards.method}, seed {wildcards.seed}, {wildcards.scenario} ({wildcards.profile})"
    shell:
        "pilot-bench audit {params.run:q} 2>&1 | tee -i {log:q} >&2"


rule score_audited:
    input:
        samples=lambda wildcards: [f"{run}/eval/samples.jsonl" for run in audited_runs(wildcards)],
    output:
        done="{results}/{profile}/{scenario}/privacy/scores.json",
    params:
        source=stage_digest("score"),
        runs=audited_runs,
    log:
        "{results}/{profile}/{scenario}/logs/score-audited.log",
    benchmark:
        "{results}/{profile}/{scenario}/benchmarks/score-audited.tsv"
    conda:
        "envs/pilot-bench.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    message:
        "score the answers of audited runs, {wildcards.scenario} ({wildcards.profile})"
    shell:
        "pilot-bench evaluate --no-answers --summary {output.done:q} {params.runs:q} "
        "2>&1 | tee -i {log:q} >&2"


rule tables_privacy:
    input:
        findings=lambda wildcards: [
            f"{run}/audit/findings.json" for folder in audited_folders(wildcards) for run in audited_runs_in(folder)
        ],
        scores=lambda wildcards: [f"{folder}/privacy/scores.json" for folder in audited_folders(wildcards)],
    output:
        table=report(
            "{results}/{profile}/{scenario}/privacy/tables/privacy.csv",
            caption="report/privacy.rst",
            category="Privacy",
            labels={"profile": "{profile}", "scenario": "{scenario}", "result": "table"},
        ),
        markdown="{results}/{profile}/{scenario}/privacy/tables/privacy.md",
        figure=report(
            "{results}/{profile}/{scenario}/privacy/figures/privacy.png",
            caption="report/privacy.rst",
            category="Privacy",
            labels={"profile": "{profile}", "scenario": "{scenario}", "result": "heat map"},
        ),
        pdf="{results}/{profile}/{scenario}/privacy/figures/privacy.pdf",
    params:
        source=stage_digest("privacy"),
        folders=audited_folders,
    log:
        "{results}/{profile}/{scenario}/logs/tables-privacy.log",
    benchmark:
        "{results}/{profile}/{scenario}/benchmarks/tables-privacy.tsv"
    conda:
        "envs/pilot-bench.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    message:
        "write table and heat map of what messages reveal, {wildcards.scenario} ({wildcards.profile})"
    shell:
        "pilot-bench privacy {params.folders:q} 2>&1 | tee -i {log:q} >&2"
