"""Loading of a profile's backbone with its LoRA attached."""

from pilot.backbone.backbone import Backbone
from pilot.backbone.loading import load_checkpoint
from pilot.backbone.numerics import Numerics, configure_torch
from pilot.backbone.sources import backbone_digest
from pilot.config.model import FRAMES
from pilot.config.profile import Profile
from pilot.errors import UserError


def load_backbone(profile: Profile, *, lean: bool = False) -> Backbone:
    """Configure PyTorch for a profile (`configure_torch`) and load its backbone with LoRA attached.

    Args:
        profile: names the backbone.
        lean: load only what training and answers need; see `pilot.backbone.packed.checkpoint`.

    Raises:
        UserError: an unknown backbone, a missing or damaged checkpoint, no `box_frame` for another family than LLaVA,
            or no GPU although the profile asks for one.
    """
    backbone_digest(profile)  # refuses an altered shipped checkpoint before it is read
    numerics = Numerics.from_profile(profile)
    configure_torch(numerics)
    backbone = Backbone(
        load_checkpoint(profile, numerics, lean=lean),
        rank=profile.lora.rank,
        alpha=profile.lora.alpha,
        prompt_template=profile.prompt_template,
        numerics=numerics,
        max_length=profile.max_length,
    )
    check_box_frame(profile, backbone.family.model_type)
    return backbone


def check_box_frame(profile: Profile, model_type: str) -> None:
    """Refuse a profile that leaves the frame of boxes open for a family of which we cannot know it.

    Raises:
        UserError: no `box_frame` for another family than LLaVA.
    """
    if profile.box_frame is None and model_type != "llava":
        raise UserError(
            f"profile {profile.name}: field box_frame: expected one of {', '.join(FRAMES)}, got none. Set the frame in "
            f"which {model_type} models answer with boxes: docs/add-a-backbone.md."
        )
