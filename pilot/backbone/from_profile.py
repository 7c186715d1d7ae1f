"""From a profile to its backbone, with the LoRA attached."""

from pilot.backbone.backbone import Backbone
from pilot.backbone.loading import load_checkpoint
from pilot.backbone.numerics import Numerics, set_up
from pilot.backbone.paths import backbone_digest
from pilot.config.profile import Profile


def load_backbone(profile: Profile, *, lean: bool = False) -> Backbone:
    """The profile's backbone with its LoRA attached; see `pilot.backbone.numerics.set_up`.

    Args:
        profile: names the backbone.
        lean: for training and answers only; see `pilot.backbone.packed.checkpoint`.

    Raises:
        UserError: no such backbone, no checkpoint or a damaged one, or no GPU where one is asked for.
    """
    backbone_digest(profile)  # refuses a shipped checkpoint that is not the recorded one before it is read
    numerics = Numerics.of(profile)
    set_up(numerics)
    return Backbone(
        load_checkpoint(profile, numerics, lean=lean),
        rank=profile.lora.rank,
        alpha=profile.lora.alpha,
        prompt_template=profile.prompt_template,
        numerics=numerics,
        max_length=profile.max_length,
    )
