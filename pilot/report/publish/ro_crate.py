"""A Workflow Run RO-Crate of a scenario's results: RO-Crate 1.1, Workflow RO-Crate 1.0, Workflow Run Crate 0.5.

The crate contains the workflow, cards and digests of the data, the partition, and of every run its settings, records
and evaluations, and the tables; not images, checkpoints and clients' states. Each run is an action with its parameters,
inputs and outputs. When runs ended is not recorded, so actions have no times.
"""

import shutil
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pilot.errors import UserError
from pilot.io.atomic import read_json, write_json
from pilot.io.digest import REPOSITORY
from pilot.io.layout import FAULTS, METRICS, evaluation_folder, evaluations
from pilot.io.sealed import read_sealed
from pilot.io.verified import check_digest
from pilot.report.numbers.files import check_evaluation
from pilot.report.numbers.load import Run
from pilot.report.pack import files_of_run
from pilot.report.publish.about import About

FILE = "ro-crate-metadata.json"
CRATE = "https://w3id.org/ro/crate/1.1"
PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": ("Process Run Crate", "0.5"),
    "https://w3id.org/ro/wfrun/workflow/0.5": ("Workflow Run Crate", "0.5"),
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": ("Workflow RO-Crate", "1.0"),
}
CONTEXT = f"{CRATE}/context"
SNAKEMAKE = "https://w3id.org/workflowhub/workflow-ro-crate#snakemake"
PARAMETERS = {
    "scenario": ("Text", "Tasks, data and their split over clients."),
    "profile": ("Text", "Backbone, budget and hyperparameters."),
    "method": ("Text", "Federated method."),
    "seed": ("Integer", "Seed of initial values and batches."),
}
_FORMS = {
    ".json": "application/json",
    ".jsonl": "application/jsonl",
    ".csv": "text/csv",
    ".md": "text/markdown",
    ".tex": "application/x-tex",
    ".parquet": "application/vnd.apache.parquet",
}
Entity = dict[str, Any]


def write_crate(runs: Sequence[Run], about: About, folder: Path) -> list[str]:
    """Write the crate of one scenario's runs to `folder`.

    Returns:
        Notes on what is not stated.

    Raises:
        UserError: runs are of several scenarios, or a file of data, partition or runs is missing or damaged.
    """
    scenario_dir = runs[0].scenario_dir
    if other := [run for run in runs if run.scenario_dir != scenario_dir]:
        raise UserError(
            f"{other[0].path}: ro-crate: expected runs of one scenario, also got {runs[0].path}. Give one "
            "scenario's folder, results/<profile>/<scenario>."
        )
    workflow = _copy_all(REPOSITORY, _workflow_files(), folder / "workflow")
    inputs = _copy_all(scenario_dir, _input_files(scenario_dir), folder)
    tables = _copy_all(scenario_dir, sorted((scenario_dir / "tables").glob("*.*")), folder)
    files: list[Path] = [*workflow, *inputs]
    actions: list[Entity] = []
    for run in runs:
        own = _copy_all(scenario_dir, [run.path / path for path in _run_files(run)], folder)
        actions += _run_action(run, workflow[0], inputs, own, about)
        files += own
    if tables:
        made = _action("#tables", "Tables", "pilot-bench tables", workflow[0], about)
        actions.append(made | {"object": _links(files[len(workflow) :]), "result": _links(tables)})
    software = _software(runs)
    graph = [
        _descriptor(),
        _root(runs[0], about, [*files, *tables], actions),
        *_profiles(),
        _main_workflow(workflow, software),
        *(_file(path) for path in [*files[1:], *tables]),
        *_parameters(),
        {
            **{"@id": SNAKEMAKE, "@type": "ComputerLanguage", "name": "Snakemake"},
            **{"identifier": {"@id": "https://snakemake.github.io"}, "url": {"@id": "https://snakemake.github.io"}},
        },
        *software,
        *actions,
        *_author(about),
        *_licences(about),
    ]
    write_json(folder / FILE, {"@context": CONTEXT, "@graph": graph})
    missing = [name for name in ("author", "licence") if getattr(about, name) is None]
    return [f"not stated, add to the file of --about: {', '.join(missing)}"] if missing else []


