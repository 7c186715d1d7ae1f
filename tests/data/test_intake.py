"""The intake: choice, replacement, quarantine, duplicates, and where every row went."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pilot.config.base import Model
from pilot.data.intake import filling
from pilot.data.intake.filling import IntakeResult, SplitCounts
from pilot.data.intake.intake import digest_source_files, make_records
from pilot.data.intake.request import Request
from pilot.data.intake.survey import hold_out, survey, trial_order
from pilot.data.quarantine import Quarantine
from pilot.data.readers.file_source import FileSource
from pilot.data.rows import Place, RawBox, RawTurn, Rejected, Row, Rows, Skipped
from pilot.errors import UserError
from pilot.io.atomic import read_jsonl
from pilot.io.digest import sha256_bytes
from pilot.io.spool import Spool

from .pictures import encoded, pixels, png, write_pictures

Item = Row | Rejected | Skipped


class Options(Model):
    """Options of the made-up source."""

    images: str = "images"
    flavour: str = "plain"


def row(number: int, image: str | bytes | None = None, **values: Any) -> Row:
    """A question about its own picture."""
    place = Place("rows", number)
    fields = {"instruction": f"What is {number}?", "answer": "red", "references": ("red",)} | values
    return Row(place=place, id=str(number), image=f"{number}.png" if image is None else image, **fields)


def request(root: Path, train: Sequence[Item], test: Sequence[Item] = (), **values: Any) -> Request:
    """A request for a source that yields these rows."""
    rows = {"train": train, "test": test}
    source = FileSource(lambda options, folder, split: iter(rows[split]), Options, None, "made up", "none")
    fields = {"kind": "vqa", "num_train": 4, "num_test": 2, "seed": 0, "max_quarantine": 0.5} | values
    return Request(where="here", name="made", source=source, root=root, options=fields.pop("options", {}), **fields)


def taken(asked: Request) -> tuple[IntakeResult, Quarantine]:
    """What is taken, every row of every split accounted for."""
    quarantine = Quarantine()
    with Spool(asked.root) as kept:
        found = make_records(asked, quarantine, lambda done, total: None, kept)
        assert {record.image_sha256 for record in found.records} <= kept.keys()
    for split, account in found.accounts.items():
        check_sum(account)
        assert account.num_taken == sum(record.split == split for record in found.records)
    return found, quarantine


def check_sum(account: SplitCounts) -> None:
    """Every row that was read is in exactly one count."""
    counts = (account.num_rejected, account.num_unusable, account.num_duplicates, account.num_not_chosen)
    assert account.num_read == account.num_skipped.total() + sum(counts) + account.num_taken


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures 0.png to 29.png."""
    folder = tmp_path_factory.mktemp("root")
    write_pictures(folder / "images", [f"{number}.png" for number in range(30)])
    return folder


def test_choice_depends_on_the_seed_alone(root: Path) -> None:
    train, test = [row(n) for n in range(12)], [row(n) for n in range(20, 26)]
    first, _ = taken(request(root, train, test))
    again, _ = taken(request(root, train, test))
    other, _ = taken(request(root, train, test, seed=1))
    assert first.records == again.records != other.records
    assert [r.split for r in first.records] == ["train"] * 4 + ["test"] * 2
    ids = [r.id for r in first.records]
    assert all(name.startswith("made-train-") for name in ids[:4]) and ids[4].startswith("made-test-2")
    assert [int(name.split("-")[2]) for name in ids[:4]] == sorted(int(name.split("-")[2]) for name in ids[:4])
    record = first.records[0]
    assert record.image_sha256 == sha256_bytes(png(int(record.id.split("-")[2]))) and record.references == ("red",)
    assert first.accounts["train"].num_not_chosen == 8


def test_every_image_once_before_any_twice(root: Path) -> None:
    rows = [replace(row(n), image=f"{n % 4}.png") for n in range(12)]
    rows[3] = replace(rows[3], image="./3.png")  # the same image in other words
    found, _ = taken(request(root, rows, [row(20), row(21)]))
    assert len({record.image_sha256 for record in found.records[:4]}) == 4
    assert trial_order({0: "a", 1: "a", 2: "a", 3: "b"}, np.random.default_rng(0))[:2] != [0, 1]


def test_images_of_other_rows_are_not_opened(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str | bytes] = []
    load = filling.load

    def watched(folder: Path, image: str | bytes) -> object:
        opened.append(image)
        return load(folder, image)

    monkeypatch.setattr(filling, "load", watched)
    found, _ = taken(request(root, [row(n) for n in range(12)], [row(20), row(21)]))
    assert len(opened) == len(found.records) == 6


