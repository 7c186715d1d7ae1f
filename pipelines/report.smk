# Tables and figures: read results, never recompute. They show only the scenario's own methods and the references, also
# when the folder contains other runs.


rule tables:
    input:
        scores=rules.score.output.done,
    output:
        main=report(
            "{results}/{profile}/{scenario}/tables/main.csv",
            caption="report/main.rst",
            category="Tables",
            labels={"profile": "{profile}", "scenario": "{scenario}", "table": "quality"},
        ),
        per_client=report(
            "{results}/{profile}/{scenario}/tables/per_client.csv",
            caption="report/per_client.rst",
            category="Tables",
            labels={"profile": "{profile}", "scenario": "{scenario}", "table": "quality by client"},
        ),
        cost=report(
            "{results}/{profile}/{scenario}/tables/cost.csv",
            caption="report/cost.rst",
            category="Tables",
            labels={"profile": "{profile}", "scenario": "{scenario}", "table": "cost"},
        ),
        significance=report(
            "{results}/{profile}/{scenario}/tables/significance.csv",
            caption="report/significance.rst",
            category="Tables",
            labels={"profile": "{profile}", "scenario": "{scenario}", "table": "significance"},
        ),
        timing=report(
            "{results}/{profile}/{scenario}/tables/timing.csv",
            caption="report/timing.rst",
            category="Tables",
            labels={"profile": "{profile}", "scenario": "{scenario}", "table": "time"},
        ),
        curves=report(
            "{results}/{profile}/{scenario}/tables/curves.csv",
            caption="report/curves.rst",
            category="Tables",
            labels={"profile": "{profile}", "scenario": "{scenario}", "table": "curves"},
        ),
        targets=report(
            "{results}/{profile}/{scenario}/tables/targets.csv",
            caption="report/targets.rst",
            category="Tables",
            labels={"profile": "{profile}", "scenario": "{scenario}", "table": "targets"},
        ),
        matrix=report(
            "{results}/{profile}/{scenario}/tables/matrix.csv",
            caption="report/matrix.rst",
            category="Tables",
            labels={"profile": "{profile}", "scenario": "{scenario}", "table": "matrix"},
        ),
        fairness=report(
            "{results}/{profile}/{scenario}/tables/fairness.csv",
            caption="report/fairness.rst",
            category="Tables",
            labels={"profile": "{profile}", "scenario": "{scenario}", "table": "fairness"},
        ),
        unseen=report(
            "{results}/{profile}/{scenario}/tables/unseen.csv",
            caption="report/unseen.rst",
            category="Tables",
            labels={"profile": "{profile}", "scenario": "{scenario}", "table": "unseen"},
        ),
        conditions=report(
            "{results}/{profile}/{scenario}/tables/conditions.csv",
            caption="report/conditions.rst",
            category="Tables",
            labels={"profile": "{profile}", "scenario": "{scenario}", "table": "conditions"},
        ),
        forgetting=report(
            "{results}/{profile}/{scenario}/tables/forgetting.csv",
            caption="report/forgetting.rst",
            category="Tables",
            labels={"profile": "{profile}", "scenario": "{scenario}", "table": "forgetting"},
        ),
        markdown="{results}/{profile}/{scenario}/tables/main.md",
        latex="{results}/{profile}/{scenario}/tables/main.tex",
        leaderboard="{results}/{profile}/{scenario}/tables/leaderboard.json",
        parts=expand("{{results}}/{{profile}}/{{scenario}}/tables/{part}.tex", part=("grid", "significance", "cost")),
    params:
        source=stage_digest("tables"),
        methods=shown_methods,
    log:
        "{results}/{profile}/{scenario}/logs/tables.log",
    benchmark:
        "{results}/{profile}/{scenario}/benchmarks/tables.tsv"
    conda:
        "envs/pilot-bench.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    message:
        "write the tables of {wildcards.scenario} ({wildcards.profile})"
    shell:
        "pilot-bench tables {wildcards.results:q}/{wildcards.profile:q}/{wildcards.scenario:q} "
        "{params.methods:q} 2>&1 | tee -i {log:q} >&2"


rule draw:
    input:
        tables=rules.tables.output,
        heterogeneity=rules.partition.output.heterogeneity,
    output:
        folder=report(
            directory("{results}/{profile}/{scenario}/figures"),
            patterns=["{figure,[a-z_-]+}.png"],
            caption="report/figures.rst",
            category="Figures",
            labels={"profile": "{profile}", "scenario": "{scenario}", "figure": "{figure}"},
        ),
    params:
        source=stage_digest("figures"),
        methods=shown_methods,
    log:
        "{results}/{profile}/{scenario}/logs/figures.log",
    benchmark:
        "{results}/{profile}/{scenario}/benchmarks/figures.tsv"
    conda:
        "envs/pilot-bench.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    message:
        "draw the figures of {wildcards.scenario} ({wildcards.profile})"
    shell:
        "pilot-bench figures {wildcards.results:q}/{wildcards.profile:q}/{wildcards.scenario:q} "
        "{params.methods:q} 2>&1 | tee -i {log:q} >&2"


rule draw_paper:
    input:
        tables=rules.tables.output,
        heterogeneity=rules.partition.output.heterogeneity,
    output:
        folder=directory("{results}/{profile}/{scenario}/paper"),
    params:
        source=stage_digest("figures"),
        methods=shown_methods,
    log:
        "{results}/{profile}/{scenario}/logs/paper.log",
    benchmark:
        "{results}/{profile}/{scenario}/benchmarks/paper.tsv"
    conda:
        "envs/pilot-bench.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    message:
        "draw the figures of {wildcards.scenario} for papers ({wildcards.profile})"
    shell:
        "pilot-bench figures --paper "
        "{wildcards.results:q}/{wildcards.profile:q}/{wildcards.scenario:q} {params.methods:q} "
        "2>&1 | tee -i {log:q} >&2"


rule page:
    input:
        tables=rules.tables.output,
        heterogeneity=rules.partition.output.heterogeneity,
    output:
        html="{results}/{profile}/{scenario}/report.html",
    params:
        source=stage_digest("report"),
        methods=shown_methods,
    log:
        "{results}/{profile}/{scenario}/logs/report.log",
    benchmark:
        "{results}/{profile}/{scenario}/benchmarks/report.tsv"
    conda:
        "envs/pilot-bench.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    message:
        "write report.html of {wildcards.scenario} ({wildcards.profile})"
    shell:
        "pilot-bench report {wildcards.results:q}/{wildcards.profile:q}/{wildcards.scenario:q} "
        "{params.methods:q} 2>&1 | tee -i {log:q} >&2"
