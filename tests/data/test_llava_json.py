"""LLaVA's instruction files: rows as in llava_v1_5_mix665k.json, every other row named or counted."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot.data.readers.llava_json import Options, form_of, read
from pilot.data.rows import Place, RawBox, RawTurn, Rejected, Row, Skipped
from pilot.errors import UserError

SHORT = "Answer the question using a single word or phrase."
LETTER = "Answer with the option's letter from the given choices directly."
GROUND = "Please provide the bounding box coordinate of the region this sentence describes:"
REGION = "Please provide a short description for this region:"


def talk(*texts: str) -> list[dict[str, str]]:
    """A conversation."""
    return [{"from": ("human", "gpt")[number % 2], "value": text} for number, text in enumerate(texts)]


MIX: list[dict[str, Any]] = [
    {"id": "2327515", "image": "gqa/images/2327515.jpg", "conversations": talk(
        f"<image>\nAre there hats?\n{SHORT}", "Yes", "Does the man wear shorts?", "No")},
    {"id": "140031996X", "image": "ocr_vqa/images/140031996X.jpg", "conversations": talk(
        f"<image>\nWho wrote this book?\n{SHORT}", "H. Jackson Brown")},
    {"id": "B", "image": "coco/train2017/000000000009.jpg", "conversations": talk(
        f"What is it?\nA. bowl\nB. cup\n{LETTER}\n<image>", "A")},
    {"id": "c", "image": "textvqa/train_images/c.jpg", "conversations": talk(
        "<image>\nProvide a one-sentence caption for the provided image.\nReference OCR token: STOP", "A stop sign.")},
    {"id": "r", "image": "coco/train2017/000000000010.jpg", "conversations": talk(
        f"<image>\n{GROUND} white shirt.", "[0.12, 0.34, 0.5, 1.0]", f"{GROUND} the left man", "[0.0, 0.1, 0.2, 0.3]")},
    {"id": "v", "image": "vg/VG_100K/7.jpg", "conversations": talk(
        f"<image>\n{REGION} [0.04, 0.57, 0.63, 0.71].", "a wall", f"{GROUND} a door", "[0.1, 0.2, 0.3, 0.4]",
        "[0.2, 0.2, 0.3, 0.4]", "a tap")},
    {"id": "i", "image": "coco/train2017/000000000011.jpg", "conversations": talk(
        "<image>\nWhat are the colours of the bus?", "White and red.", "Is it moving?", "Nobody can tell.")},
    {"id": "text", "conversations": talk("Hello", "Hi")},
]  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with mix.json."""
    (tmp_path / "mix.json").write_text(json.dumps(MIX), encoding="utf-8")
    return tmp_path


def rows(root: Path, split: str = "train", **options: Any) -> list[Row | Rejected | Skipped]:
    """What the reader yields."""
    return list(read(Options(**{"file": "mix.json", "kind": "vqa"} | options), root, split))


def good(root: Path, **options: Any) -> list[Row]:
    """The rows alone."""
    return [item for item in rows(root, **options) if isinstance(item, Row)]


def test_short_answers(root: Path) -> None:
    first, second, third = good(root)
    assert first == Row(
        place=Place("mix.json", 0),
        id="2327515-0-0",
        image="gqa/images/2327515.jpg",
        instruction=f"Are there hats?\n{SHORT}",
        answer="Yes",
        references=("Yes",),
        attributes={"data": "gqa", "form": "short_answer"},
    )
    assert (second.id, second.instruction, second.answer) == (
        "2327515-0-1", f"Does the man wear shorts?\n{SHORT}", "No"
    )  # fmt: skip
    assert (third.id, third.answer) == ("140031996X-1-0", "H. Jackson Brown")


def test_every_other_row_is_counted(root: Path) -> None:
    reasons = [item.reason for item in rows(root) if isinstance(item, Skipped)]
    letter, open_ = (
        f"form {form} (--form {form} takes it, in a scenario forms: [{form}])" for form in ("multiple_choice", "open")
    )
    box = "form box (of a task of kind ground)"
    assert reasons == [letter, "form caption (of a task of kind caption)", box, box, "form region", box,
                       "form region", open_, open_, "no image"]  # fmt: skip
    assert len(rows(root)) == 13  # one for each of 12 questions about images, one for the conversation without