def test_a_bad_image_is_replaced_by_the_next_row(root: Path) -> None:
    rows, test = [row(n) for n in range(12)], [row(20), row(21)]
    whole, _ = taken(request(root, rows, test))
    lost = int(whole.records[0].id.split("-")[2])
    rows[lost] = replace(rows[lost], image="gone.png")
    found, quarantine = taken(request(root, rows, test))
    kept = {record.id for record in found.records}
    assert {record.id for record in whole.records} - kept == {f"made-train-{lost}"} and len(found.records) == 6
    assert quarantine.reasons() == [("image: no such file below the image folder", 1)]
    assert found.accounts["train"].num_unusable == 1


def test_bytes_and_references_give_the_same_records(root: Path) -> None:
    train, test = [row(n) for n in range(12)], [row(n) for n in range(20, 26)]
    held = [replace(each, image=png(int(each.id))) for each in train]
    found, _ = taken(request(root, held, test, num_train=12))
    same, _ = taken(request(root, train, test, num_train=12))
    assert found.records == same.records


def test_spare_rows_are_read_again_where_they_do_not_suffice(root: Path) -> None:
    rows = [row(n, f"gone{n}.png") for n in range(100, 160)] + [row(n) for n in range(4)]
    found, quarantine = taken(request(root, rows, [row(20), row(21)], max_quarantine=1.0))
    assert {record.id for record in found.records[:4]} == {f"made-train-{n}" for n in range(4)}
    assert len(quarantine) == found.accounts["train"].num_unusable > filling.SPARE


def test_too_few_rows(root: Path) -> None:
    rows = [row(0), row(1), row(2, "gone.png"), Skipped(Place("rows", 9), "no image")]
    message = (
        r"here: num_train is 4, but the source has 2 usable rows for split train \(of 4 read: 1 unusable, 0 with an "
        r"image of the test split; 1 rows: no image\)\. Lower it, or set"
    )
    with pytest.raises(UserError, match=message):
        taken(request(root, rows, [row(20), row(21)]))
    with pytest.raises(UserError, match="rows were expected, but the source has 0 usable rows for split test"):
        taken(request(root, rows, num_train=None, num_test=None))


def test_quarantine_stops(root: Path, tmp_path: Path) -> None:
    bad = [Rejected(Place("rows", n), "answer", f"expected text, got {n}") for n in range(40, 43)]
    rows: list[Item] = [*(row(n) for n in range(12)), *bad]
    quarantine = Quarantine()
    message = (
        r"here: 3 of 16 rows of rows cannot be used \(18\.8%; max_quarantine allows 10\.0%\)\. Most frequent reasons: "
        r"answer: expected text, got \.\.\. \(3\)\. First: rows, row 40.*max_quarantine \(here at least 0\.188\)"
    )
    with pytest.raises(UserError, match=message):
        asked = request(root, rows, [row(20)], num_test=1, max_quarantine=0.1)
        make_records(asked, quarantine, lambda *_: None, Spool(tmp_path))
    quarantine.write(tmp_path / "quarantine.jsonl")
    assert read_jsonl(tmp_path / "quarantine.jsonl")[0] == {
        "file": "rows", "row": 40, "field": "answer", "reason": "expected text, got 40"
    }  # fmt: skip
    taken(request(root, rows, [row(20)], num_test=1, max_quarantine=0.188))
    images = [row(n, "../secret.png") for n in range(4)] + [row(n) for n in range(4, 12)]
    with pytest.raises(UserError, match=r"1 of \d+ rows that were opened for split train.*the reference contains"):
        taken(request(root, images, [row(20)], num_train=12, num_test=1, max_quarantine=0.01))


def test_exact_duplicates_leave_training_and_near_ones_are_reported(root: Path) -> None:
    twin = encoded(Image.fromarray(pixels(20)), "JPEG", quality=60)
    train = [row(0), row(1, png(20)), row(2, twin), row(3, encoded(Image.new("RGB", (9, 9), "red")))]
    found, quarantine = taken(request(root, train, [row(20), row(21)], num_train=3))
    assert {record.id for record in found.records[:3]} == {f"made-train-{n}" for n in (0, 2, 3)}
    assert found.accounts["train"].num_duplicates == 1 and len(quarantine) == 0
    near = found.to_json(quarantine)["near_duplicates"]
    assert (near["num_test_images"], near["num_train_images"], near["num_plain_images"]) == (1, 1, 1)
    assert near["examples"][0]["train"] == found.records[1].image_sha256


