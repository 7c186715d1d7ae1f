"""Digests of what each pipeline stage depends on: its source files and the settings that it uses.

A stage lists the functions that it calls; its files follow from their imports (`pilot.io.imports`), up to the table of
methods, from which only the files of one method are added.

Snakemake tracks rule texts and file times, not imported packages. These digests are parameters of rules, so that an
edit of one method's source reruns that method's runs and everything that depends on them, and nothing else.
"""

from collections.abc import Iterable
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from pilot.config.fault import load_fault
from pilot.config.load import load_profile, load_scenario
from pilot.config.scenario import NOT_IN_DATA
from pilot.config.variant import base_name, check_methods
from pilot.io.digest import digest_json, source_digest
from pilot.io.entry_points import package_digest
from pilot.io.imports import ANY, Edge, source_files
from pilot.methods.catalogue import METHODS, known_methods, method_module
from pilot.methods.plugins import plugin_digest, plugin_imports, plugins

STAGES: dict[str, tuple[str, ...]] = {
    "data": ("pilot.data.build:build_data",),
    "partition": ("pilot.data.partition:partition_data",),
    "features": (
        "pilot.backbone.features:compute_features",
        "pilot.backbone.from_profile:load_backbone",
        "pilot.data.conditions:scenario_images",
    ),
    "train": ("pilot.runs.train:train_method",),
    "answers": ("pilot.evaluation.answers:answer_run",),
    "score": ("pilot.evaluation.scoring:score_runs",),
    "tables": ("pilot.report.tables.write:write_tables",),
    "figures": ("pilot.report.plots.write:write_figures",),
    "audit": ("pilot.evaluation.audit.run:audit_run",),
    "privacy": ("pilot.report.tables.privacy:write_privacy",),
    "faults": ("pilot.report.tables.fault:write_faults",),
    "report": ("pilot.report.html.page:write_report",),
    "studies": ("pilot.report.tables.study:write_study", "pilot.config.study:load_study"),
    "tuning": ("pilot.runs.tune:tune_method",),
    "tuning_table": ("pilot.report.tables.tuning:write_tuning",),
}
"""The functions that a stage's command calls. Its sources are their modules and all modules that these import."""
BOUNDARIES: dict[Edge, str] = {
    (ANY, "pilot.provenance"): "its results are in the digests themselves",
    (ANY, "pilot.io.imports"): "its results are in the digests, too",
    ("pilot.registry", "pilot.methods.catalogue"): "a run needs only its own method's entry and files",
    ("pilot.runs.train", "pilot.federation.flower"): "every engine gives the same bytes",
    ("pilot.runs.inputs", "pilot.methods.catalogue"): "a run needs only the names of other methods",
    ("pilot.runs.inputs", "pilot.evaluation.tasks"): "training needs only the names of the tasks",
    ("pilot.runs.inputs", "pilot.evaluation.forgetting"): "likewise",
    ("pilot.runs.inputs", "pilot.plan"): "its steps are in the run's profile; `profile_digest` has its sources",
    **{
        ("pilot.evaluation.tasks.task_functions", f"pilot.evaluation.{metric}"): "generating answers needs no scores"
        for metric in ("caption", "grounding", "vqa")
    },
    ("pilot.backbone", "pilot.backbone.tiny_llava_checkpoint"): "weights are inputs: `backbone_digest`",
    ("pilot.backbone", "pilot.backbone.smol_connector"): "weights are inputs, too",
}
"""Edges (importing module, imported module) that are not followed, with the reason."""


@cache
def stage_sources(stage: str, method: str | None = None) -> frozenset[str]:
    """Return a stage's (and a method's) source files, relative to the repository; a variant has those of its base."""
    base = base_name(method) if method else ""
    own: Iterable[str] = [method_module(base)] if base in METHODS else ()
    if base in plugins() and base not in METHODS:
        own = plugin_imports(base)
    return source_files([*(entry.partition(":")[0] for entry in STAGES[stage]), *own], BOUNDARIES)


@cache
def stage_digest(stage: str, method: str | None = None) -> str:
    """Digest the source files of a stage, with those of a method and its line in the table.

    Families of backbones of other packages belong to every stage that loads a backbone.

    Raises:
        UserError: the method does not exist, or the module of another package is missing.
    """
    if method:
        check_methods(f"stage {stage}", "method", [method], known_methods())
    sources = stage_sources(stage, method)
    base, own = base_name(method) if method else "", source_digest(sources)
    if "pilot/backbone/families/table.py" in sources and _other_families():
        own = digest_json([own, *sorted(package_digest(each, f"family {each.name!r}") for each in _other_families())])
    if base in METHODS:
        return digest_json([own, METHODS[base]])
    return digest_json([own, plugin_digest(base)]) if base in plugins() else own


@cache
def _other_families() -> tuple[EntryPoint, ...]:
    """Return the entry points of families of backbones of other packages, found once per process."""
    return tuple(entry_points(group="pilot_bench.families"))


@cache
def scenario_digest(scenario: str, part: str) -> str:
    """Digest the settings in a scenario's file that `part` (`data`, `partition`, `run` or `all`) depends on.

    A run's `config.json` holds the settings of its evaluation, too, which neither data nor training depend on.
    """
    loaded = load_scenario(scenario).model_dump(mode="json")
    if part == "data":
        keys = ("name", "kind", "source", "num_train", "num_test", "options", "max_quarantine")
        tasks = [{key: task[key] for key in keys if key in task} for task in loaded["tasks"]]
        return digest_json({"data_seed": loaded["data_seed"], "tasks": tasks})
    left_out = {"partition": NOT_IN_DATA, "run": ("methods", "seeds", "title")}.get(part, ())
    if part != "all":
        return digest_json({key: value for key, value in loaded.items() if key not in left_out})
    return digest_json(loaded)


@cache
def profile_digest(profile: str, method: str) -> str:
    """Digest the settings of a profile that a method's runs depend on, without other methods' settings.

    With `budget: flops`, also what computes a method's steps.
    """
    loaded = load_profile(profile)
    own = loaded.for_method(method).model_dump(mode="json")
    if loaded.budget == "flops":
        return digest_json([own, source_digest(source_files(["pilot.plan.budget"], BOUNDARIES))])
    return digest_json(own)


@cache
def tuning_digest(profile: str, method: str) -> str:
    """Digest the settings of a profile that a method's trials depend on: the grid instead of learning rates."""
    loaded = load_profile(profile)
    changed: dict[str, object] = {"learning_rates": {}, "tuning_grid": loaded.tuning_grid}
    changed |= {"evaluate_every": None, "forgetting": ()}
    settings = loaded.for_method(method).model_copy(update=changed)
    return digest_json(settings.model_dump(mode="json"))


@cache
def backbone_settings_digest(profile: str) -> str:
    """Digest a profile's settings that features depend on: the backbone's weights and how it computes."""
    named = ("backbone", "backbone_path", "revision", "architecture", "precision", "attention", "feature_dtype")
    values = load_profile(profile).model_dump(mode="json")
    return digest_json({name: values.get(name) for name in named})


@cache
def fault_digest(fault: str) -> str:
    """Digest the settings of a fault, without its title."""
    return digest_json(load_fault(fault).federation.model_dump(mode="json"))


@cache
def package_versions() -> dict[str, str]:
    """Return the versions of the packages that results may depend on."""
    from importlib.metadata import version

    return {name: version(name) for name in ("pilot-bench", "torch", "transformers", "numpy", "safetensors")}
