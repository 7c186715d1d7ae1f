"""Export of models with several connectors or LoRAs: a folder of JSON and safetensors, without code, that `load` reads.

`pilot_model.json` names method, client, profile and backbone; `pilot_model.safetensors` holds LoRA and connectors. The
frozen backbone is not copied: it is named by its digest and must be available when the folder is loaded.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from pilot.backbone.backbone import Backbone
from pilot.backbone.from_profile import load_backbone
from pilot.backbone.sources import backbone_digest
from pilot.config.files import restored
from pilot.config.profile import Profile
from pilot.errors import UserError
from pilot.federation.client import ClientModel, loaded_model
from pilot.federation.spec import configured_method
from pilot.io.atomic import read_json, write_json
from pilot.io.checkpoint import load_state, save_state
from pilot.io.digest import sha256_file
from pilot.methods.base import ClientInfo, State

FORMAT = "pilot-bench model"
VERSION = 1
CONFIG, WEIGHTS = "pilot_model.json", "pilot_model.safetensors"
MAX_NEW_TOKENS = 64


@dataclass(frozen=True)
class ExportedModel:
    """A loaded model.

    Attributes:
        description: the content of `pilot_model.json`.
    """

    backbone: Backbone
    model: ClientModel
    description: Mapping[str, Any]

    def answer(
        self, images: Sequence[Image.Image], instructions: Sequence[str], max_new_tokens: int = MAX_NEW_TOKENS
    ) -> list[str]:
        """Generate greedy answers, one per image and instruction.

        Raises:
            ValueError: the numbers of images and instructions differ.
        """
        if len(images) != len(instructions):
            raise ValueError(f"expected as many images as instructions, got {len(images)} and {len(instructions)}")
        features_BND = self.backbone.image_features(images)

        def image_tokens(rows: list[int]) -> Tensor:
            tokens_BNC: Tensor = self.model.connector(features_BND[rows]).tokens_BNC
            return tokens_BNC

        with torch.no_grad():
            return self.backbone.answer(image_tokens, instructions, max_new_tokens)


def model_description(profile: Profile, method: str, info: ClientInfo, digest: str) -> dict[str, Any]:
    """Return the content of `pilot_model.json` without the digest of the weights; `digest` is the backbone's."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "method": method,
        "client": asdict(info) | {"tasks": list(info.tasks)},
        "profile": profile.for_method(method).model_dump(mode="json"),
        "backbone_digest": digest,
    }


def write_mixture(folder: Path, description: Mapping[str, Any], state: State) -> None:
    """Write the files that `load` reads."""
    digest = save_state(folder / WEIGHTS, state)
    write_json(folder / CONFIG, {**description, "weights_digest": digest})


def load(folder: Path | str) -> ExportedModel:
    """Load a model from a folder that `pilot-bench export` wrote for a method with several connectors or LoRAs.

    Nothing in the folder is executed: it holds JSON and tensors.

    Raises:
        UserError: not such a folder, another format or version, damaged weights, or another backbone than in training.
    """
    folder = Path(folder)
    description = _read_description(folder)
    profile = restored(Profile, f"{folder / CONFIG}: field profile", description["profile"])
    method = configured_method(profile, description["method"])
    client = description["client"]
    info = ClientInfo(client["client"], client["task"], tuple(client["tasks"]), client["seed"])
    state = load_state(folder / WEIGHTS)
    if sha256_file(folder / WEIGHTS) != description["weights_digest"]:
        raise UserError(
            f"{folder / WEIGHTS}: the sha256 differs from field weights_digest of {CONFIG}. Export the model again."
        )
    backbone = load_backbone(profile)
    found = backbone_digest(profile)
    if found != description["backbone_digest"]:
        raise UserError(
            f"{folder / CONFIG}: field backbone_digest: the model was trained on another {profile.backbone} (sha256 "
            f"expected {description['backbone_digest'][:12]}, found {found[:12]}). Install the expected checkpoint."
        )
    try:
        phase = method.final_phase(profile.rounds)
        assert phase is not None, "an exported model was trained"
        connector = method.make_connector(phase, info, backbone.projector(), state)
        model = loaded_model(backbone, method, connector, info, state, mixture=method.mixture(phase, state))
        if missing := sorted(model.parameters.keys() - state.keys()):
            raise ValueError(f"{len(missing)} tensors are missing, first {missing[0]}")
    except ValueError as error:
        raise UserError(f"{folder / WEIGHTS}: {error}. Use the package version that wrote the export.") from error
    model.connector.requires_grad_(False)
    return ExportedModel(backbone, model, description)


def _read_description(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    description: dict[str, Any] = read_json(path, {})
    if description.get("format") != FORMAT:
        raise UserError(f"{path}: field format: expected {FORMAT!r}. Name a folder that `pilot-bench export` wrote.")
    if description.get("version") != VERSION:
        raise UserError(
            f"{path}: field version: this package reads version {VERSION}, got {description.get('version')!r}. "
            "Use the package version that exported it, or export again."
        )
    return description
