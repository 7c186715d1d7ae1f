"""The families of this package and of others, by the `model_type` of a checkpoint's `config.json`."""

from functools import cache
from importlib.metadata import EntryPoint, entry_points

from pilot.backbone.families.base import Family
from pilot.backbone.families.internvl import InternVl
from pilot.backbone.families.llava import Llava
from pilot.backbone.families.llava_onevision import LlavaOneVision
from pilot.backbone.families.qwen_vl import QwenVl
from pilot.backbone.families.smol import Smol
from pilot.backbone.families.smolvlm import Idefics3, SmolVlm
from pilot.errors import UserError

GROUP = "pilot_bench.families"
FAMILIES: dict[str, type[Family]] = {
    family.model_type: family for family in (Llava, LlavaOneVision, SmolVlm, Idefics3, InternVl, QwenVl, Smol)
}


@cache
def _others() -> dict[str, EntryPoint]:
    """Return the entry points of other packages, by `model_type`."""
    return {point.name: point for point in sorted(entry_points(group=GROUP), key=lambda point: point.value)}


def known_families() -> list[str]:
    """Return the `model_type` of every family, sorted."""
    return sorted(FAMILIES.keys() | _others().keys())


def family_of(model_type: object, where: str = "config.json") -> type[Family]:
    """Return the family of a `model_type`; `where` names the file that it is from.

    Raises:
        UserError: there is no such family, or another package's cannot be imported or is none.
    """
    if isinstance(model_type, str) and model_type in FAMILIES:
        return FAMILIES[model_type]
    if not isinstance(model_type, str) or model_type not in _others():
        raise UserError(
            f"{where}: field model_type: expected one of {', '.join(known_families())}, got {model_type!r}. Choose "
            "another checkpoint, or add its family: docs/add-a-backbone.md."
        )
    point = _others()[model_type]
    try:
        loaded = point.load()
    except Exception as error:
        raise UserError(
            f"model_type {model_type!r}: entry point {point.value} (group {GROUP}): cannot be imported "
            f"({type(error).__name__}: {error})."
        ) from error
    if not (isinstance(loaded, type) and issubclass(loaded, Family) and loaded.model_type == model_type):
        raise UserError(
            f"model_type {model_type!r}: entry point {point.value} (group {GROUP}): expected a subclass of "
            f"pilot.backbone.families.base.Family with this model_type, got {loaded!r}."
        )
    return loaded
