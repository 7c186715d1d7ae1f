"""Vision features of a scenario's images: computed once, memory-mapped by every method, seed and round."""

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from PIL import Image
from torch import Tensor

from pilot.backbone.backbone import Backbone
from pilot.backbone.feature_files import FeatureLayout, write_features
from pilot.backbone.sources import backbone_digest
from pilot.config.profile import Profile
from pilot.io.digest import digest_json
from pilot.provenance import stage_digest


def compute_features(
    backbone: Backbone,
    profile: Profile,
    images: Mapping[str, bytes],
    folder: Path,
    progress: Callable[[int, int], None],
    log: Callable[[str], None] = lambda text: None,
) -> None:
    """Write the features of all images to `folder`, ordered by the images' sha256.

    Args:
        backbone: the profile's backbone.
        profile: its `feature_dtype` is the type on disk.
        images: image file by sha256; each is asked for once.
        folder: see `pilot.backbone.feature_files`.
        progress: called with the number of finished images and the total.
        log: called with a description of the size before anything is written.

    Raises:
        UserError: the disk has too little space or cannot be written to.
    """
    names = sorted(images)
    layout = FeatureLayout(len(names), *backbone.feature_shape, profile.feature_dtype)
    log(layout.describe())

    def compute(chunk: Sequence[str]) -> Tensor:
        return backbone.image_features(Image.open(io.BytesIO(images[name])) for name in chunk)

    computed_as = {name: getattr(profile, name) for name in ("precision", "attention")}
    made_of = {"backbone": backbone_digest(profile), "source": stage_digest("features"), **computed_as}
    write_features(folder, names, layout, digest_json(made_of), compute, progress)
