"""`pilot-bench bench evaluation`: stock lm-eval answers what the suite answers, and a disagreement is shown."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pilot.cli import app
from pilot.errors import UserError
from pilot.evaluation import bench
from pilot.evaluation.answers import answer_rows, read_papers, run_spec

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
    report = {
        "settings": {"batch_size": 4},
        "runs": [run.to_json() for run in runs],
        "total": bench.total(runs).to_json(),
    }
    assert report["total"]["ratio"] == 3.0 and report["total"]["num_different"] == 1
    text = bench.as_text(report)
    assert "1 of 80 ANSWERS DIFFER" in text and "scene-vqa v-3: ours 'red', stock 'blue'" in text
    assert text.splitlines()[1].split() == ["pilot/seed0", "3", "40", "2.0", "9.0", "4.50", "0"]


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
    with pytest.raises(UserError, match="no trained run here"):
        bench.trained_runs(tmp_path / "runs", [])


@pytest.mark.slow
def test_stock_lm_eval_answers_the_same(small: Small) -> None:
    """Six clients with a mixture of adapters each, from the command to its JSON; nothing is written."""
    run = small.run("pilot")
    before = sorted(small.folder.rglob("*"))
    arguments = ["bench", "evaluation", str(small.folder), "--method", "pilot", "--limit", "1", "--json"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    (found,) = report["runs"]
    assert small.folder / "runs" / found["run"] == run
    assert (found["num_models"], found["num_answers"]) == (6, 6 * 2)  # of every client: one test record, one held out
    assert found["num_different"] == 0, found["differences"]
    assert report["settings"]["batch_size"] == 512
    assert sorted(small.folder.rglob("*")) == before


@pytest.mark.slow
def test_stock_prompts_are_our_prompts(small: Small, tmp_path: Path) -> None:
    """The ids that the stock class gives to the model, image tokens counted, for an instruction with a line break."""
    from PIL import Image

    from pilot.evaluation.stock import StockModel, write_processor

    write_processor(small.profile, tmp_path)
    lm = StockModel(small.profile, tmp_path, 1).lm
    instruction = "Is it red?\nAnswer the question using a single word or phrase."
    prompt = lm.apply_chat_template([{"role": "user", "content": f"<image>\n{instruction}"}])
    ids = lm.tok_batch_multimodal_encode([prompt], [[Image.new("RGB", (80, 80))]])["input_ids"][0].tolist()
    backbone = small.backbone
    image = [backbone.model.config.image_token_id] * backbone.model.config.image_seq_length
    assert ids == [*backbone._before.tolist(), *image, *backbone.prompt_ids(instruction)]


@pytest.mark.slow
def test_the_comparison_sees_the_weights(small: Small, tmp_path: Path) -> None:
    """With one model's merged LoRA and projector the answers are its own, with the backbone's they are not."""
    from pilot.evaluation.stock import StockModel, StockWeights, stock_rows, stock_weights, write_processor

    run = small.run("fedavg")
    papers = read_papers(run_spec(run), small.folder, limit=2)
    (weights,) = stock_weights(run)
    untrained = StockWeights(weights.clients, {}, small.backbone.projector())
    write_processor(small.profile, tmp_path)
    stock = StockModel(small.profile, tmp_path, batch_size=3)
    ours = answer_rows(run, quiet, limit=2)
    assert bench.differences(ours, stock_rows(stock, [untrained], papers, small.folder / "data"))
    assert not bench.differences(ours, stock_rows(stock, [weights], papers, small.folder / "data"))
