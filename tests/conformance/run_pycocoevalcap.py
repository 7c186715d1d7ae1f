"""pycocoevalcap's own command path: `python run_pycocoevalcap.py <annotations> <captions> <results>`, COCO's files.

Only SPICE is left out: the library downloads its models when a scorer is made.
"""

import json
import sys
from collections.abc import Sized
from pathlib import Path

from pycocoevalcap import eval as coco_caption
from pycocotools.coco import COCO


class NoSpice:
    """In the place of SPICE."""

    def compute_score(self, truth: Sized, results: Sized) -> tuple[float, list[float]]:
        """No value for any image."""
        return float("nan"), [float("nan")] * len(truth)

    def method(self) -> str:
        """What the library prints."""
        return "no SPICE"


def main(annotations: Path, captions: Path, target: Path) -> None:
    """As in the library's example; write {"all": {metric: value}, "images": {id: {metric: value}}}."""
    coco_caption.Spice = NoSpice
    truth = COCO(str(annotations))
    evaluation = coco_caption.COCOEvalCap(truth, truth.loadRes(str(captions)))
    evaluation.evaluate()
    values = {"all": evaluation.eval, "images": evaluation.imgToEval}
    target.write_text(json.dumps(values, default=float), encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
