"""What each stage of the pipeline depends on, as digests: source files, and the settings that concern it.

Snakemake sees rule texts and file times, not imported packages. These digests stand among a rule's parameters, so
that an edit of one method's source repeats that method's runs and what follows from them, and nothing else.
"""

from functools import cache

from pilot.config import check_methods, load_profile, load_scenario
from pilot.faults import load_fault
from pilot.io.digest import digest_json, source_digest
from pilot.plugins import plugin_digest, plugins
from pilot.variants import base_name

LIBRARY = (
    "pilot/io", "pilot/config.py", "pilot/model_settings.py", "pilot/scenario_settings.py", "pilot/variants.py",
    "pilot/errors.py",
)  # fmt: skip
BACKBONE = (
    "pilot/backbone/backbone.py", "pilot/backbone/generation.py", "pilot/backbone/lora.py",
    "pilot/backbone/features.py", "pilot/backbone/feature_files.py", "pilot/backbone/paths.py",
    "pilot/backbone/loading.py", "pilot/backbone/numerics.py", "pilot/backbone/offsets.py",
    "pilot/backbone/random_llava.py",
)  # fmt: skip
PASSES = tuple(
    f"pilot/backbone/{name}.py"
    for name in (
        "lean", "packed_attention", "packed_generation", "packed_llama", "packed_ops", "packed_weights", "packing",
    )
)  # fmt: skip
"""Training and answers on a CPU; vision features need none of it."""
FEDERATION = tuple(
    f"pilot/federation/{name}.py"
    for name in (
        "assemble", "attacks", "checkpoint", "client", "defence", "drift", "driver", "guard", "identity", "ledger",
        "optimisation", "participant", "participation", "privacy", "recorder", "shards", "spec", "store", "timing",
        "trainer", "training", "transport", "unfinished",
    )
)  # fmt: skip
"""What a run's bytes depend on; Flower's side is not among it, since every engine gives the same bytes."""
STAGES: dict[str, tuple[str, ...]] = {
    "data": (*LIBRARY, "pilot/data"),
    "partition": (*LIBRARY, "pilot/partition.py", "pilot/data/record.py"),
    "features": (*LIBRARY, *BACKBONE, "pilot/data/record.py"),
    "train": (
        *LIBRARY, *BACKBONE, *PASSES, *FEDERATION, "pilot/settings.py", "pilot/methods/base.py",
        "pilot/methods/mean.py", "pilot/methods/state.py", "pilot/methods/robust.py", "pilot/connector/base.py",
        "pilot/connector/mlp.py", "pilot/data/record.py",
        "pilot/faults.py", "pilot/folders.py", "pilot/runs.py",
    ),
    "answers": (
        *LIBRARY, *BACKBONE, *PASSES, "pilot/evaluation/answers.py", "pilot/evaluation/lm.py",
        "pilot/evaluation/majority.py",
        "pilot/evaluation/tasks", "pilot/folders.py", "pilot/runs.py",
    ),
    "score": (
        *LIBRARY, "pilot/evaluation/scoring.py", "pilot/evaluation/result.py", "pilot/evaluation/vqa.py",
        "pilot/evaluation/caption.py", "pilot/evaluation/cider.py", "pilot/evaluation/java_tools.py",
        "pilot/evaluation/grounding.py",
    ),
    "tables": (*LIBRARY, "pilot/folders.py", "pilot/report"),
    "figures": (*LIBRARY, "pilot/folders.py", "pilot/report"),
    "faults": (*LIBRARY, "pilot/folders.py", "pilot/report"),
    "report": (*LIBRARY, "pilot/folders.py", "pilot/report", "pilot/evaluation/grounding.py"),
    "studies": (*LIBRARY, "pilot/folders.py", "pilot/studies.py", "pilot/report"),
    "tuning": ("pilot/tuning.py",),
}  # fmt: skip
_PILOT = (
    "pilot/methods/pilot.py", "pilot/methods/text_aggregation.py", "pilot/methods/blocks.py",
    "pilot/connector/ct_moa.py", "pilot/connector/losses.py", "pilot/connector/mixing.py",
    "pilot/connector/two_stage.py",
)  # fmt: skip
METHODS: dict[str, tuple[str, ...]] = {
    "pilot": _PILOT,
    "fedavg": ("baselines/fedavg.py",),
    "fedprox": ("baselines/fedprox.py", "pilot/methods/penalties.py"),
    "fedmoe": (
        "baselines/fedmoe.py", "pilot/connector/losses.py", "pilot/connector/mixing.py", "pilot/connector/mixture.py",
    ),
    "fedavgm": ("baselines/fedavgm.py", "pilot/methods/server_optimiser.py"),
    "fedadam": ("baselines/fedadam.py", "pilot/methods/server_optimiser.py"),
    "fedyogi": ("baselines/fedyogi.py", "pilot/methods/server_optimiser.py"),
    "fedadagrad": ("baselines/fedadagrad.py", "pilot/methods/server_optimiser.py"),
    "scaffold": ("baselines/scaffold.py", "pilot/methods/penalties.py", "pilot/methods/server_optimiser.py"),
    "feddyn": ("baselines/feddyn.py", "pilot/methods/penalties.py", "pilot/methods/server_optimiser.py"),
    "ditto": ("baselines/ditto.py", "pilot/methods/penalties.py"),
    "fedper": ("baselines/fedper.py",),
    "pfedme": ("baselines/pfedme.py", "pilot/methods/penalties.py", "pilot/methods/server_optimiser.py"),
    "feddat": ("baselines/feddat.py", "pilot/methods/lora_products.py", "pilot/connector/dual.py"),
    "fedmosaic": ("baselines/fedmosaic.py", "pilot/methods/similarity.py"),
    "fedit": ("baselines/fedit.py",),
    "ffa_lora": ("baselines/ffa_lora.py", "pilot/methods/lora_products.py"),
    "fedsa_lora": ("baselines/fedsa_lora.py", "pilot/methods/lora_products.py"),
    "flora": ("baselines/flora.py", "pilot/methods/lora_products.py"),
    "flexlora": ("baselines/flexlora.py", "pilot/methods/lora_products.py", "pilot/methods/ranks.py"),
    "fedex_lora": ("baselines/fedex_lora.py", "pilot/methods/lora_products.py"),
    "hetlora": ("baselines/hetlora.py", "pilot/methods/lora_products.py", "pilot/methods/ranks.py"),
    "taskavg": ("baselines/taskavg.py",),
    "clustered": ("baselines/clustered.py", "pilot/methods/similarity.py"),
    "pilot_fedavg_text": ("baselines/pilot_fedavg_text.py", *_PILOT),
    "pilot_exact_ata": ("baselines/pilot_exact_ata.py", "pilot/methods/lora_products.py", *_PILOT),
    "pilot_shared_a": ("baselines/pilot_shared_a.py", "pilot/methods/lora_products.py", *_PILOT),
    "pilot_task_text": ("baselines/pilot_task_text.py", *_PILOT),
    "pilot_momentum": ("baselines/pilot_momentum.py", *_PILOT),
    "pilot_gap_ata": ("baselines/pilot_gap_ata.py", *_PILOT),
    "local": ("baselines/local.py",),
    "central": ("baselines/central.py",),
    "untuned": ("baselines/untuned.py",),
    "majority": ("baselines/majority.py", "pilot/evaluation/majority.py"),
}  # fmt: skip
"""A method's own files; a new method adds a line here and one in `pilot/methods/registry.py`."""