def _workflow_files() -> list[Path]:
    """Return the workflow's files, the main one first; an installed package has no Snakefile, but its rules."""
    rules = sorted((REPOSITORY / "pipelines").glob("*.smk"), key=lambda path: (path.stem != "train", path.name))
    return [path for path in (REPOSITORY / "Snakefile", *rules) if path.is_file()]


def _input_files(scenario_dir: Path) -> list[Path]:
    """Return cards and manifest of the data, and the partition, after checking it."""
    data, partition = scenario_dir / "data", scenario_dir / "partition"
    tasks = read_json(data / "manifest.json", {"digests": dict})["digests"]
    made = read_sealed(partition / "heterogeneity.json", {"assignment": str})
    check_digest(partition / "assignment.parquet", made["assignment"])
    cards = [data / task / name for task in tasks for name in ("card.json", "card.md")]
    return [data / "manifest.json", *cards, partition / "heterogeneity.json", partition / "assignment.parquet"]


def _run_files(run: Run) -> list[Path]:
    """Return the files of a run in the crate, relative to its folder, after checking them."""
    recorded = read_json(run.path / "manifest.json", {"files": dict})["files"]
    found = sorted(path.relative_to(run.path.resolve()) for path in files_of_run(run, True, True))
    for path in found:
        if path.as_posix() in recorded:
            check_digest(run.path / path, recorded[path.as_posix()])
    for name in evaluations(run.path, METRICS):
        check_evaluation(evaluation_folder(run.path, name))
    return found


def _copy_all(top: Path, files: Iterable[Path], folder: Path) -> list[Path]:
    """Copy files to the same places below `folder`; return the copies, relative to the crate."""
    copies = []
    for path in files:
        inside = path.resolve().relative_to(top.resolve())
        copy = folder / inside
        copy.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(path, copy)
        except FileNotFoundError as error:
            raise UserError(f"{path}: missing. Make the data again: pilot-bench data build.") from error
        copies.append(Path(folder.name, inside) if folder.name == "workflow" else inside)
    return copies


def _id(path: Path) -> str:
    return quote(path.as_posix(), safe="/+")


def _links(entities: Iterable[Entity | Path]) -> list[Entity]:
    return [{"@id": _id(each) if isinstance(each, Path) else each["@id"]} for each in entities]


def _file(path: Path) -> Entity:
    form = _FORMS.get(path.suffix, "text/plain")
    return {"@id": _id(path), "@type": "File", "name": path.as_posix(), "encodingFormat": form}


def _descriptor() -> Entity:
    return {
        **{"@id": FILE, "@type": "CreativeWork", "about": {"@id": "./"}},
        "conformsTo": [{"@id": CRATE}, {"@id": "https://w3id.org/workflowhub/workflow-ro-crate/1.0"}],
    }


def _root(run: Run, about: About, files: Sequence[Path], actions: Sequence[Entity]) -> Entity:
    profile, title = run.config["profile"], run.config["scenario_config"].get("title", run.scenario)
    root = {
        **{"@id": "./", "@type": "Dataset", "name": f"Results of {run.scenario} ({profile})"},
        "description": f"{title}. Runs of federated multimodal instruction tuning by pilot-bench, profile {profile}.",
        "datePublished": about.date.isoformat(),
        "license": {"@id": about.licence or "#licence"},
        "conformsTo": [{"@id": profile} for profile in PROFILES],
        "mainEntity": {"@id": _id(files[0])},
        "hasPart": _links(files),
        "mentions": _links(each for each in actions if each["@type"] == "CreateAction"),
    }
    root |= {} if about.url is None else {"url": {"@id": about.url}}
    return root | ({"author": _links(_author(about))[0]} if about.author else {})


def _profiles() -> list[Entity]:
    return [
        {"@id": address, "@type": "CreativeWork", "name": name, "version": version}
        for address, (name, version) in PROFILES.items()
    ]


