"""Scores of runs: files in, files out."""

import io
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pilot.data.record import InstructionRecord, write_records
from pilot.errors import UserError
from pilot.evaluation import caption, java_tools
from pilot.evaluation.scoring import score_runs
from pilot.io import atomic

Row = dict[str, Any]


@pytest.fixture
def no_java(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Tokenise without Java (METEOR unavailable); the list grows by one per tokeniser call."""
    calls: list[int] = []

    def tokenise(sentences: Iterable[str]) -> dict[str, str]:
        calls.append(1)
        return {sentence: sentence.lower() for sentence in sentences}

    monkeypatch.setattr(java_tools, "tokenise", tokenise)
    monkeypatch.setattr(java_tools, "_java", lambda: "/nowhere/java")
    return calls


def _row(task: str, kind: str, clients: list[int], number: int, prediction: str, **values: Any) -> Row:
    row = {
        "task": task,
        "kind": kind,
        "protocol": "personalised",
        "clients": clients,
        "id": f"{task}-{number}",
    }
    return row | {"prediction": prediction, "references": [], "box": None, "attributes": {}} | values


def _vqa(clients: list[int], predictions: tuple[str, str], protocol: str = "personalised") -> list[Row]:
    return [
        _row("scene-vqa", "vqa", clients, i, p, references=[r], protocol=protocol)
        for i, (p, r) in enumerate(zip(predictions, ("red", "two"), strict=True))
    ]


def _captions(clients: list[int], predictions: tuple[str, str]) -> list[Row]:
    references = (["a red cat sits"], ["a dog runs fast"])
    return [
        _row("scene-caption", "caption", clients, i, p, references=r)
        for i, (p, r) in enumerate(zip(predictions, references, strict=True))
    ]


def _run(folder: Path, rows: list[Row]) -> Path:
    atomic.write_jsonl(folder / "eval" / "samples.jsonl", rows)
    return folder


def _metrics(folder: Path) -> dict[tuple[str, str, int, str], float | None]:
    entries = atomic.read_json(folder / "eval" / "metrics.json")["entries"]
    return {(e["task"], e["protocol"], e["client"], e["metric"]): e["value"] for e in entries}


def test_one_model_for_all_repeats_its_value(tmp_path: Path, no_java: list[int]) -> None:
    ground = _row("scene-ground", "ground", [6, 7], 0, "[0, 0, 1, 0.5]", box=[0, 0, 1, 1])
    run = _run(tmp_path / "fedavg", _vqa([0, 1, 2], ("red", "one")) + [ground])
    score_runs([run])
    expected: dict[tuple[str, str, int, str], float | None] = {
        ("scene-vqa", "personalised", client, "exact_match"): 0.5 for client in (0, 1, 2)
    }
    for client in (6, 7):
        key = ("scene-ground", "personalised", client)
        expected |= {(*key, "acc@0.5[original]"): 1.0, (*key, "mean_iou[original]"): 0.5}
        expected |= {(*key, "parse_failure_rate"): 0.0}
    assert _metrics(run) == expected
    assert no_java == []  # no captions: Java is left alone
    written = atomic.read_json(run / "eval" / "metrics.json")
    assert written["entries"][0] == {
        "task": "scene-ground", "kind": "ground", "protocol": "personalised", "client": 6,
        "metric": "acc@0.5[original]", "value": 1.0, "status": "ok", "reason": "", "num_examples": 1,
    }  # fmt: skip


def test_boxes_are_read_in_the_frame_of_the_answers(tmp_path: Path) -> None:
    """A landscape picture, 640 x 480: the box is (0.25, 0.5, 0.75, 0.875) in its padded square.

    Read in the original frame, the perfect answer covers 3/4 of the box; the other way round, the box's own numbers are
    (0.25, 0.5, 0.75, 1.0) in the square, of which the box is 3/4 as well.
    """
    box, framed = [0.25, 0.5, 0.75, 1.0], {"frame": "padded_square", "size": [640, 480]}
    answer = "[0.25, 0.5, 0.75, 0.875]"
    run = _run(tmp_path / "llava", [_row("g", "ground", [0], 0, answer, box=box, **framed)])
    plain = _run(tmp_path / "plain", [_row("g", "ground", [0], 0, answer, box=box)])
    score_runs([run, plain])
    key = ("g", "personalised", 0)
    own = {(*key, "acc@0.5[padded_square]"): 1.0, (*key, "mean_iou[padded_square]"): 1.0}
    failures = {(*key, "parse_failure_rate"): 0.0}
    other = {(*key, "acc@0.5[original]"): 1.0, (*key, "mean_iou[original]"): 0.75}
    assert _metrics(run) == own | failures and _metrics(plain) == other | failures
    digests = [atomic.read_json(folder / "eval" / "metrics.json")["test_digest"] for folder in (run, plain)]
    assert digests[0] == digests[1]  # the same was asked
    score_runs([run], ["original", "padded_square"])
    assert _metrics(run) == own | other | failures


def test_sizes_that_rows_do_not_state_are_those_of_the_data(tmp_path: Path) -> None:
    """A portrait picture, 3 x 4: one column to fill, 1 // 2 = 0 at the left, so x = 0.75 x."""
    folder = tmp_path / "embedded" / "mine"
    buffer = io.BytesIO()
    Image.new("RGB", (3, 4)).save(buffer, "PNG")
    box, answer = (0.0, 0.0, 1.0, 0.5), "[0.00, 0.00, 0.99, 0.50]"
    record = InstructionRecord("g-0", "ground", "own", buffer.getvalue(), "Where?", answer, (answer,), {}, "test", box)
    write_records(folder / "data" / "g" / "records.parquet", [record])
    rows = [_row("g", "ground", [0], 0, "[0, 0, 0.75, 0.5]", box=list(box))]
    run = _run(folder / "runs" / "fedavg" / "seed0", rows)
    score_runs([run], ["padded_square"])
    values = {key[-1]: value for key, value in _metrics(run).items()}
    assert values["mean_iou[padded_square]"] == 1.0 and values["mean_iou[original]"] == 0.75


def test_per_client_models_and_protocols_are_apart(tmp_path: Path) -> None:
    rows = _vqa([0], ("red", "two")) + _vqa([1], ("red", "no")) + _vqa([1], ("no", "no"), protocol="local")
    run = _run(tmp_path / "pilot", rows)
    score_runs([run])
    values = {key[1:3]: value for key, value in _metrics(run).items()}
    assert values == {("personalised", 0): 1.0, ("personalised", 1): 0.5, ("local", 1): 0.0}


def test_per_example_lines(tmp_path: Path, no_java: list[int]) -> None:
    run = _run(tmp_path / "run", _vqa([0, 1], ("red", "no")) + _captions([3], ("a red cat sits", "a dog")))
    score_runs([run])
    lines = atomic.read_jsonl(run / "eval" / "per_example.jsonl")
    first: Row = {"task": "scene-vqa", "protocol": "personalised", "metric": "exact_match"}
    assert [line for line in lines if line["task"] == "scene-vqa"] == [
        first | {"client": client, "id": f"scene-vqa-{number}", "value": value}
        for client in (0, 1)
        for number, value in ((0, 1.0), (1, 0.0))
    ]
    # Neither unavailable metrics nor BLEU, which is not a mean over sentences.
    assert {line["metric"] for line in lines} == {"exact_match", "ROUGE-L", "CIDEr"}
    text = (run / "eval" / "per_example.jsonl").read_text(encoding="utf-8")
    canonical = [json.dumps(line, sort_keys=True, separators=(",", ":")) for line in lines]
    assert text == "".join(f"{line}\n" for line in canonical)


def test_captions_of_all_runs_are_tokenised_in_one_call(tmp_path: Path, no_java: list[int]) -> None:
    answers = {"a": ("a red cat sits", "a dog"), "b": ("a cat", "a dog runs")}
    runs = [_run(tmp_path / name, _captions([3, 4], pair)) for name, pair in answers.items()]
    score_runs(runs)
    assert no_java == [1]
    references = {"scene-caption-0": ["a red cat sits"], "scene-caption-1": ["a dog runs fast"]}
    for run, pair in zip(runs, answers.values(), strict=True):
        predictions = dict(zip(references, pair, strict=True))
        expected = caption.score(predictions, references, ["CIDEr", "BLEU-4", "ROUGE-L"])
        for metric, result in expected.items():
            assert result.value is not None
            for client in (3, 4):
                value = _metrics(run)["scene-caption", "personalised", client, metric]
                assert value == pytest.approx(result.value, abs=1e-6)
    entry = next(e for e in atomic.read_json(runs[0] / "eval" / "metrics.json")["entries"] if e["metric"] == "METEOR")
    assert (entry["value"], entry["status"]) == (None, "unavailable")
    assert "METEOR does not start" in entry["reason"]


def test_test_digest_ignores_answers_and_notices_questions(tmp_path: Path) -> None:
    shared = _run(tmp_path / "shared", _vqa([0, 1], ("red", "two")))
    apart = _run(tmp_path / "apart", _vqa([1], ("x", "y")) + _vqa([0], ("z", "w"))[::-1])
    fewer = _run(tmp_path / "fewer", _vqa([0, 1], ("red", "two"))[:1])
    score_runs([shared, apart, fewer])
    digests = [atomic.read_json(run / "eval" / "metrics.json")["test_digest"] for run in (shared, apart, fewer)]
    assert digests[0] == digests[1] != digests[2]


def test_scoring_again_writes_the_same_bytes(tmp_path: Path, no_java: list[int]) -> None:
    rows = _captions([3], ("a cat", "dogs run")) + _vqa([0], ("red", "one"))
    runs = [_run(tmp_path / "a", rows), _run(tmp_path / "b", rows[::-1])]
    score_runs(runs)
    before = [(runs[0] / "eval" / name).read_bytes() for name in ("metrics.json", "per_example.jsonl")]
    score_runs(runs[:1])
    assert before == [(runs[0] / "eval" / name).read_bytes() for name in ("metrics.json", "per_example.jsonl")]
    assert before[1] == (runs[1] / "eval" / "per_example.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"kind": "text"},
            r"samples\.jsonl, row 2: field 'kind' is 'text', expected one of caption, ground, vqa",
        ),
        ({"prediction": None}, "row 2: field 'prediction' is None, expected str"),
        ({"clients": []}, "row 2: field 'clients' is"),
        ({"protocol": "global"}, "row 2: field 'protocol' is 'global'"),
        ({"references": [1]}, "row 2: field 'references' is"),
        ({"kind": "ground"}, "row 2: field 'box' is None, expected four numbers"),
        ({"id": "scene-vqa-0"}, r"row 2: client 0 answers 'scene-vqa-0' .* second time, first in row 1"),
        ({"references": []}, "task scene-vqa: an answer cannot be scored without references"),
    ],
)
def test_wrong_rows_name_file_row_and_field(tmp_path: Path, change: Row, message: str) -> None:
    rows = _vqa([0], ("red", "two"))
    run = _run(tmp_path / "run", [rows[0], rows[1] | change])
    with pytest.raises(UserError, match=message):
        score_runs([run])
    assert not (run / "eval" / "metrics.json").exists()


