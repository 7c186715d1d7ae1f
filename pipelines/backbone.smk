# tiny-llava's pre-training. The checkpoint ships with the package; only `snakemake backbone` rebuilds it.


rule backbone:
    params:
        work=f"{RESULTS}/backbone",
    log:
        f"{RESULTS}/backbone/pretrain.log",
    benchmark:
        f"{RESULTS}/backbone/benchmark.tsv"
    conda:
        "envs/pilot-bench.yaml"
    threads: 1
    resources:
        mem_mb=12000,
        runtime=120,
    message:
        "pre-train tiny-llava from its recipe"
    shell:
        "pilot-bench backbone pretrain --work {params.work:q} 2>&1 | tee -i {log:q} >&2"