def test_selection(root: Path) -> None:
    assert [row.answer for row in good(root, prefixes=("gqa/", "vg/"))] == ["Yes", "No"]
    assert "another image folder" in {
        item.reason for item in rows(root, prefixes=("gqa/",)) if isinstance(item, Skipped)
    }
    letters = good(root, forms=("multiple_choice",))
    assert [(row.instruction, row.answer) for row in letters] == [(f"What is it?\nA. bowl\nB. cup\n{LETTER}", "A")]
    assert [row.answer for row in good(root, forms=("open",))] == ["White and red.", "Nobody can tell."]
    (caption,) = good(root, kind="caption")
    assert caption.instruction.endswith("provided image.\nReference OCR token: STOP")
    assert caption.references == ("A stop sign.",)


def test_boxes_are_in_the_padded_square(root: Path) -> None:
    first, second, third = good(root, kind="ground")
    assert first.instruction == f"{GROUND} white shirt." and first.answer == "" and first.references == ()
    assert first.box == RawBox((0.12, 0.34, 0.5, 1.0), "padded_square_xyxy")
    assert second.box == RawBox((0.0, 0.1, 0.2, 0.3), "padded_square_xyxy")
    assert third.instruction == f"{GROUND} a door"


def test_kept_conversations(root: Path) -> None:
    first, second = good(root, turns="keep")
    assert first.earlier == (RawTurn(f"Are there hats?\n{SHORT}", "Yes"),)
    assert first.instruction == "Does the man wear shorts?"  # as it is: the line stands in the first question only
    assert (first.id, first.answer, second.id, second.earlier) == ("2327515-0", "No", "140031996X-1", ())


def test_kept_conversations_about_boxes(root: Path) -> None:
    """All answers are boxes in the padded square; a conversation that also describes regions is left out."""
    (row,) = good(root, kind="ground", turns="keep")
    assert row.earlier == (
        RawTurn(
            f"{GROUND} white shirt.", "[0.12, 0.34, 0.5, 1.0]", RawBox((0.12, 0.34, 0.5, 1.0), "padded_square_xyxy")
        ),
    )
    assert (row.instruction, row.box) == (f"{GROUND} the left man", RawBox((0.0, 0.1, 0.2, 0.3), "padded_square_xyxy"))


def test_edges_of_kept_texts_are_those_of_the_official_code(root: Path) -> None:
    """A text that holds the image token loses its edge spaces, others keep them."""
    kept = talk(f" <image>\n Is it? \n{SHORT} ", "Yes ", " And this? ", "No")
    (root / "edges.json").write_text(json.dumps([{"id": "e", "image": "a/b.jpg", "conversations": kept}]))
    (row,) = good(root, file="edges.json", turns="keep")
    assert row.earlier == (RawTurn(f"Is it? \n{SHORT}", "Yes "),) and row.instruction == " And this? "
    first, second = good(root, file="edges.json")
    assert (first.answer, second.instruction) == ("Yes", f"And this?\n{SHORT}")


@pytest.mark.parametrize("texts", [("<image>\nA?", "", "B?", "b"), ("<image>\nA?", "a", "B?", "")])
def test_conversations_without_an_answer_teach_nothing(root: Path, texts: tuple[str, ...]) -> None:
    (root / "e.json").write_text(json.dumps([{"id": "e", "image": "a/b.jpg", "conversations": talk(*texts)}]))
    options: dict[str, Any] = {"file": "e.json", "forms": ("open",)}
    assert rows(root, turns="keep", **options) == [Skipped(Place("e.json", 0), "no answer")]
    assert [row.answer for row in good(root, **options)] == ["b" if texts[1] == "" else "a"]


def test_test_file_and_lines(root: Path) -> None:
    with pytest.raises(UserError, match="mix.json: no test rows. Set the option test_file, or held_out"):
        rows(root, split="test")
    (root / "test.jsonl").write_text(json.dumps(MIX[1]) + "\n\nnot json\n" + json.dumps(MIX[7]))
    found = rows(root, split="test", test_file="test.jsonl")
    assert [type(item).__name__ for item in found] == ["Row", "Rejected", "Skipped"]
    assert [item.place.row for item in found] == [1, 3, 4]
    reason = "not valid JSON (column 1: Expecting value)"
    assert found[1] == Rejected(Place("test.jsonl", 3), "line", reason)


