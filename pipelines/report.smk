# Tables and figures: read results, never recompute. They show the scenario's own methods and the references, whatever
# else has been run beside them.


def shown_methods(wildcards):
    """Options that name a scenario's own methods and the references."""
    return " ".join(f"--method {name}" for name in (*load_scenario(wildcards.scenario).methods, *REFERENCES))


rule tables:
    input:
        scores=rules.score.output.done,
    output:
        expand("{{results}}/{{profile}}/{{scenario}}/tables/{name}", name=TABLES),
    params:
        source=stage_digest("tables"),
        methods=shown_methods,
    benchmark:
        "{results}/{profile}/{scenario}/benchmarks/tables.tsv"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    shell:
        "OMP_NUM_THREADS=1 pilot-bench tables {wildcards.results}/{wildcards.profile}/{wildcards.scenario} {params.methods}"


rule draw:
    input:
        tables=rules.tables.output,
        heterogeneity=rules.partition.output.heterogeneity,
    output:
        done=touch("{results}/{profile}/{scenario}/figures/.complete"),
    params:
        source=stage_digest("figures"),
        methods=shown_methods,
    benchmark:
        "{results}/{profile}/{scenario}/benchmarks/figures.tsv"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    shell:
        "OMP_NUM_THREADS=1 pilot-bench figures {wildcards.results}/{wildcards.profile}/{wildcards.scenario} {params.methods}"


rule page:
    input:
        tables=rules.tables.output,
        heterogeneity=rules.partition.output.heterogeneity,
    output:
        html="{results}/{profile}/{scenario}/report.html",
    params:
        source=stage_digest("report"),
        methods=shown_methods,
    benchmark:
        "{results}/{profile}/{scenario}/benchmarks/report.tsv"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    shell:
        "OMP_NUM_THREADS=1 pilot-bench report {wildcards.results}/{wildcards.profile}/{wildcards.scenario} {params.methods}"
