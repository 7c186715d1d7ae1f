"""Targets of pilot-bench. `snakemake --cores all scenario2` builds everything from the data to tables and figures.

Configuration: `--config profile=embedded results=results fault_methods=pilot,fedavg zoo_methods=pilot,fedavg`, likewise
`ablation_methods` and `heterogeneity_methods`; a study always includes its baselines. `figure_methods=pilot,fedavg`
restricts a scenario's tables, figures and report to these methods. `pilot/workflow_config.py` checks the configuration;
`pilot/provenance.py` has the digests (`params` of the rules) by which an edit of source or settings repeats a job.
"""

from snakemake.utils import min_version

min_version("9.0")


include: "common.smk"


report: "report/workflow.rst"


# Under `--sdm apptainer`, jobs run in this image, which docs/clusters.md builds; without that option it is not read.
container: os.environ.get("PILOT_BENCH_CONTAINER", "pilot-bench.sif")


wildcard_constraints:
    results=".+",
    # Folders below faults/, privacy/ and studies/ would otherwise match as another profile or scenario.
    profile=rf"(?!(?:faults|privacy|studies)/)[a-z0-9][a-z0-9._-]*{VARIANT}",
    scenario=rf"(?!(?:faults|privacy|studies)/)[a-z0-9_-]+{VARIANT}",
    fault=r"[a-z0-9_-]+",
    study=r"[a-z0-9_-]+",
    method=rf"[a-z0-9_]+{VARIANT}",
    seed=r"\d+",


include: "backbone.smk"
include: "data.smk"
include: "train.smk"
include: "evaluate.smk"
include: "report.smk"
include: "faults.smk"
include: "studies.smk"
include: "privacy.smk"


rule all:
    default_target: True
    input:
        outputs_of("scenario1"),
        outputs_of("scenario2"),
    message:
        "all done: tables, figures and reports of both scenarios ({PROFILE})"


rule scenario1:
    input:
        outputs_of("scenario1"),
    message:
        "all done: tables, figures and report of scenario1 ({PROFILE})"


rule scenario2:
    input:
        outputs_of("scenario2"),
    message:
        "all done: tables, figures and report of scenario2 ({PROFILE})"


rule scenario3:
    input:
        outputs_of("scenario3"),
    message:
        "all done: tables, figures and report of scenario3 ({PROFILE})"


rule smoke:
    input:
        outputs_of("smoke", "smoke"),
    message:
        "all done: smoke test of the pipeline"


rule figures:
    input:
        [path for name in ("scenario1", "scenario2") for path in paper_outputs_of(name)],
    message:
        "all done: tables and figures of both scenarios, with those for papers ({PROFILE})"


rule smoke_figures:
    input:
        paper_outputs_of("smoke", "smoke"),
    message:
        "all done: tables and figures of the smoke test, with those for papers"


rule report:
    input:
        [f"{RESULTS}/{PROFILE}/{scenario_for_profile(name, PROFILE)}/report.html" for name in ("scenario1", "scenario2")],
    message:
        "all done: reports of both scenarios ({PROFILE})"


rule faults:
    input:
        expand(f"{RESULTS}/{PROFILE}/{scenario_for_profile('scenario2', PROFILE)}/faults/{{name}}", name=FAULT_OUTPUTS),
    message:
        "all done: quality lost by faults in scenario2 ({PROFILE})"


rule smoke_faults:
    input:
        expand(f"{RESULTS}/smoke/smoke/faults/{{name}}", name=FAULT_OUTPUTS),
    message:
        "all done: smoke test of faults"


rule privacy:
    input:
        expand(f"{RESULTS}/{PROFILE}+recorded/scenario2+canaries/privacy/{{name}}", name=PRIVACY_OUTPUTS),
    message:
        "all done: what messages reveal in scenario2 ({PROFILE})"


rule smoke_privacy:
    input:
        expand(f"{RESULTS}/smoke+recorded/smoke+canaries/privacy/{{name}}", name=PRIVACY_OUTPUTS),
    message:
        "all done: smoke test of audits"


rule zoo:
    input:
        f"{RESULTS}/{PROFILE}/studies/zoo/index.md",
    message:
        "all done: every method on both scenarios ({PROFILE})"


rule ablation:
    input:
        f"{RESULTS}/{PROFILE}/studies/ablation/index.md",
    message:
        "all done: ablation study of Pilot ({PROFILE})"


rule heterogeneity:
    input:
        f"{RESULTS}/{PROFILE}/studies/heterogeneity/index.md",
    message:
        "all done: study of client heterogeneity ({PROFILE})"


rule asynchrony:
    input:
        f"{RESULTS}/{PROFILE}/studies/asynchrony/index.md",
    message:
        "all done: asynchronous methods on a virtual clock ({PROFILE})"


rule smoke_study:
    input:
        f"{RESULTS}/smoke/studies/smoke/index.md",
    message:
        "all done: smoke test of studies"


rule tuning:
    input:
        f"{RESULTS}/{PROFILE}/{scenario_for_profile('scenario2', PROFILE)}/tuning/tuning.csv",
    message:
        "all done: table of all tuning trials ({PROFILE})"