def known_methods() -> dict[str, tuple[str, ...]]:
    """`METHODS`, and those of other packages, without files here."""
    return {**METHODS, **dict.fromkeys(plugins(), ())}


@cache
def stage_digest(stage: str, method: str | None = None) -> str:
    """Digest of the source files of a stage, and of a method's own files (a variant's are its base's).

    Raises:
        UserError: no such method.
    """
    if method:
        check_methods(f"stage {stage}", "method", [method], known_methods())
    base = base_name(method) if method else ""
    own = source_digest({*STAGES[stage], *METHODS.get(base, ())})
    return digest_json([own, plugin_digest(base)]) if base in plugins() and base not in METHODS else own


@cache
def scenario_digest(scenario: str, part: str) -> str:
    """Digest of what `part` (`data`, `partition` or `all`) of a scenario depends on in its file."""
    loaded = load_scenario(scenario).model_dump(mode="json")
    if part == "data":
        keys = ("name", "kind", "source", "num_train", "num_test", "options", "max_quarantine")
        tasks = [{key: task[key] for key in keys if key in task} for task in loaded["tasks"]]
        return digest_json({"data_seed": loaded["data_seed"], "tasks": tasks})
    if part == "partition":
        return digest_json({key: value for key, value in loaded.items() if key not in ("methods", "seeds", "title")})
    return digest_json(loaded)


@cache
def profile_digest(profile: str, method: str) -> str:
    """Digest of what a method's runs depend on in a profile: not other methods' settings."""
    return digest_json(load_profile(profile).only(method).model_dump(mode="json"))


@cache
def tuning_digest(profile: str, method: str) -> str:
    """Digest of what a method's trials depend on in a profile: the grid in place of its runs' learning rates."""
    loaded = load_profile(profile)
    settings = loaded.only(method).model_copy(update={"learning_rates": {}, "tuning_grid": loaded.tuning_grid})
    return digest_json(settings.model_dump(mode="json"))


@cache
def backbone_settings_digest(profile: str) -> str:
    """Digest of what a profile says about the backbone's weights and how they are computed: features depend on it."""
    named = ("backbone", "backbone_path", "revision", "architecture", "precision", "attention", "feature_dtype")
    values = load_profile(profile).model_dump(mode="json")
    return digest_json({name: values.get(name) for name in named})


@cache
def fault_digest(fault: str) -> str:
    """Digest of what a fault does, whatever its title."""
    return digest_json(load_fault(fault).federation.model_dump(mode="json"))


def versions() -> dict[str, str]:
    """Versions of the packages that results may depend on."""
    from importlib.metadata import version

    return {name: version(name) for name in ("pilot-bench", "torch", "transformers", "numpy", "safetensors")}
