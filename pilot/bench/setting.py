"""How the sides of every bench compute: as training does."""

from pilot.backbone.numerics import Numerics, set_up
from pilot.io.memory import keep_freed_memory


def as_training() -> None:
    """One thread, deterministic kernels, freed memory kept; the same for both sides."""
    set_up(Numerics())
    keep_freed_memory()
