"""Other tools' files: what is read from them, and what is said of those that cannot be read."""

import json
import zipfile
from pathlib import Path
from typing import Any, get_args

import pytest
from openpyxl import Workbook

from pilot.cli.options import ImportFormat
from pilot.errors import UserError
from pilot.evaluation.imported.formats import FORMATS, Answer, read_answers

# As lm-eval 0.4.13 writes it for a task of the suite, less what is not read (arguments, hashes).
LM_EVAL = {
    "doc_id": 0,
    "doc": {
        "id": "scene-vqa-test-00000", "instruction": "What is it?", "answer": "key", "references": ["key"],
        "box": None, "attributes": "{}", "image_sha256": "b8ee", "split": "test",
    },
    "target": "key", "resps": [["a lock"]], "filtered_resps": ["a lock"], "filter": "none",
    "metrics": ["exact_match"], "exact_match": 0.0,
}  # fmt: skip
# As lmms-eval writes it: `doc` and `arguments` are dropped, `resps` too where no filter changed it.
LMMS_EVAL = {
    "doc_id": 7, "target": "['two', '2']", "filtered_resps": ["two\ndogs"], "doc_hash": "0", "prompt_hash": "0",
    "target_hash": "0", "input": "How many?", "exact_match": 1.0,
}  # fmt: skip
ANSWER = {"id": "a", "prediction": "red"}


