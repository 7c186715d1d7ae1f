"""Targets of pilot-bench. `snakemake --cores all scenario2` goes from nothing to the tables and figures.

Configuration: `--config profile=embedded results=results fault_methods=pilot,fedavg zoo_methods=pilot,fedavg`, and so
`ablation_methods` and `heterogeneity_methods`; a study's baselines are always there.
"""

import os
import sys
from pathlib import Path

from pilot.backbone.paths import BACKBONES, WEIGHTS
from pilot.config import load_profile, load_scenario, twin
from pilot.faults import fault_names
from pilot.io.digest import digest_json
from pilot.provenance import backbone_settings_digest, fault_digest, profile_digest, scenario_digest, stage_digest
from pilot.provenance import tuning_digest
from pilot.studies import Setting, load_study
from pilot.variants import base_name

# Jobs find the `pilot-bench` of the environment that runs Snakemake, activated or not.
os.environ["PATH"] = os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]
RESULTS = config.get("results", "results")
PROFILE = config.get("profile", "embedded")
VARIANT = r"(?:\+[a-z0-9][a-z0-9._-]*)?"  # what may follow the name of a method, scenario or profile
REFERENCES = ("untuned", "majority")
FAULT_METHODS = tuple(config.get("fault_methods", "pilot,fedavg,fedprox,fedmoe").split(","))
FAULT_OUTPUTS = ("tables/faults.csv", "tables/faults.md", "figures/faults.png", "figures/faults.pdf")
SMOKE_FAULTS = ("dropout-50", "nan-client")
FIGURES = ("bars", "cost", "losses", "heterogeneity", "router", "distances", "drift", "samples")
TABLES = ("main.csv", "per_client.csv", "cost.csv", "significance.csv", "timing.csv", "main.md", "main.tex", "leaderboard.json")


def sized(on_cpu, on_gpu):
    """A resource of jobs that run the model: for profiles on a CPU, and for those on a GPU."""
    return lambda wildcards: on_gpu if load_profile(wildcards.profile).device == "cuda" else on_cpu


wildcard_constraints:
    results=".+",
    # What lies below faults/ and studies/ would be taken for another profile or scenario.
    profile=rf"(?!(?:faults|studies)/)[a-z0-9_-]+{VARIANT}",
    scenario=rf"(?!(?:faults|studies)/)[a-z0-9_-]+{VARIANT}",
    fault=r"[a-z0-9_-]+",
    study=r"[a-z0-9_-]+",
    method=rf"[a-z0-9_]+{VARIANT}",
    seed=r"\d+",


include: "pipelines/backbone.smk"
include: "pipelines/data.smk"
include: "pipelines/train.smk"
include: "pipelines/evaluate.smk"
include: "pipelines/report.smk"
include: "pipelines/faults.smk"
include: "pipelines/studies.smk"


def outputs_of(scenario, profile=PROFILE):
    """Tables, figures and report of a scenario; with the profile `llava`, of its twin over public data."""
    folder = f"{RESULTS}/{profile}/{twin(scenario, profile)}"
    return [f"{folder}/tables/{name}" for name in TABLES] + [f"{folder}/figures/.complete", f"{folder}/report.html"]


rule all:
    default_target: True
    input:
        outputs_of("scenario1"),
        outputs_of("scenario2"),


rule scenario1:
    input:
        outputs_of("scenario1"),


rule scenario2:
    input:
        outputs_of("scenario2"),


rule smoke:
    input:
        outputs_of("smoke", "smoke"),


rule figures:
    input:
        [f"{RESULTS}/{PROFILE}/{twin(name, PROFILE)}/figures/.complete" for name in ("scenario1", "scenario2")],


rule report:
    input:
        [f"{RESULTS}/{PROFILE}/{twin(name, PROFILE)}/report.html" for name in ("scenario1", "scenario2")],


rule faults:
    input:
        expand(f"{RESULTS}/{PROFILE}/{twin('scenario2', PROFILE)}/faults/{{name}}", name=FAULT_OUTPUTS),


rule smoke_faults:
    input:
        expand(f"{RESULTS}/smoke/smoke/faults/{{name}}", name=FAULT_OUTPUTS),


rule zoo:
    input:
        f"{RESULTS}/{PROFILE}/studies/zoo/index.md",


rule ablation:
    input:
        f"{RESULTS}/{PROFILE}/studies/ablation/index.md",


rule heterogeneity:
    input:
        f"{RESULTS}/{PROFILE}/studies/heterogeneity/index.md",


rule smoke_study:
    input:
        f"{RESULTS}/smoke/studies/smoke/index.md",


rule tuning:
    input:
        f"{RESULTS}/{PROFILE}/{twin('scenario2', PROFILE)}/tuning/tuning.csv",
