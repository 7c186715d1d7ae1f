"""Every row that is read is counted once: taken, in quarantine, or skipped with a reason."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilot.data.account import SourceCounts
from pilot.data.catalogue import READERS
from pilot.data.intake.intake import make_records
from pilot.data.intake.request import Request
from pilot.data.quarantine import Quarantine
from pilot.errors import UserError
from pilot.io.spool import Spool

from .pictures import write_lines, write_pictures


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures 0.png to 5.png, of which the last is damaged and the one before a copy of the first."""
    folder = tmp_path_factory.mktemp("account")
    write_pictures(folder, [f"{number}.png" for number in range(5)])
    (folder / "4.png").write_bytes((folder / "0.png").read_bytes())
    (folder / "5.png").write_bytes(b"\x89PNG")
    return folder


def total(root: Path, file: str, reader: str = "own", **values: Any) -> SourceCounts | None:
    """What became of a file's rows; None where a split has no usable row."""
    options = {"file": file, "images": "."} | values.pop("options", {})
    fields = {"kind": "vqa", "num_train": None, "num_test": None, "seed": 0, "max_quarantine": 1.0} | values
    quarantine = Quarantine()
    try:
        taken = make_records(
            Request(where="here", name="made", source=READERS[reader], root=root, options=options, **fields),
            quarantine,
            lambda done, total: None,
            Spool(root),
        )
    except UserError as error:
        assert "usable rows for split" in str(error)
        return None
    assert taken.total is not None and sum(taken.total.quarantined.values()) == len(quarantine)
    assert sum(taken.total.taken.values()) == len(taken.records)
    numbers = re.match(r"(\d+) rows read: (\d+) for training, (\d+) for testing, (\d+) in quarantine, (\d+) skipped\.",
                       str(taken.total))  # fmt: skip
    assert numbers is not None
    read, *parts = map(int, numbers.groups())
    assert read == sum(parts) == taken.total.num_read
    return taken.total


names = st.sampled_from([f"{number}.png" for number in range(7)])
answers = st.sampled_from(["red", "blue", "", float("nan"), ["red"], None])
splits = st.sampled_from(["train", "train", "test", "test", "val", "", 7, [1]])
lines = st.fixed_dictionaries(
    {"image": names, "question": st.just("What?"), "answer": answers},
    optional={"split": splits, "id": st.integers(0, 9), "meta": st.just({"a": 1})},
)
shares = st.sampled_from([None, 0.4])
numbers = st.sampled_from([None, 1, 2])


@settings(max_examples=25)
@given(st.lists(lines, min_size=4, max_size=12), shares, numbers)
def test_json_lines(root: Path, rows: list[dict[str, Any]], held_out: float | None, number: int | None) -> None:
    write_lines(root / "rows.jsonl", rows)
    options = {} if held_out is None else {"held_out": held_out}
    found = total(root, "rows.jsonl", options=options, num_train=number, num_test=number)
    assert found is None or found.num_read == len(rows)


fields = st.sampled_from(["0.png", "1.png", "6.png", '"""6.png', '"5.png'])
ends = st.sampled_from(["red,train", "red,test", "red,val", "red", ",train", '"red,test'])


@settings(max_examples=25)
@given(st.lists(st.tuples(fields, ends), min_size=4, max_size=10))
def test_tables_with_quotes_that_are_not_closed(root: Path, rows: list[tuple[str, str]]) -> None:
    written = ["3.png,What?,red,train", "1.png,What?,red,test", *(f"{start},What?,{end}" for start, end in rows)]
    (root / "rows.csv").write_text("\n".join(["image,question,answer,split", *written]))
    found = total(root, "rows.csv")
    assert found is None or found.num_read == len(written)


SHORT = "What?\nAnswer the question using a single word or phrase."
questions = st.sampled_from(["What?", SHORT, "Provide a brief caption.", "[0.1, 0.2, 0.3, 0.4]"])
turns = st.lists(questions, min_size=1, max_size=3)


@settings(max_examples=20)
@given(st.lists(st.tuples(names | st.none() | st.just(3), turns), min_size=2, max_size=8))
def test_conversations(root: Path, rows: list[tuple[Any, list[str]]]) -> None:
    def talk(questions: list[str]) -> list[dict[str, str]]:
        return [{"from": ("human", "gpt")[n % 2], "value": (q, "Red")[n % 2]} for q in questions for n in range(2)]

    write_lines(root / "talk.json", [{"image": image, "conversations": talk(asked)} for image, asked in rows])
    found = total(root, "talk.json", "llava-json", options={"held_out": 0.5})
    expected = sum(len(asked) if isinstance(image, str) else 1 for image, asked in rows)
    assert found is None or found.num_read == expected


def test_the_closing_line_names_every_reason(root: Path) -> None:
    sound = {"image": "0.png", "question": "What?", "answer": "red", "split": "train"}
    rows = [sound, sound | {"image": "1.png"}, sound | {"image": "2.png", "split": "test", "meta": [1]},
            sound | {"image": "2.png"}, sound | {"split": "val"}, sound | {"split": "val"}, sound | {"answer": ""},
            sound | {"image": "5.png"}, sound | {"image": "9.png"}]  # fmt: skip
    write_lines(root / "rows.jsonl", rows)
    found = total(root, "rows.jsonl")
    assert str(found) == (
        "9 rows read: 2 for training, 1 for testing, 3 in quarantine, 3 skipped. In quarantine: answer: is missing or "
        "empty (1); image: no such file below the image folder (1); image: not an image in a supported format (JPEG, "
        "PNG, GIF, WEBP, BMP, TIFF) (1). Skipped: split val (2); the picture is in the test split (1). No text or "
        "number, so no attribute: meta (1)."
    )
    found = total(root, "rows.jsonl", num_train=1, num_test=1)
    assert found is not None and found.skipped["more than num_train or num_test asks for"] >= 1
    assert json.dumps(found.to_json())


def test_a_row_of_both_splits_is_read_for_either(root: Path) -> None:
    asked = {"from": "human", "value": SHORT}
    rows = [{"image": f"{n}.png", "conversations": [asked, {"from": "gpt", "value": "Red"}]} for n in range(3)]
    write_lines(root / "talk.jsonl", rows)
    more = [*rows[:2], rows[2] | {"image": "3.png"}]
    write_lines(root / "more.jsonl", more)
    found = total(root, "more.jsonl", "llava-json", options={"test_file": "talk.jsonl"})
    assert found is not None and (found.num_read, dict(found.taken)) == (6, {"train": 1, "test": 3})
    found = total(root, "talk.jsonl", "llava-json", options={"test_file": "talk.jsonl"}, num_test=1)
    assert found is not None and found.num_read == 6


def test_a_sum_that_is_wrong_is_a_fault() -> None:
    with pytest.raises(AssertionError, match=r"3 rows read, \[2, 0, 0\] taken, quarantined, skipped"):
        SourceCounts(3, {"train": 1, "test": 1}, {}, {})