def lines(path: Path, *rows: Any) -> Path:
    """A file with one JSON value per line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_formats_are_those_of_the_command() -> None:
    assert set(FORMATS) == set(get_args(ImportFormat))


def test_lm_eval(tmp_path: Path) -> None:
    (answer,) = read_answers(lines(tmp_path / "samples_pilot_scene_vqa_2026.jsonl", LM_EVAL), "lm-eval")
    stated = {"image_sha256": "b8ee", "instruction": "What is it?", "references": ["key"], "box": None, "answer": "key"}
    assert answer == Answer(1, "scene-vqa-test-00000", "a lock", stated)


def test_lmms_eval_numbers_its_documents(tmp_path: Path) -> None:
    (answer,) = read_answers(lines(tmp_path / "2026_samples_scene.jsonl", LMMS_EVAL), "lmms-eval")
    assert answer == Answer(1, "7", "two\ndogs", {"answer": "['two', '2']"})


def test_vlmevalkit_tables(tmp_path: Path) -> None:
    text = '"index"\t"question"\t"answer"\t"prediction"\n"1"\t"How?"\t""\t"two ""big"" dogs\nrun"\n"2"\t"?"\t"2"\t""\n'
    (tmp_path / "model_data.tsv").write_text(text, encoding="utf-8")
    expected = [Answer(1, "1", 'two "big" dogs\nrun'), Answer(2, "2", "", {"answer": "2"})]
    assert read_answers(tmp_path / "model_data.tsv", "vlmevalkit") == expected
    rows = [
        {"index": 1, "question": "How?", "answer": float("nan"), "prediction": 'two "big" dogs\nrun'},
        {"index": 2, "question": "?", "answer": 2, "prediction": ""},
    ]
    (tmp_path / "model_data.json").write_text(json.dumps(rows, indent=4), encoding="utf-8")
    expected[1] = Answer(2, "2", "", {"answer": 2})
    assert read_answers(tmp_path / "model_data.json", "vlmevalkit") == expected


def test_words_that_pandas_takes_for_nothing_are_answers(tmp_path: Path) -> None:
    (tmp_path / "m_d.tsv").write_text("index\tprediction\na\tNone\nb\tnan\nc\t007\n", encoding="utf-8")
    assert [answer.prediction for answer in read_answers(tmp_path / "m_d.tsv", "vlmevalkit")] == ["None", "nan", "007"]


def test_vlmevalkit_xlsx(tmp_path: Path) -> None:
    book = Workbook()
    for row in (("index", "answer", "prediction"), (1, None, "NA"), ("x-2", 2, 7)):
        book.active.append(row)
    book.save(tmp_path / "m_d.xlsx")
    expected = [Answer(1, "1", "NA"), Answer(2, "x-2", "7", {"answer": "2"})]
    assert read_answers(tmp_path / "m_d.xlsx", "vlmevalkit") == expected


def test_escapes_of_a_sheet_are_decoded(tmp_path: Path) -> None:
    """As xlsxwriter stores line ends and what looks like an escape (ECMA-376, ST_Xstring)."""
    book = Workbook()
    for row in (
        ("index", "predict_x0069_on"),
        ("a", "red_x000D_\n"),
        ("b", "_x005F_x000D_"),
        ("c", "_xD83D__xDE00_ _x00e9_"),
    ):
        book.active.append(row)
    book.save(tmp_path / "m_d.xlsx")
    predictions = [answer.prediction for answer in read_answers(tmp_path / "m_d.xlsx", "vlmevalkit")]
    assert predictions == ["red\r\n", "_x000D_", "\U0001f600 \u00e9"]
    (tmp_path / "m_d.tsv").write_text("index\tprediction\na\tred_x000D_\n")
    assert read_answers(tmp_path / "m_d.tsv", "vlmevalkit")[0].prediction == "red_x000D_"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("name", ["answers.jsonl", "answers.json", "list.json", "answers.tsv"])
def test_every_file_is_read_the_same_way(tmp_path: Path, name: str, encoding: str) -> None:
    rows = [{"index": f"{n}", "prediction": "là"} for n in range(2)]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    text = json.dumps(rows, indent=2) if name.startswith("list") else text
    text = "index\tprediction\n0\tlà\n1\tlà\n" if name.endswith("tsv") else text
    (tmp_path / name).write_bytes(text.encode(encoding))
    assert read_answers(tmp_path / name, "vlmevalkit") == [Answer(1, "0", "là"), Answer(2, "1", "là")]


def test_mistakes_in_json_have_line_and_column(tmp_path: Path) -> None:
    (tmp_path / "m_d.json").write_text('[{"index": 1, "prediction": "a"},\n]')
    with pytest.raises(UserError, match="line 2, column 1: .*a comma before the closing bracket"):
        read_answers(tmp_path / "m_d.json", "vlmevalkit")
    (tmp_path / "a.jsonl").write_text('{"id": "a", "prediction": "a"}\n{"id": \'b\'}\n')
    with pytest.raises(UserError, match="row 2, column 8: .*looks like Python"):
        read_answers(tmp_path / "a.jsonl", "jsonl")


@pytest.mark.parametrize("content", [b"index,prediction", None])
def test_broken_xlsx(tmp_path: Path, content: bytes | None) -> None:
    """Text with the wrong ending; an archive that holds no table."""
    path = tmp_path / "m_d.xlsx"
    if content:
        path.write_bytes(content)
    else:
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("readme.txt", "")
    with pytest.raises(UserError, match=r"m_d.xlsx: cannot be read .*Expected a prediction file of VLMEvalKit"):
        read_answers(path, "vlmevalkit")


def test_jsonl(tmp_path: Path) -> None:
    path = lines(tmp_path / "answers.jsonl", ANSWER, {**ANSWER, "task": "scene-vqa"})
    assert read_answers(path, "jsonl") == [Answer(1, "a", "red"), Answer(2, "a", "red", task="scene-vqa")]


@pytest.mark.parametrize(
    ("format", "rows", "message"),
    [
        ("jsonl", [ANSWER, {"id": "b"}], r"row 2: field 'prediction' is missing \(found: id\). Expected one object"),
        (
            "jsonl",
            [{**ANSWER, "prediction": None}],
            r"row 1: field 'prediction' has no value \(null, NaN or Infinity\)",
        ),
        ("jsonl", [{**ANSWER, "prediction": float("nan")}], "row 1: field 'prediction' has no value"),
        ("jsonl", [{**ANSWER, "id": float("inf")}], "row 1: field 'id' has no value"),
        ("jsonl", [{**ANSWER, "prediction": 7}], "row 1: field 'prediction' is 7, expected a text"),
        ("jsonl", [{**ANSWER, "prediction": "\ud800"}], "row 1: field 'prediction' is .*valid Unicode"),
        ("vlmevalkit", [{"index": float("nan"), "prediction": "a"}], "row 1: field 'index' has no value"),
        ("lm-eval", [{**LM_EVAL, "filtered_resps": [[float("nan")]]}], "'filtered_resps' is None, expected one gener"),
        ("lmms-eval", [{**LMMS_EVAL, "doc_id": float("nan")}], "row 1: field 'doc_id' has no value"),
        ("jsonl", [ANSWER, "b"], "cannot be read .expected JSON objects"),
        ("jsonl", [], "no rows. Expected one object per line"),
        ("jsonl", [ANSWER] * 3, "1 ids occur more than once, first: 'a' in rows 1, 2, 3. Keep one answer of each"),
        ("lm-eval", [ANSWER], "row 1: field 'doc_id' is missing .*which lm-eval writes with --log_samples"),
        ("lm-eval", [{**LM_EVAL, "doc": "key"}], "row 1: field 'doc' is 'key', expected an object"),
        ("lm-eval", [{**LM_EVAL, "filtered_resps": ["a", "b"]}], "'filtered_resps' is .*expected one generated text"),
        ("lm-eval", [{**LM_EVAL, "filtered_resps": [["-1.5", "False"]]}], "expected one generated text"),
        (
            "lm-eval",
            [LM_EVAL, {**LM_EVAL, "filter": "first"}],
            r"answers of 2 filters \(first, none\), exp",
        ),
    ],
)
def test_wrong_files_are_named(tmp_path: Path, format: str, rows: list[Any], message: str) -> None:
    with pytest.raises(UserError, match=f"answers.jsonl.*{message}"):
        read_answers(lines(tmp_path / "answers.jsonl", *rows), format)


def test_missing_column(tmp_path: Path) -> None:
    (tmp_path / "m_d.tsv").write_text("index\tanswer\na\tb\n")
    with pytest.raises(UserError, match=r"m_d.tsv, row 1: field 'prediction' is missing \(found: answer, index\)"):
        read_answers(tmp_path / "m_d.tsv", "vlmevalkit")


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none.jsonl: cannot be read .*No such file"):
        read_answers(tmp_path / "none.jsonl", "jsonl")
    (tmp_path / "torn.jsonl").write_bytes(b'{"id": "a", "predic')
    with pytest.raises(UserError, match="torn.jsonl: cannot be read"):
        read_answers(tmp_path / "torn.jsonl", "jsonl")
    (tmp_path / "image.tsv").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(UserError, match="image.tsv: cannot be read"):
        read_answers(tmp_path / "image.tsv", "vlmevalkit")
    (tmp_path / "image.xlsx").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(UserError, match="image.xlsx: cannot be read"):
        read_answers(tmp_path / "image.xlsx", "vlmevalkit")
    with pytest.raises(UserError, match="--format csv: unknown. Expected one of: lm-eval, lmms-eval, vlmevalkit, json"):
        read_answers(tmp_path / "none.jsonl", "csv")


def test_answers_that_were_never_given(tmp_path: Path) -> None:
    rows = [{"index": n, "prediction": "Failed to obtain answer via API."} for n in range(5)]
    (tmp_path / "m_d.json").write_text(json.dumps([*rows, {"index": 9, "prediction": "a"}]))
    with pytest.raises(UserError, match="5 requests failed .*first: '0', '1', '2' and 2 more. Repeat them"):
        read_answers(tmp_path / "m_d.json", "vlmevalkit")
