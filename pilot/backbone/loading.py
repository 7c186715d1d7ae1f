"""Loading of a profile's model, tokenizer and image processor."""

from pilot.backbone.checkpoint import Checkpoint, read_checkpoint
from pilot.backbone.families.fields import loading
from pilot.backbone.fitting import check_checkpoint
from pilot.backbone.numerics import Numerics
from pilot.backbone.packed.checkpoint import LeanCheckpoint, can_load_lean
from pilot.backbone.sources import checkpoint_folder
from pilot.config.model import RandomModel
from pilot.config.profile import Profile


def load_checkpoint(
    profile: Profile, numerics: Numerics, *, lean: bool = False, connector_only: bool = False
) -> Checkpoint | LeanCheckpoint:
    """Load the profile's backbone; create one with random weights if it has no checkpoint yet.

    Args:
        profile: names the backbone.
        numerics: device, precision and kernels.
        lean: skip transformers' model if the packed passes suffice.
        connector_only: read no other weights than the connector's from a checkpoint of transformers.

    Raises:
        UserError: as `pilot.backbone.sources.checkpoint_folder` and `read_checkpoint`.
    """
    size = profile.architecture
    if size is None:
        folder = checkpoint_folder(profile)
        check_checkpoint(folder)
        if lean and can_load_lean(folder, numerics):
            with loading(f"{folder}: language model or tokenizer"):
                return LeanCheckpoint(folder, numerics)
        return read_checkpoint(folder, numerics, connector_only=connector_only)
    return _load_random(profile, size, numerics, connector_only)


def _load_random(profile: Profile, size: RandomModel, numerics: Numerics, connector_only: bool) -> Checkpoint:
    from pilot.backbone.random_llava import random_model, random_processor, random_tokenizer, write_random_llava
    from pilot.backbone.random_model import write_random_model

    if not size.materialise:
        model = random_model(size, numerics.device, numerics.dtype)
        model.set_attn_implementation(numerics.attention)
        return Checkpoint(model.eval().requires_grad_(False), random_tokenizer(), random_processor(size))
    folder = checkpoint_folder(profile)
    if not folder.is_dir() and size.family == "llava":
        write_random_llava(size, folder)
    elif not folder.is_dir():
        write_random_model(size, folder)
    return read_checkpoint(folder, numerics, connector_only=connector_only)
