"""The lm-eval task files, from records on disk to aggregated metrics, with a model that answers from a list."""

import io
import json
import math
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pilot.errors import UserError
from pilot.evaluation import caption, java_tools, tasks
from pilot.evaluation.tasks import task_functions

NAMES = [
    *("pilot_caption", "pilot_easy_vqa", "pilot_ground", "pilot_scene_caption", "pilot_scene_ground"),
    *("pilot_scene_text", "pilot_scene_vqa", "pilot_vqa"),
]


def _png(colour: tuple[int, int, int]) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (4, 3), colour).save(buffer, format="PNG")
    return buffer.getvalue()


def _record(number: int, kind: str, **values: Any) -> dict[str, Any]:
    record: dict[str, Any] = {
        "id": f"{kind}-{number}",
        "task": kind,
        "source": "test",
        "image": _png((number, 0, 0)),
    }
    record |= {"image_sha256": f"{kind}{number}", "instruction": f"Question {number}?", "box": None}
    record |= {"attributes": json.dumps({"answer_type": "colour"}), "split": "test"}
    return record | values


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A scenario's data folder: two test records per task, one training record in scene-vqa."""
    import pyarrow as pa
    from pyarrow import parquet

    vqa = [_record(i, "vqa", answer=a, references=[a]) for i, a in enumerate(("red", "two", "left"))]
    vqa[2]["split"] = "train"
    captions = [_record(i, "caption", answer=a, references=[a, "x y"]) for i, a in enumerate(("a cat", "a dog"))]
    boxes = [[0.0, 0.0, 1.0, 1.0], [0.1, 0.2, 0.3, 0.4]]
    ground = [_record(i, "ground", answer="[0.10, 0.20]", references=[], box=b) for i, b in enumerate(boxes)]
    tasks = {
        "scene-vqa": vqa,
        "easy-vqa": vqa,
        "scene-text": vqa,
        "scene-caption": captions,
        "scene-ground": ground,
    }
    schema = pa.schema(
        [(name, pa.string()) for name in ("id", "task", "source", "image_sha256", "instruction", "answer")]
        + [("references", pa.list_(pa.string())), ("box", pa.list_(pa.float64())), ("image", pa.binary())]
        + [("attributes", pa.string()), ("split", pa.string())]
    )
    for task, rows in tasks.items():
        (tmp_path / task).mkdir()
        parquet.write_table(pa.Table.from_pylist(rows, schema=schema), tmp_path / task / "records.parquet")
    return tmp_path


def _evaluate(task: str, answers: list[str], metadata: dict[str, str]) -> tuple[dict[str, Any], list[Any]]:
    """Results of a task, and the requests that the model saw."""
    import lm_eval
    from lm_eval.api.model import LM
    from lm_eval.tasks import TaskManager

    seen: list[Any] = []

    class Listed(LM):
        MULTIMODAL = True

        def generate_until(self, requests: list[Any]) -> list[str]:
            seen.extend(request.args for request in requests)
            return answers

        def loglikelihood(self, requests: list[Any]) -> Any:
            raise AssertionError("no task here asks for likelihoods")

        loglikelihood_rolling = loglikelihood

    manager = TaskManager(include_path=str(tasks.FOLDER), include_defaults=False, metadata=metadata)
    output = lm_eval.simple_evaluate(
        model=Listed(), tasks=[task], task_manager=manager, bootstrap_iters=0, log_samples=True
    )
    assert output is not None
    json.dumps(output["samples"])  # documents hold no bytes
    return output["results"][task], seen


def test_all_tasks_are_found() -> None:
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(tasks.FOLDER), include_defaults=False)
    assert [name for name in manager.all_tasks if name.startswith("pilot_")] == NAMES == tasks.task_names()


@pytest.mark.parametrize("task", ["pilot_scene_vqa", "pilot_easy_vqa", "pilot_scene_text"])
def test_vqa(data: Path, task: str) -> None:
    results, seen = _evaluate(task, ["The red.", "three"], {"data": str(data)})
    assert results["exact_match,none"] == 0.5
    assert "vqa_official,none" not in results  # one reference: the ten-reference metric does not apply
    context, options, images = seen[1]
    assert context == "<image>\nQuestion 1?"
    assert options["until"] == ["\n"] and options["do_sample"] is False
    assert images["visual"][0].size == (4, 3)
    assert images["visual"][0].getpixel((0, 0)) == (1, 0, 0)


@pytest.mark.parametrize("task", ["pilot_vqa", "pilot_scene_vqa"])
def test_any_task_by_its_name(data: Path, task: str) -> None:
    (data / "scene-vqa").rename(data / "mine")
    results, seen = _evaluate(task, ["red", "three"], {"data": str(data), "task": "mine"})
    assert results["exact_match,none"] == 0.5 and len(seen) == 2


def test_any_task_needs_its_name() -> None:
    for named in ({}, {"data": "somewhere"}, {"task": "mine"}):
        with pytest.raises(UserError, match="expected the metadata keys `task` .* and `data`"):
            task_functions.load_records(**named)


@pytest.mark.parametrize("task", ["pilot_ground", "pilot_scene_ground"])
def test_ground(data: Path, task: str) -> None:
    results, _ = _evaluate(task, ["[0, 0, 1, 0.5]", "nowhere"], {"data": str(data), "task": "scene-ground"})
    assert results["acc@0.5[original],none"] == 0.5
    assert results["mean_iou[original],none"] == 0.25
    assert results["parse_failure_rate,none"] == 0.5


