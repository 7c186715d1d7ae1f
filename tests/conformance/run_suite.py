"""Captions scored by the suite in a process of its own: `python run_suite.py <sets.json> <results.json>`."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

from pilot.evaluation import caption


def main(source: Path, target: Path) -> None:
    """Score {name: [predictions, references]} in one go; write {name: {metric: result}}."""
    results = caption.score_sets(json.loads(source.read_text(encoding="utf-8")))
    plain = {name: {metric: asdict(r) for metric, r in scored.items()} for name, scored in results.items()}
    target.write_text(json.dumps(plain), encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
