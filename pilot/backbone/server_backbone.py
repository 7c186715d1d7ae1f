"""What the server of a run needs of its backbone: the connector, and LoRA's names and shapes.

A server averages what clients send and computes nothing with the LLM, whose weights are as large as on a client. They
are read only for a method that starts from them (`Method.starts_from_weights`, `trains_language`).
"""

from typing import Any

from torch import Tensor

from pilot.backbone.backbone import Backbone
from pilot.backbone.checkpoint import Checkpoint
from pilot.backbone.families.table import family_of
from pilot.backbone.from_profile import check_box_frame, load_backbone
from pilot.backbone.loading import load_checkpoint
from pilot.backbone.lora import attach_lora, initial_lora_state
from pilot.backbone.numerics import Numerics, configure_torch
from pilot.backbone.packed.checkpoint import LeanCheckpoint
from pilot.backbone.sources import backbone_digest
from pilot.config.profile import Profile
from pilot.connector.projector import Projector


def load_server_backbone(profile: Profile, *, weights: bool) -> "Backbone | ServerBackbone":
    """Load a profile's backbone for a server, in host memory: GPUs are for the clients.

    Args:
        profile: names the backbone.
        weights: whether the method needs the LLM's weights.

    Raises:
        UserError: as `load_backbone`.
    """
    profile = profile.model_copy(update={"device": "cpu"})
    if weights:
        return load_backbone(profile, lean=True)
    backbone_digest(profile)  # refuses an altered shipped checkpoint before it is read
    numerics = Numerics.from_profile(profile)
    configure_torch(numerics)
    checkpoint = load_checkpoint(profile, numerics, lean=True, connector_only=True)
    check_box_frame(profile, checkpoint.model.config.model_type)
    return ServerBackbone(checkpoint, rank=profile.lora.rank, alpha=profile.lora.alpha)


class ServerBackbone:
    """A backbone without the weights of its LLM and its vision tower, which are on PyTorch's meta device."""

    def __init__(self, checkpoint: Checkpoint | LeanCheckpoint, *, rank: int, alpha: float) -> None:
        model: Any = checkpoint.model
        family = family_of(model.config.model_type)(checkpoint, Numerics())
        self._projector = family.projector()
        language = family.language_model
        if not all(parameter.is_meta for parameter in language.parameters()):
            language.to("meta")
        self.num_language_parameters = sum(parameter.numel() for parameter in language.parameters())
        self.width = int(model.get_input_embeddings().weight.shape[1])
        self.text_adapter = attach_lora(language, rank, alpha)

    def projector(self) -> Projector:
        """Return a float32 copy of the backbone's pre-trained connector, in host memory."""
        return self._projector.duplicate().requires_grad_(False)

    def initial_adapter(self, seed: int, from_weights: bool = False) -> dict[str, Tensor]:
        """Return LoRA's initial values, which the seed gives.

        Raises:
            ValueError: values from the LLM's weights are asked for, which are not here.
        """
        if from_weights:
            raise ValueError("a backbone without weights has no singular values")
        return initial_lora_state(self.text_adapter, seed)

    def initial_language_state(self) -> dict[str, Tensor]:
        """Raise ValueError, since the LLM's own parameters are not here."""
        raise ValueError("a backbone without weights has no language parameters")
