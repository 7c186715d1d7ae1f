"""Scores of all runs together compared with scores of each set of answers alone, as lm-eval computes them.

This is the second part of the bench. lm-eval scores the answers of one call of its evaluator: one model, one task, and
one list of documents. So a client's model on a task's test set and on the client's held-out part is scored in two
calls, and each caption set restarts the tokeniser and METEOR; `score_runs` starts them once for all sets. The values
must be the same.
"""

import logging
import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilot.bench.evaluation import NUM_SHOWN
from pilot.evaluation.answers import Row
from pilot.evaluation.scoring import DIGITS, score_runs
from pilot.evaluation.sets import EvaluationSet, load_task
from pilot.io.atomic import read_json, write_jsonl

Answers = Mapping[str, Sequence[Row]]
"""Rows of `samples.jsonl` by run."""
Value = tuple[str, str, str, int, str]
"""Run, task, protocol, client, metric."""


@dataclass(frozen=True)
class ScoreComparison:
    """Seconds of both sides, and the values that differ: ours, then lm-eval's (None if unavailable or missing)."""

    num_sets: int
    num_values: int
    seconds: float
    stock_seconds: float
    differences: dict[Value, tuple[float | None, float | None]]

    def to_json(self) -> dict[str, Any]:
        """Return all fields, the ratio, and the first few differences."""
        names = ("run", "task", "protocol", "client", "metric")
        pairs = list(self.differences.items())[:NUM_SHOWN]
        shown = [dict(zip(names, key, strict=True)) | {"ours": ours, "stock": stock} for key, (ours, stock) in pairs]
        counted = {"num_different": len(self.differences), "differences": shown}
        return vars(self) | counted | {"ratio": self.stock_seconds / self.seconds}


def compare_scores(answers: Answers, sets: Sequence[EvaluationSet], data: Path) -> ScoreComparison:
    """Score the same answers both ways; neither time includes reading the tasks' documents."""
    loaded = {evaluation_set.task.name: load_task(evaluation_set, data) for evaluation_set in sets}
    documents = {name: {doc["id"]: doc for doc in task.eval_docs} for name, task in loaded.items()}
    ours, seconds = _score_together(answers)
    theirs: dict[Value, float | None] = {}
    began, num_sets = time.perf_counter(), 0
    logging.disable(logging.WARNING)  # each set without SPICE logs a warning
    try:
        for run, rows in answers.items():
            for (task, protocol, clients), members in _group_by_set(rows).items():
                num_sets += 1
                for metric, value in _score_separately(loaded[task], documents[task], members).items():
                    theirs |= {(run, task, protocol, client, metric): value for client in clients}
    finally:
        logging.disable(logging.NOTSET)
    stock_seconds = time.perf_counter() - began
    different = {key: (ours.get(key), theirs.get(key)) for key in ours.keys() | theirs.keys()}
    different = {key: pair for key, pair in sorted(different.items()) if pair[0] != pair[1]}
    return ScoreComparison(num_sets, len(ours), seconds, stock_seconds, different)


def _score_together(answers: Answers) -> tuple[dict[Value, float | None], float]:
    """Score all runs together; return the values of `metrics.json` and the seconds of `score_runs`."""
    with tempfile.TemporaryDirectory() as folder:
        runs = {run: Path(folder) / run for run in answers}
        for run, rows in answers.items():
            write_jsonl(runs[run] / "eval" / "samples.jsonl", list(rows))
        began = time.perf_counter()
        score_runs(list(runs.values()))
        seconds = time.perf_counter() - began
        entries = [(run, e) for run in runs for e in read_json(runs[run] / "eval" / "metrics.json")["entries"]]
    return {(run, e["task"], e["protocol"], e["client"], e["metric"]): e["value"] for run, e in entries}, seconds


def _group_by_set(rows: Sequence[Row]) -> dict[tuple[str, str, tuple[int, ...]], list[Row]]:
    sets: dict[tuple[str, str, tuple[int, ...]], list[Row]] = {}
    for row in rows:
        sets.setdefault((row["task"], row["protocol"], tuple(row["clients"])), []).append(row)
    return sets


def _score_separately(task: Any, documents: Mapping[str, Any], rows: Sequence[Row]) -> dict[str, float | None]:
    """Score one task's answers as lm-eval's evaluator does: a value per document, then the aggregation."""
    values: dict[str, list[Any]] = {}
    for row in rows:
        for metric, value in task.process_results(documents[row["id"]], [row["prediction"]]).items():
            values.setdefault(metric, []).append(value)
    aggregation = task.aggregation()
    numbers = {metric: float(aggregation[metric](items)) for metric, items in values.items() if metric in aggregation}
    return {metric: None if math.isnan(number) else round(number, DIGITS) for metric, number in numbers.items()}
