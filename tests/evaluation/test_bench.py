"""`pilot-bench bench evaluation`: stock lm-eval answers what the suite answers, and a disagreement is shown."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pilot.bench.evaluation import bench
from pilot.bench.evaluation.stock_scores import ScoreComparison, compare_scores
from pilot.cli.main import app
from pilot.errors import UserError
from pilot.evaluation import vqa
from pilot.evaluation.answers import answer_rows
from pilot.evaluation.result import MetricResult
from pilot.evaluation.sets import read_evaluation_sets
from pilot.evaluation.trained import run_spec

from ..small import Small, quiet

ROWS = [{"task": "t", "clients": [0], "id": name, "prediction": f" {name} "} for name in "abc"]
OURS = [row | {"prediction": row["prediction"].strip()} for row in ROWS]


def test_only_other_words_differ() -> None:
    assert bench.differences(OURS, ROWS) == []
    other = [*ROWS[:2], ROWS[2] | {"prediction": "C"}]
    assert bench.differences(OURS, other) == [bench.Difference("t", [0], "c", "c", "C")]
    with pytest.raises(AssertionError, match="asked the same"):
        bench.differences(OURS[1:], ROWS[:2])


def test_a_difference_is_shown() -> None:
    differing = bench.Difference("scene-vqa", [0, 1], "v-3", "red", "blue")
    runs = [
        bench.Comparison("pilot/seed0", 3, 40, 2.0, 9.0, []),
        bench.Comparison("local/seed0", 3, 40, 2, 3, [differing]),
    ]
    scores = ScoreComparison(6, 30, 1.0, 13.0, {("local/seed0", "scene-vqa", "local", 2, "exact_match"): (0.5, None)})
    report = {
        "settings": {"batch_size": 4},
        "runs": [run.to_json() for run in runs],
        "total": bench.sum_comparisons(runs).to_json(),
        "scores": scores.to_json(),
        "whole": bench.sum_times(runs, scores),
    }
    assert report["total"]["ratio"] == 3.0 and report["total"]["num_different"] == 1
    assert report["whole"] == {"seconds": 5.0, "stock_seconds": 25.0, "ratio": 5.0}
    text = bench.as_text(report)
    assert "1 of 80 ANSWERS DIFFER" in text and "id 'v-3', ours 'red', stock 'blue'" in text
    assert "1 of 30 VALUES DIFFER" in text and "client 2, metric 'exact_match', ours 0.5, stock None" in text
    lines = [line.split() for line in text.splitlines()]
    assert lines[1] == ["pilot/seed0", "3", "40", "2.0", "9.0", "4.50", "0"]
    assert lines[5] == ["answers", "and", "scores", "5.0", "25.0", "5.00"]


def test_scores_by_lm_eval_are_ours(small: Small) -> None:
    """Of every metric that a run without captions has; an altered score is found."""
    run = small.run("fedavg")
    answered = [row for row in answer_rows(run, quiet, limit=2) if row["kind"] != "caption"]
    sets = [p for p in read_evaluation_sets(run_spec(run), small.folder, limit=2) if p.task.kind != "caption"]
    found = compare_scores({"fedavg": answered}, sets, small.folder / "data")
    assert found.num_sets == 6 and found.num_values == 16
    assert found.differences == {}

    real = vqa.score

    def always_right(
        predictions: Mapping[str, str], references: Mapping[str, Sequence[str]]
    ) -> dict[str, MetricResult]:
        return real({name: references[name][0] for name in predictions}, references)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vqa, "score", always_right)
        altered = compare_scores({"fedavg": [r | {"prediction": "?"} for r in answered]}, sets, small.folder / "data")
    assert {key[-1]: pair for key, pair in altered.differences.items()} == {"exact_match": (1.0, 0.0)}


def test_runs_without_a_model_are_left_out(tmp_path: Path) -> None:
    for method in ("fedavg", "majority"):
        folder = tmp_path / "runs" / method / "seed0"
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text("{}")
        (folder / "config.json").write_text(json.dumps({"method": method}))
    shutil.copytree(tmp_path / "runs/fedavg", tmp_path / "runs/other-tool")
    (tmp_path / "runs/other-tool/seed0/imported").mkdir()
    assert bench.trained_runs(tmp_path, []) == [tmp_path / "runs/fedavg/seed0"]
    with pytest.raises(UserError, match=r"no trained run of 'majority'. Found: \['fedavg'\]"):
        bench.trained_runs(tmp_path, ["majority"])
    with pytest.raises(UserError, match=r"no trained run\. Expected"):
        bench.trained_runs(tmp_path / "runs", [])


@pytest.mark.exhaustive  # three minutes; the next two hold prompts, and that weights are seen
def test_stock_lm_eval_answers_the_same(small: Small) -> None:
    """Six clients with a mixture of adapters each, from the command to its JSON; nothing is written."""
    run = small.run("pilot")
    before = sorted(small.folder.rglob("*"))
    arguments = ["bench", "evaluation", str(small.folder), "--method", "pilot", "--limit", "1", "--json"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    (found,) = [each for each in report["runs"] if small.folder / "runs" / each["run"] == run]
    assert (found["num_models"], found["num_answers"]) == (6, 6 * 2)  # of every client: one test record, one held out
    assert found["num_different"] == 0, found["differences"]
    assert report["settings"]["batch_size"] == 512
    assert report["scores"]["num_values"] > 0 and report["scores"]["num_different"] == 0
    assert sorted(small.folder.rglob("*")) == before


@pytest.mark.slow
def test_stock_prompts_are_our_prompts(small: Small, tmp_path: Path) -> None:
    """The ids that the stock class gives to the model, image tokens counted, for an instruction with a line break."""
    from PIL import Image

    from pilot.bench.evaluation.stock import StockModel, write_processor

    write_processor(small.profile, tmp_path)
    lm = StockModel(small.profile, tmp_path, 1).lm
    instruction = "Is it red?\nAnswer the question using a single word or phrase."
    prompt = lm.apply_chat_template([{"role": "user", "content": f"<image>\n{instruction}"}])
    ids = lm.tok_batch_multimodal_encode([prompt], [[Image.new("RGB", (80, 80))]])["input_ids"][0].tolist()
    backbone = small.backbone
    image = [backbone.model.config.image_token_id] * backbone.model.config.image_seq_length
    assert ids == [*backbone._prefix_ids.tolist(), *image, *backbone.prompt_ids(instruction)]


@pytest.mark.slow
@pytest.mark.exhaustive
def test_the_comparison_sees_the_weights(small: Small, tmp_path: Path) -> None:
    """With one model's merged LoRA and projector the answers are its own, with the backbone's they are not."""
    from pilot.bench.evaluation.stock import StockModel, StockWeights, stock_rows, stock_weights, write_processor

    run = small.run("fedavg")
    sets = read_evaluation_sets(run_spec(run), small.folder, limit=2)
    (weights,) = stock_weights(run)
    untrained = StockWeights(weights.clients, {}, small.backbone.projector())
    write_processor(small.profile, tmp_path)
    stock = StockModel(small.profile, tmp_path, batch_size=3)
    ours = answer_rows(run, quiet, limit=2)
    assert bench.differences(ours, stock_rows(stock, [untrained], sets, small.folder / "data"))
    assert not bench.differences(ours, stock_rows(stock, [weights], sets, small.folder / "data"))
