"""`pilot-bench bench evaluation`: a scenario evaluated by this suite and by lm-eval's stock class, timed side by side.

Both sides answer in this process, with the same number of threads, one after the other; which side is first alternates
between runs. The stock side uses PyTorch's default precision of matrix products, with which it is faster. Each side
loads its backbone once per run. In favour of the stock side, its clients' weights and the records' ids are in memory
before its time starts, lm-eval's evaluator is called without its report on the machine, and a model's test sets and
held-out parts are answered in one call. Then the same answers are scored both ways (stock_scores.py).
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pilot.bench.evaluation import NUM_SHOWN
from pilot.config.variant import base_name
from pilot.errors import UserError
from pilot.io.atomic import read_json
from pilot.io.layout import scenario_folder

if TYPE_CHECKING:
    from pilot.bench.evaluation.stock_scores import ScoreComparison

Advance = Callable[[int, int], None]


@dataclass(frozen=True)
class Difference:
    """One example on which the answers of the two sides differ by more than surrounding whitespace."""

    task: str
    clients: list[int]
    id: str
    ours: str
    stock: str


@dataclass(frozen=True)
class Comparison:
    """Comparison of one run: numbers of models and answers, seconds of both sides, differing answers."""

    run: str
    num_models: int
    num_answers: int
    seconds: float
    stock_seconds: float
    differences: list[Difference]

    def to_json(self) -> dict[str, Any]:
        """Return all fields, the ratio, and the first few differences."""
        shown = [asdict(difference) for difference in self.differences[:NUM_SHOWN]]
        counted = {"num_different": len(self.differences), "differences": shown}
        return asdict(self) | counted | {"ratio": self.stock_seconds / self.seconds}


def bench_evaluation(
    scenario_dir: Path, methods: Sequence[str], limit: int | None, batch_size: int, progress: Advance
) -> dict[str, Any]:
    """Compare every trained run of a scenario's folder, or those of `methods` only.

    Args:
        scenario_dir: results/<profile>/<scenario>; nothing is written there.
        methods: methods to compare; all if empty.
        limit: number of records from the start of each test set and each held-out part; all if None.
        batch_size: batch size of the stock class.
        progress: called with the finished and total numbers of runs; the scores count as one more.

    Raises:
        UserError: the folder has no trained run, or none of one of the methods.
    """
    from pilot.bench.evaluation.stock_scores import compare_scores
    from pilot.evaluation.sets import read_evaluation_sets
    from pilot.evaluation.trained import run_spec

    runs = trained_runs(scenario_dir.resolve(), methods)
    progress(0, len(runs) + 1)
    compare_run(runs[0], 1, batch_size, stock_first=False)  # warm-up: imports and first calls are not timed
    compared, answers = [], {}
    for number, run_dir in enumerate(runs):
        comparison, answers[comparison.run] = compare_run(run_dir, limit, batch_size, stock_first=number % 2 == 1)
        compared.append(comparison)
        progress(number + 1, len(runs) + 1)
    sets = read_evaluation_sets(run_spec(runs[0]), scenario_dir.resolve(), limit)
    scores = compare_scores(answers, sets, scenario_dir.resolve() / "data")
    progress(len(runs) + 1, len(runs) + 1)
    settings = {"batch_size": batch_size, "limit": limit} | environment()
    rows = {"runs": [run.to_json() for run in compared], "total": sum_comparisons(compared).to_json()}
    return {"settings": settings, "scores": scores.to_json()} | rows | {"whole": sum_times(compared, scores)}


def sum_times(compared: Sequence[Comparison], scores: "ScoreComparison") -> dict[str, float]:
    """Add up answers and scores: seconds of both sides and their ratio."""
    seconds = sum(run.seconds for run in compared) + scores.seconds
    stock_seconds = sum(run.stock_seconds for run in compared) + scores.stock_seconds
    return {"seconds": seconds, "stock_seconds": stock_seconds, "ratio": stock_seconds / seconds}


def environment() -> dict[str, Any]:
    """Return the number of threads and the package versions, on which the times depend."""
    import torch

    versions = {name: version(name) for name in ("torch", "transformers", "lm_eval")}
    return {"threads": torch.get_num_threads()} | versions


def sum_comparisons(compared: Sequence[Comparison]) -> Comparison:
    """Add up all runs."""
    return Comparison(
        "all",
        sum(run.num_models for run in compared),
        sum(run.num_answers for run in compared),
        sum(run.seconds for run in compared),
        sum(run.stock_seconds for run in compared),
        [difference for run in compared for difference in run.differences],
    )


def trained_runs(scenario_dir: Path, methods: Sequence[str]) -> list[Path]:
    """List the finished runs that have a model, sorted; only those of `methods` if any are given."""
    from pilot.methods.blind import Blind
    from pilot.registry import method_class

    runs: dict[Path, str] = {}
    for manifest in sorted(scenario_dir.glob("runs/*/seed*/manifest.json")):
        method = read_json(manifest.parent / "config.json", {"method": str})["method"]
        imported = (manifest.parent / "imported").is_dir()
        if not imported and not issubclass(method_class(base_name(method)), Blind):
            runs[manifest.parent] = method
    for method in methods:
        if method not in runs.values():
            raise UserError(f"{scenario_dir}: no trained run of {method!r}. Found: {sorted(set(runs.values()))}.")
    if not runs:
        raise UserError(f"{scenario_dir}: no trained run. Expected results/<profile>/<scenario> with runs/.")
    return [run_dir for run_dir, method in runs.items() if not methods or method in methods]


def compare_run(
    run_dir: Path, limit: int | None, batch_size: int, *, stock_first: bool
) -> tuple[Comparison, list[dict[str, Any]]]:
    """Time both sides of one run; return the comparison and our rows of `samples.jsonl`."""
    from pilot.backbone.numerics import default_matmul_precision
    from pilot.bench.evaluation.stock import StockModel, stock_rows, stock_weights, write_processor
    from pilot.evaluation.answers import answer_rows
    from pilot.evaluation.sets import read_evaluation_sets
    from pilot.evaluation.trained import run_spec

    spec, scenario_dir = run_spec(run_dir), scenario_folder(run_dir)
    sets, models = read_evaluation_sets(spec, scenario_dir, limit), stock_weights(run_dir)
    with tempfile.TemporaryDirectory() as folder:
        write_processor(spec.profile, Path(folder))

        def stock() -> list[dict[str, Any]]:
            with default_matmul_precision():
                model = StockModel(spec.profile, Path(folder), batch_size)
                return stock_rows(model, models, sets, scenario_dir / "data")

        sides = {"ours": lambda: answer_rows(run_dir, lambda done, total: None, limit), "stock": stock}
        order = sorted(sides, reverse=stock_first)
        timed = {name: _timed(sides[name]) for name in order}
    (ours, seconds), (theirs, stock_seconds) = timed["ours"], timed["stock"]
    name = run_dir.relative_to(scenario_dir / "runs").as_posix()
    return Comparison(name, len(models), len(ours), seconds, stock_seconds, differences(ours, theirs)), ours


def differences(ours: Sequence[dict[str, Any]], stock: Sequence[dict[str, Any]]) -> list[Difference]:
    """Collect the rows of `samples.jsonl`, in the same order on both sides, whose predictions differ."""
    found = []
    for mine, other in zip(ours, stock, strict=True):
        asked = [{key: row[key] for key in ("task", "clients", "id")} for row in (mine, other)]
        assert asked[0] == asked[1], "both sides are asked the same"
        if mine["prediction"].strip() != other["prediction"].strip():
            found.append(Difference(**asked[0], ours=mine["prediction"], stock=other["prediction"]))
    return found


def as_text(report: dict[str, Any]) -> str:
    """Format the report as a table, with the settings and the first differing answers below it."""
    lines = [f"{'run':<20} {'models':>6} {'answers':>7} {'ours s':>8} {'stock s':>8} {'ratio':>6} {'differ':>6}"]
    for row in (*report["runs"], report["total"]):
        lines.append(
            f"{row['run']:<20} {row['num_models']:>6} {row['num_answers']:>7} {row['seconds']:>8.1f} "
            f"{row['stock_seconds']:>8.1f} {row['ratio']:>6.2f} {row['num_different']:>6}"
        )
    scores, whole = report["scores"], report["whole"]
    lines.append(f"{'scores':<35} {scores['seconds']:>8.1f} {scores['stock_seconds']:>8.1f} {scores['ratio']:>6.2f}")
    lines.append(
        f"{'answers and scores':<35} {whole['seconds']:>8.1f} {whole['stock_seconds']:>8.1f} {whole['ratio']:>6.2f}"
    )
    lines.append("stock: hf-multimodal; " + ", ".join(f"{key} {value}" for key, value in report["settings"].items()))
    return "\n".join([*lines, *_verdict(report["total"], "answers"), *_verdict(scores, "values")])


def _verdict(compared: dict[str, Any], what: str) -> list[str]:
    """State that all answers (or values) are the same, or show the first that are not."""
    number, different = compared[f"num_{what}"], compared["num_different"]
    if not different:
        return [f"All {number} {what} are the same."]
    shown = [", ".join(f"{name} {value!r}" for name, value in row.items()) for row in compared["differences"]]
    return [f"{different} of {number} {what.upper()} DIFFER, the first:", *(f"  {row}" for row in shown)]


def _timed(side: Callable[[], list[dict[str, Any]]]) -> tuple[list[dict[str, Any]], float]:
    began = time.perf_counter()
    rows = side()
    return rows, time.perf_counter() - began