@pytest.mark.parametrize(
    ("change", "field", "why"),
    [
        ({"image": 7}, "image", "one path"),
        ({"image": ["a.jpg", "b.jpg"]}, "image", "one path"),
        ({"conversations": None}, "conversations", "pairs"),
        ({"conversations": []}, "conversations", "pairs"),
        ({"conversations": talk("What?")}, "conversations", "pairs"),
        ({"conversations": talk("What?", "This")[::-1]}, "conversations", "turn 0: expected from 'human'"),
        ({"conversations": [{"from": "human", "value": 3}, {}]}, "conversations", "turn 0"),
        ({"conversations": talk(f"{GROUND} a", "top left")}, "conversations", "expected a box"),
        ({"conversations": talk(f"{GROUND} a", "[1, 2, 3]")}, "conversations", "expected a box"),
    ],
)
def test_malformed_rows_are_named(root: Path, change: dict[str, Any], field: str, why: str) -> None:
    (root / "bad.json").write_text(json.dumps([MIX[4] | change, "text", MIX[4]]))
    found = rows(root, file="bad.json", kind="ground")
    assert isinstance(found[0], Rejected) and found[0].place == Place("bad.json", 0)
    assert found[0].field == field and why in found[0].reason
    assert found[1] == Rejected(Place("bad.json", 1), "row", "expected an object with id, image and conversations")
    assert [type(item) for item in found[2:]] == [Row, Row]


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"", "not valid JSON .*the file is empty"), (b"{}", "expected a list of rows or one row per line, got an object"),
     (b"[" * 100_000, "nested too deeply"), (b"[\xff]", "not a text"), (b"[" + b"9" * 5000 + b"]", "not valid JSON"),
     (b'[{"a": 1},\n]', "line 2, column 1: Expecting value; there is a comma before the closing bracket"),
     (b"[{'a': 1}]", "line 1, column 3: .*looks like Python"), (b"<html>", "this looks like a web page"),
     (b'[{"a": 1', "line 1, column 9: .*was it cut off"), (b'[1] [2]', "line 1, column 5: .*more than one value"),
     (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer")],
)  # fmt: skip
def test_whole_files_that_cannot_be_read(root: Path, content: bytes, why: str) -> None:
    (root / "bad.json").write_bytes(content)
    with pytest.raises(UserError, match=rf"bad\.json: .*{why}"):
        rows(root, file="bad.json")
    with pytest.raises(UserError, match=r"none\.json: cannot be read \(No such file"):
        rows(root, file="none.json")


def test_forms() -> None:
    assert form_of("Provide a brief caption of this picture.") == "caption"
    assert form_of("[0.1, 0.2, 0.3, 0.4]") == "region"
    assert form_of("Is [0.1, 0.2] a box?") == "open"


values = st.recursive(
    st.none()
    | st.booleans()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["human", "gpt", "a.jpg", SHORT, GROUND]),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.sampled_from(["id", "image", "conversations", "from", "value", "x"]), inner, max_size=5),
    max_leaves=12,
)  # fmt: skip
elements = values | st.fixed_dictionaries(
    {"image": st.just("a.jpg") | values, "conversations": st.lists(
        st.fixed_dictionaries({"from": st.sampled_from(["human", "gpt"]), "value": st.text(max_size=9) | values}))}
)  # fmt: skip
kinds = st.sampled_from(["vqa", "caption", "ground"])


@given(st.lists(elements, max_size=5), kinds, st.sampled_from(["split", "keep"]))
def test_any_json_yields_something_for_every_element(
    tmp_path_factory: pytest.TempPathFactory, content: list[Any], kind: str, turns: str
) -> None:
    root = tmp_path_factory.getbasetemp()
    (root / "fuzz.json").write_text(json.dumps(content), encoding="utf-8")
    found = rows(root, file="fuzz.json", kind=kind, turns=turns)
    assert {item.place.row for item in found} == set(range(len(content)))


@given(st.binary(max_size=60), kinds)
def test_any_bytes_yield_rows_or_one_message(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, kind: str
) -> None:
    root = tmp_path_factory.getbasetemp()
    for name in ("fuzz.json", "fuzz.jsonl"):
        (root / name).write_bytes(content)
        try:
            found = rows(root, file=name, kind=kind)
        except UserError as error:
            assert name in str(error)
        else:
            assert all(isinstance(item, Row | Rejected | Skipped) for item in found)
