# Names and functions shared by all stages: inputs, outputs and parameters of jobs. This file has no targets.

import os
import sys
from functools import cache
from pathlib import Path

from snakemake.exceptions import WorkflowError

from pilot.backbone.sources import BACKBONES
from pilot.config.files import known_names
from pilot.config.load import load_profile, load_scenario, scenario_for_profile
from pilot.errors import UserError
from pilot.io.digest import digest_json
from pilot.provenance import backbone_settings_digest, fault_digest, profile_digest, scenario_digest, stage_digest
from pilot.provenance import tuning_digest
from pilot.config.study import Setting, load_study
from pilot.config.variant import base_name
from pilot.workflow_config import check_methods_in_scenario, read_workflow_config

# Jobs use the `pilot-bench` of the environment that runs Snakemake, activated or not. Cluster jobs execute this line,
# too: their PATH is different, since `envvars:` does not pass this one on.
os.environ.update(PATH=os.path.dirname(sys.executable) + os.pathsep + os.environ.get("PATH", os.defpath))
try:
    CONFIG = read_workflow_config(config)
except UserError as error:
    raise WorkflowError(str(error)) from None
RESULTS, PROFILE = CONFIG.results, CONFIG.profile
VARIANT = r"(?:\+[a-z0-9][a-z0-9._-]*)?"  # optional suffix of the name of a method, scenario or profile
REFERENCES = ("untuned", "majority")
FAULT_METHODS = ("pilot", "fedavg", "fedprox", "fedmoe")
FAULT_OUTPUTS = ("tables/faults.csv", "tables/faults.md", "figures/faults.png", "figures/faults.pdf")
PRIVACY_METHODS = ("pilot", "fedavg", "fedit", "fedper", "fedsa_lora", "rolora", "fedsvd", "disco")
PRIVACY_OUTPUTS = ("tables/privacy.csv", "tables/privacy.md", "figures/privacy.png", "figures/privacy.pdf")
NOISE = ("0.001", "0.01", "1")  # variants recorded-noise-...: the first seed of every method
SMOKE_PRIVACY_METHODS = ("pilot", "fedavg")
SMOKE_FAULTS, SMOKE_FAULT_METHODS = ("dropout-50", "nan-client"), ("pilot", "fedavg")
TABLES = (
    *("main.csv", "per_client.csv", "cost.csv", "significance.csv", "timing.csv", "main.md", "main.tex"),
    *("leaderboard.json", "grid.tex", "significance.tex", "cost.tex"),
    *("curves.csv", "targets.csv", "matrix.csv", "fairness.csv", "unseen.csv", "conditions.csv", "forgetting.csv"),
)


device_of = cache(lambda profile: load_profile(profile).device)  # Snakemake asks for a job's resources four times


def by_device(on_cpu, on_gpu):
    """Return a resource of jobs that run the model: `on_gpu` for profiles on a GPU, else `on_cpu`."""
    return lambda wildcards: on_gpu if device_of(wildcards.profile) == "cuda" else on_cpu


def outputs_of(scenario, profile=PROFILE):
    """Return tables, figures and report of a scenario; with profile `llava`, of its counterpart over public data."""
    folder = f"{RESULTS}/{profile}/{scenario_for_profile(scenario, profile)}"
    return [f"{folder}/tables/{name}" for name in TABLES] + [f"{folder}/figures", f"{folder}/report.html"]


def paper_outputs_of(scenario, profile=PROFILE):
    """Return the outputs of the target `figures`: tables, figures for the screen, and figures for paper."""
    folder = f"{RESULTS}/{profile}/{scenario_for_profile(scenario, profile)}"
    return [f"{folder}/tables/{name}" for name in TABLES] + [f"{folder}/figures", f"{folder}/paper"]


def shipped_checkpoint(wildcards):
    """Return the weights of a backbone that ships with the package; nothing for others, which the profile names."""
    folder = BACKBONES[load_profile(wildcards.profile).backbone].folder
    return sorted(folder.glob("*.safetensors")) if folder else []


def images_of_clients(wildcards):
    """Return the record of the images as clients see them; nothing if all clients see them alike."""
    folder = f"{wildcards.results}/{wildcards.profile}/{wildcards.scenario}/partition"
    return [f"{folder}/heterogeneity.json"] if load_scenario(wildcards.scenario).conditions else []


