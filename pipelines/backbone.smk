# tiny-llava's pre-training. The checkpoint ships with the package; only `snakemake backbone` rebuilds it.


rule backbone:
    benchmark:
        f"{RESULTS}/backbone/benchmark.tsv"
    threads: 1
    resources:
        mem_mb=12000,
        runtime=120,
    shell:
        "OMP_NUM_THREADS=1 pilot-bench backbone pretrain --work {RESULTS}/backbone"