def test_ground_in_the_padded_square(data: Path, tmp_path: Path) -> None:
    """Pictures are 4 x 3, so y = (3 y + 0) / 4: the whole picture is (0, 0, 1, 0.75); by metadata, or by the run."""
    answers = ["[0, 0, 1, 0.75]", "[0.1, 0.15, 0.3, 0.3]"]
    named = {"data": str(data), "task": "scene-ground"}
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text('{"tasks": [{"name": "a"}, {"name": "b", "frame": "padded_square"}]}')
    for metadata in ({"frame": "padded_square"}, {"run": str(tmp_path / "run")}):
        results, _ = _evaluate("pilot_ground", answers, named | metadata)
        assert results["mean_iou[padded_square],none"] == pytest.approx(1.0) and results["parse_failure_rate,none"] == 0
        assert "mean_iou[original],none" not in results
    with pytest.raises(
        UserError,
        match="metadata key frame: expected one of original, padded_square, thousandths, pixels_448, got 'square'",
    ):
        task_functions.load_records(**named, frame="square")


@pytest.mark.parametrize("config", [{}, {"tasks": None}, {"tasks": "x"}])
def test_a_damaged_run_is_a_message(tmp_path: Path, config: dict[str, object]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"config\.json: .*field tasks: expected list"):
        task_functions._frame_of(str(tmp_path))


def test_conversations_are_asked_as_the_model_was_trained(data: Path) -> None:
    turns = [{"instruction": "Question 0?", "answer": "red", "box": None}]
    asked = task_functions.doc_to_text({"instruction": "And?", "earlier": turns})
    assert asked == "<image>\nQuestion 0? ASSISTANT: red</s>USER: And?"


def test_caption_aggregates_see_the_whole_corpus(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(java_tools, "tokenise", lambda sentences: {text: text for text in sentences})
    monkeypatch.setattr(java_tools, "_java", lambda: "/nowhere/java")
    results, _ = _evaluate("pilot_caption", ["a cat", "a"], {"data": str(data), "task": "scene-caption"})
    # Corpus BLEU-1: 3 of 3 words, 3 words against 4 (the closest references have 2 each): exp(1 - 4/3).
    assert results["BLEU-1,none"] == pytest.approx(math.exp(-1 / 3))
    assert results["CIDEr,none"] > 0
    assert math.isnan(results["METEOR,none"])  # unavailable is not 0


@pytest.mark.slow
@pytest.mark.exhaustive
def test_caption_with_java(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    score: Callable[..., caption.Results] = caption.score

    def counted(*arguments: Any) -> caption.Results:
        calls.append(1)
        return score(*arguments)

    monkeypatch.setattr(caption, "score", counted)
    results, _ = _evaluate("pilot_scene_caption", ["A cat.", "a dog"], {"data": str(data)})
    assert results["METEOR,none"] == 1.0
    assert results["BLEU-1,none"] == pytest.approx(1.0)
    assert calls == [1]  # one METEOR start, though lm-eval asks for eight metrics


def test_selection_file_and_environment(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(task_functions.DATA_VARIABLE, str(data))
    lines, listed = tmp_path / "ids.txt", tmp_path / "ids.json"
    lines.write_text("vqa-2\nvqa-0\n", encoding="utf-8")
    listed.write_text('["vqa-1"]', encoding="utf-8")
    chosen = task_functions.load_records("scene-vqa", "nowhere", ids=str(lines), version=1.0)
    assert chosen["test"]["id"][:] == ["vqa-2", "vqa-0"]  # the training split's too, in the file's order
    assert task_functions.load_records("scene-vqa", "nowhere", ids=str(listed))["test"]["id"][:] == ["vqa-1"]
    monkeypatch.setenv(task_functions.DATA_VARIABLE, "elsewhere")  # a stray variable does not change a pipeline's data
    assert len(task_functions.load_records("scene-vqa", "nowhere", data=str(data))["test"]) > 0
    monkeypatch.setenv(task_functions.DATA_VARIABLE, str(data))
    lines.write_text("vqa-9\n", encoding="utf-8")
    with pytest.raises(UserError, match="first: 'vqa-9'"):
        task_functions.load_records("scene-vqa", "nowhere", ids=str(lines))
    lines.write_text("\n", encoding="utf-8")
    with pytest.raises(UserError, match="no records selected"):
        task_functions.load_records("scene-vqa", "nowhere", ids=str(lines))


class Row(dict[str, Any]):
    """A row that a weak reference may refer to."""


@pytest.mark.parametrize("by_name", [False, True])
def test_rows_that_are_not_selected_are_not_held(by_name: bool, tmp_path: Path) -> None:
    """Of 40 rows with their images, four are for testing, or are named; at most the last other one is alive."""
    passed = list[weakref.ref[Row]]()

    def rows() -> Iterator[Row]:
        for number in range(40):
            others = [row for each in passed if (row := each()) is not None and row["split"] == "train"]
            assert len(others) <= 1
            row = Row(id=str(number), split="train" if number % 10 else "test")
            passed.append(weakref.ref(row))
            yield row
            del row, others

    (tmp_path / "ids.json").write_text('["30", "0", "10", "20"]', encoding="utf-8")
    selected = task_functions._select(rows(), str(tmp_path / "ids.json") if by_name else None, tmp_path)
    assert [row["id"] for row in selected] == (["30", "0", "10", "20"] if by_name else ["0", "10", "20", "30"])
    assert len(passed) == 40


def test_missing_data_names_the_file_and_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"scene-vqa/records\.parquet: no such file.*PILOT_DATA"):
        task_functions.load_records("scene-vqa", str(tmp_path))
