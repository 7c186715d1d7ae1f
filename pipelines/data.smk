# Data, shards and vision features of a scenario: made once, read by every run.


rule data:
    output:
        manifest="{results}/{profile}/{scenario}/data/manifest.json",
    params:
        source=stage_digest("data"),
        settings=lambda wildcards: scenario_digest(wildcards.scenario, "data"),
    benchmark:
        "{results}/{profile}/{scenario}/benchmarks/data.tsv"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    shell:
        "OMP_NUM_THREADS=1 pilot-bench data build --scenario {wildcards.scenario} --profile {wildcards.profile} "
        "--results {wildcards.results}"


rule partition:
    input:
        data=rules.data.output.manifest,
    output:
        assignment="{results}/{profile}/{scenario}/partition/assignment.parquet",
        heterogeneity="{results}/{profile}/{scenario}/partition/heterogeneity.json",
    params:
        source=stage_digest("partition"),
        settings=lambda wildcards: scenario_digest(wildcards.scenario, "partition"),
    benchmark:
        "{results}/{profile}/{scenario}/benchmarks/partition.tsv"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    shell:
        "OMP_NUM_THREADS=1 pilot-bench partition --scenario {wildcards.scenario} --profile {wildcards.profile} "
        "--results {wildcards.results}"


def shipped_checkpoint(wildcards):
    """The weights of a backbone that ships with the package; others are named by the profile."""
    folder = BACKBONES[load_profile(wildcards.profile).backbone].folder
    return [folder / WEIGHTS] if folder else []


rule features:
    input:
        data=rules.data.output.manifest,
        checkpoint=shipped_checkpoint,
    output:
        index="{results}/{profile}/{scenario}/features/index.json",
    params:
        source=stage_digest("features"),
        backbone=lambda wildcards: backbone_settings_digest(wildcards.profile),
    benchmark:
        "{results}/{profile}/{scenario}/benchmarks/features.tsv"
    threads: 1
    resources:
        mem_mb=sized(2000, 64000),
        runtime=sized(30, 1440),
        gpu=sized(0, 1),
    shell:
        "OMP_NUM_THREADS=1 pilot-bench backbone features --scenario {wildcards.scenario} "
        "--profile {wildcards.profile} --results {wildcards.results}"
