"""Vision features of images of no scenario, stored beside a scenario's own by whoever needs them first."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from torch import Tensor

from pilot.backbone.backbone import Backbone
from pilot.backbone.feature_files import FeatureLayout, open_features, write_features
from pilot.backbone.sources import backbone_digest
from pilot.config.profile import Profile
from pilot.io.atomic import create_folder
from pilot.io.digest import digest_json, sha256_bytes
from pilot.provenance import stage_digest


def shared_features(
    backbone: Backbone, profile: Profile, images: Sequence[Image.Image], folder: Path, name: str
) -> Tensor:
    """Return the features (M, N, D) of images in float32, which all runs of a scenario share on disk.

    The vision tower takes longer to load than a small model takes to answer.

    Args:
        backbone: the profile's backbone.
        profile: what it computes with.
        images: RGB; they may repeat.
        folder: the scenario's features; these are in its folder `<name>-<digest>`.
        name: a word for these images.

    Raises:
        UserError: they cannot be written, or a shard is altered.
    """
    named = {sha256_bytes(image.tobytes()): image for image in images}
    names, own = sorted(named), {field: getattr(profile, field) for field in ("precision", "attention")}
    made_of = digest_json({"backbone": backbone_digest(profile), "source": stage_digest("features"), **own})
    target = folder / f"{name}-{digest_json([made_of, names])[:12]}"
    layout = FeatureLayout(len(names), *backbone.feature_shape, "float32")

    def compute(chunk: Sequence[str]) -> Tensor:
        return backbone.image_features([named[each] for each in chunk])

    if not target.is_dir():
        create_folder(target, lambda part: write_features(part, names, layout, made_of, compute))
    found = open_features(target)
    return found.take([found.row_of[sha256_bytes(image.tobytes())] for image in images])