def test_held_out_is_by_image(root: Path) -> None:
    rows = [row(n, f"{n % 20}.png") for n in range(60)]
    found, _ = taken(request(root, rows, options={"held_out": 0.3}, num_train=None, num_test=None))
    splits = {name: {r.image_sha256 for r in found.records if r.split == name} for name in ("train", "test")}
    assert not splits["train"] & splits["test"] and len(splits["train"]) + len(splits["test"]) == 20
    assert len(splits["test"]) == 6  # 0.3 of 20 images
    assert len(found.records) == 60 and len({record.id for record in found.records}) == 60
    found, _ = taken(request(root, rows[::-1], options={"held_out": 0.3}, num_train=None, num_test=None))
    assert splits["test"] == {record.image_sha256 for record in found.records if record.split == "test"}


def test_held_out_leaves_images_on_both_sides(root: Path) -> None:
    for fraction in (0.01, 0.99):
        sides = hold_out(survey(iter([row(0), row(1)]), "vqa", Quarantine()), fraction, 0, "made")
        assert [len(side) for side in sides] == [1, 1]
    assert hold_out(survey(iter([row(0)]), "vqa", Quarantine()), 0.5, 0, "made") == ({0: "0.png"}, {})
    assert hold_out(survey(iter([]), "vqa", Quarantine()), 0.5, 0, "made") == ({}, {})


def test_options_are_checked(root: Path) -> None:
    for options, message in (
        ({"flavor": "x"}, "here, options: field flavor: unknown name 'flavor'. Did you mean 'flavour'?"),
        ({"held_out": 1.5}, "here, options: field held_out: expected a share above 0 and below 1, got 1.5"),
        ({"held_out": "half"}, "got 'half'"),
    ):
        with pytest.raises(UserError, match=message.replace("?", r"\?")):
            taken(request(root, [row(0)], options=options))


def test_boxes_are_converted_once(root: Path) -> None:
    def ground(number: int, values: tuple[float, float, float, float], image: str | bytes | None = None) -> Row:
        return replace(row(number, image), answer="", references=(), box=RawBox(values, "pixels_xyxy"))

    exif = Image.Exif()
    exif[0x0112] = 8
    turned = encoded(Image.fromarray(pixels(50)), exif=exif)
    train = [ground(0, (12, 8, 36, 24)), ground(1, (24, 16, 49, 33)), ground(2, (60, 40, 70, 50)),
             ground(3, (1, 1, 9, 9), turned), row(4, answer="", references=())]  # fmt: skip
    asked = request(root, train, [ground(20, (0, 0, 48, 32))], kind="ground", num_train=None, num_test=None)
    found, quarantine = taken(replace(asked, max_quarantine=1.0))
    first, second, last = found.records
    assert first.box == (0.25, 0.25, 0.75, 0.75) and first.answer == "[0.25, 0.25, 0.75, 0.75]"
    assert first.references == (first.answer,)
    assert second.box == (0.5, 0.5, 1.0, 1.0) and last.box == (0.0, 0.0, 1.0, 1.0)
    assert found.to_json(quarantine)["boxes"] == {"num_clipped": 1, "largest_clip": 0.0312}  # a pixel of 32
    assert [reason.split(":")[0] for reason, _ in quarantine.reasons()] == ["box", "box", "box"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"id": ""}, "id"),
        ({"id": "a\nb"}, "id"),
        ({"id": "x" * 201}, "id"),
        ({"image": ""}, "image"),
        ({"image": b""}, "image"),
        ({"instruction": " "}, "instruction"),
        ({"instruction": "<image> What?"}, "instruction"),
        ({"answer": ""}, "answer"),
        ({"answer": "\ud800"}, "answer"),
        ({"references": ()}, "references"),
        ({"references": ("a", "")}, "references"),
        ({"attributes": {"a": "\udfff"}}, "attributes"),
        ({"box": RawBox((0, 0, 1, 1), "fractions_xyxy")}, "box"),
        ({"id": "0"}, "id"),
    ],
)
def test_rows_that_cannot_become_records(root: Path, change: Mapping[str, Any], field: str) -> None:
    rows = [row(0), replace(row(1), **change), row(2)]
    found, quarantine = taken(request(root, rows, [row(20)], num_train=None, num_test=None))
    assert [record.id for record in found.records] == ["made-train-0", "made-train-2", "made-test-20"]
    assert [reason.split(":")[0] for reason, _ in quarantine.reasons()] == [field]


