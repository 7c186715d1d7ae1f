"""Anyone's own files: JSON lines and tables, what is clear, what is refused, and nothing lost."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pilot.data.prompts import CAPTION
from pilot.data.readers.own import Options, read
from pilot.data.rows import Place, RawBox, Rejected, Row, Skipped
from pilot.errors import UserError

from .pictures import write_lines

Items = list[Row | Rejected | Skipped]


def rows(path: Path, kind: str = "vqa", split: str = "train", **options: Any) -> Items:
    """What the reader yields for a file."""
    forms = {"box_form": "pixels_xyxy"} if kind == "ground" else {}
    return list(read(Options(**forms | {"file": path.name, "kind": kind} | options), path.parent, split))


def one(tmp_path: Path, kind: str, values: dict[str, Any]) -> Row | Rejected | Skipped:
    """The one row of a JSON lines file."""
    (found,) = rows(write_lines(tmp_path / "one.jsonl", [values]), kind)
    return found


def test_json_lines(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "own.jsonl",
        [
            {"image": "a/1.png", "question": "What colour?", "answer": "red", "type": "colour", "year": 1999},
            {"id": "q7", "image": "2.png", "question": "How many?", "answers": [2, "two", "two"], "split": "test"},
        ],
    )
    assert rows(path) == [
        Row(
            place=Place("own.jsonl", 1),
            id="1",
            image="a/1.png",
            instruction="What colour?\nAnswer the question using a single word or phrase.",
            answer="red",
            references=("red",),
            attributes={"type": "colour", "year": "1999"},
        ),
        Skipped(Place("own.jsonl", 2), "split test"),
    ]
    skipped, test = rows(path, split="test")
    assert skipped == Skipped(Place("own.jsonl", 1), "split train")
    assert isinstance(test, Row) and (test.id, test.answer, test.references) == ("q7", "two", ("2", "two", "two"))
    assert rows(path, test_split="val", split="test")[1] == Skipped(Place("own.jsonl", 2), "split test")


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_tables(tmp_path: Path, suffix: str) -> None:
    lines = ["image,question,answers,split,place", '1.png,"What, now?",yes|no|yes,train,"two\nlines"', "",
             "2.png,Where?,here,,", "3.png,Who?", "4.png,Why?,because,test,x"]  # fmt: skip
    text = "\ufeff" + "\r\n".join(lines)
    path = tmp_path / f"own.{suffix}"
    path.write_bytes(
        (text if suffix == "csv" else text.replace('"What, now?"', "What; now?").replace(",", "\t")).encode()
    )
    first, second, third, fourth = rows(path)
    assert isinstance(first, Row) and first.references == ("yes", "no", "yes") and first.answer == "yes"
    assert first.attributes == {"place": "two\nlines"} and first.instruction.startswith("What")
    assert isinstance(second, Row) and second.attributes == {} and second.id == "5"
    assert third == Rejected(Place(path.name, 6), "line", "expected 5 fields, got 2")
    assert fourth == Skipped(Place(path.name, 7), "split test")


def test_captions_and_boxes(tmp_path: Path) -> None:
    caption = one(tmp_path, "caption", {"image": "1.png", "captions": ["A dog.", "Dog."]})
    assert isinstance(caption, Row) and caption.instruction == CAPTION
    assert (caption.answer, caption.references) == ("A dog.", ("A dog.", "Dog."))
    short = one(tmp_path, "caption", {"image": "1.png", "caption": "A dog.", "instruction": "Describe it."})
    assert isinstance(short, Row) and (short.instruction, short.references) == ("Describe it.", ("A dog.",))
    for box in ([1, 2, 3.5, 4], "1, 2, 3.5, 4", "[1 2 3.5 4]", ["1", "2", "3.5", "4"]):
        ground = one(tmp_path, "ground", {"image": "1.png", "expression": "the dog.", "box": box})
        assert isinstance(ground, Row) and ground.box == RawBox((1.0, 2.0, 3.5, 4.0), "pixels_xyxy")
        assert ground.instruction.endswith("this sentence describes: the dog.") and ground.references == ()


@pytest.mark.parametrize(
    ("kind", "change", "field", "why"),
    [
        ("vqa", {"image": None}, "image", "missing"),
        ("vqa", {"image": ["a"]}, "image", "got a list of 1"),
        ("vqa", {"question": ""}, "question", "missing"),
        ("vqa", {"instruction": "Look."}, "instruction", "got both"),
        ("vqa", {"answer": None}, "answer", "missing"),
        ("vqa", {"answer": True}, "answer", "got True"),
        ("vqa", {"answers": []}, "answers", "list of texts"),
        ("vqa", {"answers": ["a", None]}, "answers", "got null"),
        ("vqa", {"answers": ["a", " "]}, "answers", "without empty"),
        ("vqa", {"answers": {"a": 1}}, "answers", "list of texts"),
        ("vqa", {"split": 7.5}, None, "split 7.5"),
        ("vqa", {"answer": float("nan")}, "answer", "missing"),
        ("vqa", {"answer": float("inf")}, "answer", "missing"),
        ("vqa", {"answers": ["a", float("nan")]}, "answers", "got null"),
        ("vqa", {"question": float("nan")}, "question", "missing"),
        ("vqa", {"image": float("-inf")}, "image", "missing"),
        ("vqa", {"answers": "[no, none]"}, "answers", 'expected a list, such as ["red", "blue"], got \'[no, none]\''),
        ("vqa", {"answers": "['no' 'none']"}, "answers", "expected a list, such as"),
        ("vqa", {"answers": "['no', nan]"}, "answers", "expected a list, such as"),
        ("vqa", {"answer": "['no', 'none']"}, "answer", "expected one text, got a list; name the column answers"),
        ("vqa", {"answer": "('no', 'none')"}, "answer", "expected one text, got a list; name the column answers"),
        ("vqa", {"answer": ["no"]}, "answer", "name the column answers"),
        ("vqa", {"split": []}, "split", "got a list of 0"),
        ("vqa", {"id": {}}, "id", "got an object"),
        ("caption", {"caption": '["a dog"]'}, "caption", "name the column captions"),
        ("ground", {"instruction": "x", "box": [1, 2, 3, float("nan")]}, "box", "four numbers"),
        ("caption", {}, "caption", "missing"),
        ("ground", {"expression": "x"}, "instruction", "got both"),
        ("ground", {"instruction": "x"}, "box", "four numbers"),
        ("ground", {"instruction": "x", "box": [1, 2, 3]}, "box", "four numbers"),
        ("ground", {"instruction": "x", "box": "1, 2, 3, wide"}, "box", "four numbers"),
        ("ground", {"instruction": "x", "box": [True, 2, 3, 4]}, "box", "four numbers"),
        ("ground", {"instruction": "x", "box": [[1], 2, 3, 4]}, "box", "four numbers"),
    ],
)
def test_refusals(tmp_path: Path, kind: str, change: dict[str, Any], field: str | None, why: str) -> None:
    base = {"image": "1.png", "question": "What?", "answer": "red"}
    if change == {"expression": "x"}:
        base["instruction"] = "y"
    if "answers" in change:
        del base["answer"]
    found = one(tmp_path, kind, base | change)
    if field is None:
        assert found == Skipped(Place("one.jsonl", 1), why)
        return
    assert isinstance(found, Rejected) and found.field == field and why in found.reason


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for name, content, why in (
        ("own.xlsx", b"", "expected a .jsonl, .json, .csv or .tsv file"),
        ("own.json", b'{"image": "1.png"}', "expected a list of rows or one row per line, got an object"),
        ("own.jsonl", b"\xff\xfea", "not a text"),
        ("own.csv", b"picture,question,answer\n", "line 1: expected a column image for kind vqa, found: picture"),
        ("own.tsv", b"image\tanswer\n", "expected a column question or instruction"),
        ("own.csv", b"image,question,answer,answer\n", "'answer' occurs more than once"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=why):
            rows(tmp_path / name)
    with pytest.raises(UserError, match=r"none\.csv: cannot be read"):
        rows(tmp_path / "none.csv")
    with pytest.raises(ValidationError, match="box_form is needed for grounding"):
        Options(file="a.csv", kind="ground")


def test_bad_lines_are_named(tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    sound = json.dumps({"image": "1.png", "question": "What?", "answer": "red"}).encode()
    path.write_bytes(
        b"\n".join([sound, b"{", b"\xff\xfe", b"[1]", b"[" * 20_000, b'{"a": ' + b"9" * 5000 + b"}", sound])
    )
    found = rows(path)
    assert [type(item).__name__ for item in found] == ["Row", *["Rejected"] * 5, "Row"]
    assert [item.place.row for item in found] == [1, 2, 3, 4, 5, 6, 7]
    table = tmp_path / "own.csv"
    table.write_bytes(
        b"image,question,answer\n1.png,What?,r\xffd\n" + b"2.png,Who?," + b"x" * 200_000 + b"\n3.png,Why?,so\n"
    )
    found = rows(table)
    assert isinstance(found[0], Row) and found[0].answer == "r\udcffd"  # the intake refuses what is not Unicode
    too_long = "not readable as a table (field larger than field limit (131072))"
    assert found[1] == Rejected(Place("own.csv", 3), "line", too_long)
    assert isinstance(found[-1], Row) and found[-1].answer == "so"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (['a.png,"What?,red', "b.png,Why?,blue", 'c.png,"Who?",green'], "lines 2 to 4: not readable as a table"),
        (['a.png,"What?,red', "b.png,Why?,blue", 'c.png,Who?"'], "lines 2 to 4: a quoted text looks like"),
        (['a.png,What?,"red', "b.png,Why?,blue", 'c.png,Why?,5"'], "lines 2 to 4: a quoted text looks like"),
        (['a.png,What?,"red', "b.png,Why?,blue"], "lines 2 to 3: not readable as a table (unexpected end of data)"),
        (['a.png,What?,"""Red \n', *["b.png,Why?,blue"] * 300, 'c.png,Who?,"""A'], "lines 2 to 304: not readable as"),
    ],
)
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_a_quote_that_is_not_closed_costs_its_own_line(
    tmp_path: Path, lines: list[str], said: str, ending: str
) -> None:
    table = tmp_path / "own.csv"
    lines = [line for given in ["image,question,answer", *lines] for line in given.split("\n")]
    table.write_bytes(ending.join(lines).encode())
    bad, *others = rows(table)
    assert isinstance(bad, Rejected) and bad.place == Place("own.csv", 2) and said in bad.reason
    whole = [number for number, line in enumerate(lines, 1) if "Why?" in line or '"Who?"' in line]
    assert [row.place.row for row in others if isinstance(row, Row)] == whole
    assert {item.place.row for item in [bad, *others]} == {n for n, line in enumerate(lines, 1) if n > 1 and line}


@pytest.mark.parametrize("kind", ["caption", "vqa"])
def test_texts_of_several_lines_may_have_commas(tmp_path: Path, kind: str) -> None:
    """As any program writes them: with two columns, one comma made a line of text a row of its own."""
    text = 'A dog, brown.\nIt is big, brown and old.\nIt says "Woof", and sits, lies, stands.'
    asked = ["What?"] if kind == "vqa" else []
    table = tmp_path / "own.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "question", "answer"] if asked else ["image", "caption"])
        writer.writerows([f"{n}.png", *asked, text if n % 40 == 0 else "A cat, grey."] for n in range(200))
    found = [item for item in rows(table, kind) if isinstance(item, Row)]
    assert [item.answer for item in found] == [text if n % 40 == 0 else "A cat, grey." for n in range(200)]
    assert len(rows(table, kind)) == 200


def test_lists_that_are_written_as_text(tmp_path: Path) -> None:
    table = tmp_path / "own.csv"
    answers = ['"[""no"", ""none""]"', "\"['no', 'none']\"", "no|none", '"[""no""]"', "[0.5]"]
    table.write_text("image,question,answers\n" + "".join(f"a.png,What?,{each}\n" for each in answers))
    assert [item.references for item in rows(table) if isinstance(item, Row)] == [("no", "none")] * 3 + [
        ("no",),
        ("0.5",),
    ]
    answers = [
        "\"('no', 'none')\"",
        "\"{'no', 'none'}\"",
        '"(""no"",)"',
        "(left)",
        "(no)",
        '"(1, 2)"',
        '"{""a"": ""b""}"',
    ]
    table.write_text("image,question,answers\n" + "".join(f"a.png,What?,{each}\n" for each in answers))
    assert [item.references for item in rows(table) if isinstance(item, Row)] == [
        *[("no", "none")] * 2, ("no",), ("(left)",), ("(no)",), ("(1, 2)",), ('{"a": "b"}',)
    ]  # fmt: skip
    table.write_text('image,caption\na.png,[unreadable]\na.png,"[0.1, 0.2]"\n')
    assert [item.answer for item in rows(table, "caption") if isinstance(item, Row)] == ["[unreadable]", "[0.1, 0.2]"]


def test_nested_columns_are_left_out(tmp_path: Path) -> None:
    values = {"image": "1.png", "question": "What?", "answer": "red", "tags": [], "meta": {"a": 1}, "room": "hall"}
    found = one(tmp_path, "vqa", values | {"gone": float("nan")})
    assert isinstance(found, Row) and found.left_out == ("tags", "meta")
    assert found.attributes == {"room": "hall", "gone": "null"}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("name", ["own.jsonl", "own.json", "list.json", "list.jsonl", "own.csv"])
def test_every_file_is_read_the_same_way(tmp_path: Path, name: str, encoding: str) -> None:
    values = [{"image": f"{n}.png", "question": "Où?", "answer": "là"} for n in range(3)]
    text = "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in values)
    if name.startswith("list"):
        text = json.dumps(values, indent=1, ensure_ascii=False)
    if name == "own.csv":
        text = "image,question,answer\n" + "".join(f"{n}.png,Où?,là\n" for n in range(3))
    (tmp_path / name).write_bytes(text.encode(encoding))
    found = rows(tmp_path / name)
    assert [(item.image, item.answer) for item in found if isinstance(item, Row)] == [
        (f"{n}.png", "là") for n in range(3)
    ]


def test_a_text_may_have_line_breaks(tmp_path: Path) -> None:
    table = tmp_path / "own.csv"
    table.write_text('image,question,answer\na.png,"What, then,\nis it?",red\n')
    (found,) = rows(table)
    assert isinstance(found, Row) and found.instruction.startswith("What, then,\nis it?")


values = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.lists(st.text(max_size=3))
names = st.sampled_from(["image", "question", "instruction", "expression", "answer", "answers", "caption", "captions",
                         "box", "split", "id", "other"])  # fmt: skip
kinds = st.sampled_from(["vqa", "caption", "ground"])


@given(st.lists(st.dictionaries(names, values, max_size=6), max_size=6), kinds)
def test_every_line_is_a_row_or_named(
    tmp_path_factory: pytest.TempPathFactory, content: list[dict[str, Any]], kind: str
) -> None:
    path = write_lines(tmp_path_factory.getbasetemp() / "fuzz.jsonl", content)
    found = rows(path, kind)
    assert [item.place.row for item in found] == list(range(1, len(content) + 1))


@given(st.binary(max_size=80), kinds, st.sampled_from(["jsonl", "csv", "tsv"]), st.booleans())
def test_any_bytes_yield_rows_or_one_message(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, kind: str, suffix: str, headed: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / f"fuzz.{suffix}"
    header = ",".join(["image", "question", "expression", "answer", "caption", "box"])
    path.write_bytes((header.replace(",", "\t" if suffix == "tsv" else ",") + "\n").encode() * headed + content)
    try:
        found = rows(path, kind)
    except UserError as error:
        assert path.name in str(error)
    else:
        assert all(isinstance(item, Row | Rejected | Skipped) for item in found)