def _main_workflow(files: Sequence[Path], software: Sequence[Entity]) -> Entity:
    return {
        "@id": _id(files[0]),
        "@type": ["File", "SoftwareSourceCode", "ComputationalWorkflow"],
        "name": "pilot-bench: data, partition, training, evaluation, tables",
        "description": "The workflow of the pilot-bench that wrote this crate. Its rules call the commands that made "
        "the runs; whether Snakemake or a person called them is not recorded.",
        "programmingLanguage": {"@id": SNAKEMAKE},
        "version": version("pilot-bench"),
        "license": {"@id": "https://spdx.org/licenses/Apache-2.0"},
        "input": [{"@id": f"#parameter-{name}"} for name in PARAMETERS],
        "softwareRequirements": _links(software),
        "hasPart": _links(files[1:]),
    }


def _parameters() -> list[Entity]:
    return [
        {
            **{"@id": f"#parameter-{name}", "@type": "FormalParameter", "name": name, "additionalType": kind},
            **{"description": text, "valueRequired": "True"},
        }
        for name, (kind, text) in PARAMETERS.items()
    ]


def _software(runs: Sequence[Run]) -> list[Entity]:
    """Return the packages and versions that the runs recorded."""
    found = {
        (name, version)
        for run in runs
        for name, version in read_json(run.path / "manifest.json", {}).get("versions", {}).items()
    }
    return [
        {"@id": f"#{name}-{version}", "@type": "SoftwareApplication", "name": name, "softwareVersion": version}
        for name, version in sorted(found)
    ]


def _run_action(run: Run, main: Path, inputs: Sequence[Path], files: Sequence[Path], about: About) -> list[Entity]:
    """Return the action of a run and the values of its parameters and digests."""
    inside = run.path.resolve().relative_to(run.scenario_dir)
    action = f"#{quote('-'.join(inside.parts), safe='+')}"
    values = [
        {
            **{"@id": f"{action}-{name}", "@type": "PropertyValue", "name": name, "value": str(run.config[name])},
            "exampleOfWork": {"@id": f"#parameter-{name}"},
        }
        for name in PARAMETERS
    ]
    digests = [
        {"@id": f"{action}-sha256-{name}", "@type": "PropertyValue", "name": f"sha256 of {name}", "value": digest}
        for name, digest in sorted(run.config["digests"].items())
    ]
    options = [f"--{name} {run.config[name]}" for name in PARAMETERS]
    options += [f"--fault {inside.parts[1]}"] if inside.parts[0] == FAULTS else []
    made = (
        f"imported from files of {', '.join(run.imported)}" if run.imported else f"train {' '.join(options)}; evaluate"
    )
    config = next(path for path in files if path.name == "config.json")
    results = [path for path in files if path != config]
    return [
        _action(action, f"{run.label}, seed {run.seed}", f"pilot-bench: {made}", main, about)
        | {"object": _links([*inputs, config, *values, *digests]), "result": _links(results)},
        *values,
        *digests,
    ]


def _action(name: str, title: str, text: str, main: Path, about: About) -> Entity:
    return {
        **{"@id": name, "@type": "CreateAction", "name": title, "description": text, "instrument": {"@id": _id(main)}},
        **({"agent": _links(_author(about))[0]} if about.author else {}),
    }


def _author(about: About) -> list[Entity]:
    """Return who ran the runs, if it is stated."""
    return [{"@id": "#author"} | about.author.to_json()] if about.author else []


def _licences(about: About) -> list[Entity]:
    code = {
        "@id": "https://spdx.org/licenses/Apache-2.0",
        "name": "Apache License 2.0",
        "description": "Of the workflow.",
    }
    results = (
        {"@id": "#licence", "name": "Licence not stated", "description": "Nobody stated a licence of the results."}
        if about.licence is None
        else {"@id": about.licence, "name": about.licence, "description": "Licence of the results, as stated."}
    )
    return [{"@type": "CreativeWork"} | each for each in ([code] if code["@id"] == results["@id"] else [code, results])]
