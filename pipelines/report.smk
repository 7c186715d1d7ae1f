# Tables and figures: read results, never recompute.


rule tables:
    input:
        scores=rules.score.output.done,
    output:
        expand("{{results}}/{{profile}}/{{scenario}}/tables/{name}", name=TABLES),
    params:
        source=stage_digest("tables"),
    benchmark:
        "{results}/{profile}/{scenario}/benchmarks/tables.tsv"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    shell:
        "OMP_NUM_THREADS=1 pilot-bench tables {wildcards.results}/{wildcards.profile}/{wildcards.scenario}"


rule draw:
    input:
        tables=rules.tables.output,
        heterogeneity=rules.partition.output.heterogeneity,
    output:
        done=touch("{results}/{profile}/{scenario}/figures/.complete"),
    params:
        source=stage_digest("figures"),
    benchmark:
        "{results}/{profile}/{scenario}/benchmarks/figures.tsv"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    shell:
        "OMP_NUM_THREADS=1 pilot-bench figures {wildcards.results}/{wildcards.profile}/{wildcards.scenario}"