def runs_of(wildcards):
    """Return the run folders of a scenario: its methods with its seeds, and the references."""
    scenario = load_scenario(wildcards.scenario)
    names = [(method, seed) for method in scenario.methods for seed in scenario.first_seeds(CONFIG.seeds)]
    names += [(method, 0) for method in REFERENCES]
    folder = f"{wildcards.results}/{wildcards.profile}/{wildcards.scenario}/runs"
    return [f"{folder}/{method}/seed{seed}" for method, seed in names]


def method_options(names):
    """Return the command-line options that name methods, word by word."""
    return [word for name in names for word in ("--method", name)]


def shown_methods(wildcards):
    """Return the options that name a scenario's own methods and the references, or the configured methods."""
    own, chosen = (*load_scenario(wildcards.scenario).methods, *REFERENCES), CONFIG.figure_methods or ()
    folder = Path(wildcards.results, wildcards.profile, wildcards.scenario, "runs")
    trained_separately = [name for name in chosen if (folder / name).is_dir()]
    check_methods_in_scenario("figure_methods", wildcards.scenario, chosen, (*own, *trained_separately))
    return method_options(chosen or own)


def fault_runs(wildcards):
    """Return the folders of a scenario's runs with a fault."""
    own = load_scenario(wildcards.scenario).methods
    check_methods_in_scenario("fault_methods", wildcards.scenario, CONFIG.fault_methods or (), own)
    usual = SMOKE_FAULT_METHODS if wildcards.scenario == "smoke" else FAULT_METHODS
    methods = CONFIG.fault_methods or [name for name in usual if name in own]
    folder = f"{wildcards.results}/{wildcards.profile}/{wildcards.scenario}/faults"
    faults = SMOKE_FAULTS if wildcards.scenario == "smoke" else known_names("faults")
    return [f"{folder}/{fault}/runs/{method}/seed0" for fault in faults for method in methods]


def faulty_and_fault_free_runs(wildcards):
    """Return the runs with a fault and the fault-free runs to compare; scoring a run twice gives the same bytes."""
    faulty = fault_runs(wildcards)
    folder = f"{wildcards.results}/{wildcards.profile}/{wildcards.scenario}/runs"
    return [f"{folder}/{method}/seed0" for method in dict.fromkeys(run.split("/")[-2] for run in faulty)] + faulty


def audited_runs_in(folder):
    """Return the folders of a scenario folder's audited runs: one seed with noise, two methods in smoke tests."""
    profile, scenario = folder.split("/")[-2:]
    names = SMOKE_PRIVACY_METHODS if base_name(scenario) == "smoke" else PRIVACY_METHODS
    seeds = load_scenario(scenario).first_seeds(1 if "noise" in profile else CONFIG.seeds)
    return [f"{folder}/runs/{name}/seed{seed}" for name in names for seed in seeds]


def audited_runs(wildcards):
    """Return the folders of the audited runs of a scenario with one profile."""
    return audited_runs_in(f"{wildcards.results}/{wildcards.profile}/{wildcards.scenario}")


def audited_folders(wildcards):
    """Return the scenario's folders whose audits are in one table: without noise, then with more and more of it."""
    profiles = [wildcards.profile, *(f"{wildcards.profile}-noise-{noise}" for noise in NOISE)]
    return [f"{wildcards.results}/{profile}/{wildcards.scenario}" for profile in profiles]


def study_of(name):
    """Load a study with the configured methods (`zoo_methods=pilot,fedavg`) and number of seeds."""
    return load_study(name).subset(methods=CONFIG.methods_of(name), seeds=CONFIG.seeds)


def seed_options(name):
    """Return the command-line options for a study's number of seeds, if it is set."""
    number = study_of(name).seeds
    return [] if number is None else ["--seeds", str(number)]


def further_runs(wildcards):
    """Return a study's run folders in one scenario folder that the scenario's own targets do not make."""
    study, profile = study_of(wildcards.study), base_name(wildcards.profile)
    setting = Setting(wildcards.scenario, wildcards.profile, study.seeds)
    methods = study.further_methods(setting, profile)
    return [str(run) for run in setting.runs(Path(wildcards.results), methods)]


def scores_of(wildcards):
    """Return the score files of all of a study's runs: the scenarios' own, and further ones beside them."""
    study, scores = study_of(wildcards.study), []
    for setting, methods in study.settings(wildcards.profile).items():
        folder, further = setting.folder(Path(wildcards.results)), study.further_methods(setting, wildcards.profile)
        scores += [f"{folder}/scores.json"] if len(further) < len(methods) else []
        scores += [f"{folder}/scores-{wildcards.study}.json"] if further else []
    return scores