def test_ten_references_or_not(root: Path) -> None:
    ten = [replace(row(n), references=("red",) * 10) for n in range(4)]
    taken(request(root, ten, [replace(row(20), references=("red",) * 10)], num_test=1))
    with pytest.raises(UserError, match="questions have 10 answers and others 1 to 10: no single metric covers both"):
        taken(request(root, ten, [row(20)], num_test=1))


def test_files_that_change_between_the_readings(root: Path) -> None:
    asked = request(root, [], num_train=None, num_test=None)
    reads = {"train": iter([[row(0), row(1)], [row(0)]]), "test": iter([[row(20)], [row(20)]])}
    source = replace(asked.source, read=lambda options, folder, split: iter(next(reads[split])))
    with pytest.raises(UserError, match="here: the files changed while they were read"):
        taken(replace(asked, source=source))


items = st.one_of(
    st.builds(row, st.integers(0, 8), st.sampled_from(["0.png", "1.png", "gone.png", b"x", ""])),
    st.builds(lambda n: replace(row(n), answer=""), st.integers(0, 8)),
    st.builds(lambda n: Rejected(Place("rows", n), "answer", "bad"), st.integers(0, 8)),
    st.builds(lambda n: Skipped(Place("rows", n), "other"), st.integers(0, 8)),
)


@settings(max_examples=60)
@given(st.lists(items, max_size=12), st.lists(items, max_size=12), st.one_of(st.none(), st.integers(1, 3)))
def test_no_row_is_dropped_in_silence(root: Path, train: list[Item], test: list[Item], number: int | None) -> None:
    test = [replace(item, place=replace(item.place, file="test rows")) for item in test]
    asked = request(root, train, test, num_train=number, num_test=number, max_quarantine=1.0)
    try:
        found, quarantine = taken(asked)
    except UserError as error:
        none = "no rows. Name a file with at least one row" in str(error) and not (train and test)
        assert none or "usable rows for split" in str(error)
        return
    assert len({record.id for record in found.records}) == len(found.records)
    assert len(found.accounts) == 2 and found.to_json(quarantine)["rows"]["test"]["num_taken"] > 0


def test_digests_of_what_the_options_name(root: Path) -> None:
    class Files(Model):
        first: str = "images/0.png"
        several: tuple[str, ...] = ("images/1.png", "gone.png")
        kind: str = "vqa"
        number: int = 3

    digests = {name: sha256_bytes((root / name).read_bytes()) for name in ("images/0.png", "images/1.png")}
    assert digest_source_files(Files(), root) == digests


def test_records_hold_no_images(root: Path) -> None:
    """Neither of rows that name them nor of rows that hold them: memory has their digests alone."""
    for found in (
        taken(request(root, [row(n) for n in range(6)], [row(n) for n in range(20, 23)]))[0],
        taken(request(root, [row(n, png(n)) for n in range(6)], [row(n, png(n)) for n in range(20, 23)]))[0],
    ):
        assert {record.image for record in found.records} == {b""} and len(found.records) == 6
        assert all(record.known_sha256 for record in found.records)


class Streaming(Options):
    """Options of a source that streams from a network."""

    streaming: bool = True


@pytest.mark.parametrize("held_out", [None, 0.3])
def test_a_stream_is_read_once(root: Path, held_out: float | None) -> None:
    """Once for each split, or once if test rows are held out, also where bad rows are replaced; the same records."""
    turns = (RawTurn("Why?", "a box", RawBox((1, 2.5, 3, 4), "pixels_xyxy")),)
    bad = Row(
        place=Place("rows", "key"), id="bad", image=b"no image", instruction="What?", answer="a", references=("a",)
    )
    train: list[Item] = [
        bad,
        *(replace(row(n, png(n)), earlier=turns, attributes={"b": "1", "a": "2"}) for n in range(8)),
    ]
    train += [Rejected(Place("rows", 40), "answer", "expected text"), Skipped(Place("rows", 41), "another task")]
    test: list[Item] = [row(n, png(n)) for n in range(20, 24)]
    calls: list[str] = []

    def read(options: Options, folder: Path, split: str) -> Rows:
        calls.append(split)
        return iter({"train": train, "test": test}[split])

    asked = request(
        root, train, test, num_train=4, num_test=2, options={} if held_out is None else {"held_out": held_out}
    )
    expected = taken(asked)
    source = replace(asked.source, read=read, options_model=Streaming)
    found = taken(replace(asked, source=source))
    assert calls == (["test", "train"] if held_out is None else ["train"])
    assert found[0].records == expected[0].records and found[0].accounts == expected[0].accounts
    assert found[1].reasons() == expected[1].reasons()
