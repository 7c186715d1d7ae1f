"""Captions without METEOR, whose process takes ten seconds to start and minutes for random words."""

from collections.abc import Sequence

import pytest

from pilot.evaluation import caption
from pilot.evaluation.result import unavailable


def leave_out_meteor(patch: pytest.MonkeyPatch) -> None:
    """Make METEOR unavailable in this process."""
    scorers = [(names, _unavailable if "METEOR" in names else scorer) for names, scorer in caption._SCORERS]
    patch.setattr(caption, "_SCORERS", scorers)


def _unavailable(corpora: Sequence[caption.Corpus]) -> list[caption.Results]:
    return [{"METEOR": unavailable("not in this test")} for _ in corpora]