def test_missing_and_empty_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"samples\.jsonl: no such file"):
        score_runs([tmp_path])
    with pytest.raises(UserError, match="no samples"):
        score_runs([_run(tmp_path, [])])
    (tmp_path / "eval" / "samples.jsonl").write_text("{torn", encoding="utf-8")
    with pytest.raises(UserError, match=r"samples\.jsonl: damaged .*line 1: not JSON"):
        score_runs([tmp_path])


@pytest.mark.java
@pytest.mark.exhaustive
def test_with_java(tmp_path: Path) -> None:
    runs = [
        _run(tmp_path / "a", _captions([3, 4, 5], ("A red cat sits.", "a dog runs fast"))),
        _run(tmp_path / "b", _captions([3], ("a cat", "")) + _captions([4], ("red", "a dog"))),
    ]
    score_runs(runs)
    assert _metrics(runs[0])["scene-caption", "personalised", 5, "METEOR"] == 1.0
    assert _metrics(runs[0])["scene-caption", "personalised", 5, "CIDEr"] == pytest.approx(10.0)
    low = _metrics(runs[1])["scene-caption", "personalised", 3, "METEOR"]
    assert low is not None and 0 < low < 1


def test_all_inputs_are_checked_before_java_starts(tmp_path: Path, no_java: list[int]) -> None:
    whole, empty = _run(tmp_path / "whole", _captions([0], ("a", "b"))), tmp_path / "empty"
    with pytest.raises(UserError, match=r"empty/eval/samples\.jsonl: no such file"):
        score_runs([whole, empty])
    assert not no_java and not (whole / "eval/metrics.json").exists()


def test_evaluate_without_answers_needs_no_pytorch(tmp_path: Path) -> None:
    """It takes seconds to load and to leave, on a busy machine minutes."""
    code = (
        "import sys\nfrom pilot.cli.main import main\ntry:\n    main()\n"
        "finally:\n    assert not {'torch', 'transformers', 'pandas'} & sys.modules.keys()"
    )
    words = ("evaluate", "--no-answers", str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr == (
        f"error: {tmp_path}/eval/samples.jsonl: no such file. Evaluate the run first (pilot-bench evaluate).\n"
    )
