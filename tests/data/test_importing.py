"""`pilot-bench data import` and sources that are read from files, from the command line to data folders."""

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from click.testing import Result
from typer.testing import CliRunner

from pilot.cli.main import app
from pilot.config.load import load_scenario
from pilot.config.scenario import Scenario, TaskConfig
from pilot.data.build import build_data
from pilot.data.record import read_records
from pilot.errors import UserError
from pilot.io.atomic import read_json, read_jsonl

from .pictures import png, write_lines, write_pictures


def quiet(task: str, done: int, total: int) -> None:
    """No progress shown."""


def call(*words: object) -> str:
    """Standard output of a command that succeeds."""
    return invoke(*words).stdout


def invoke(*words: object) -> Result:
    """A command that succeeds."""
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of 20 pictures with questions.jsonl, captions.csv and boxes.tsv; one row of 21 is wrong in each."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PILOT_DATASETS", raising=False)
    write_pictures(tmp_path / "pictures", [f"{number}.png" for number in range(20)])
    (tmp_path / "pictures/wide.png").write_bytes(png(99, 300, 20))
    images = [f"{number}.png" for number in range(20)] + ["wide.png"]
    rows: list[dict[str, Any]] = [
        {"id": f"q{n}", "image": image, "question": f"What costs ${n} and ${n + 1}?", "answer": str(n % 3)}
        for n, image in enumerate(images)
    ]
    rows.append(rows[0] | {"id": "q99", "image": "../secret.png"})
    write_lines(tmp_path / "questions.jsonl", rows)
    with (tmp_path / "captions.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "captions", "split", "place"])
        table.writerows(
            [image, f"Dog {n}.|Hound.", "test" if n > 16 else "train", "here"] for n, image in enumerate(images)
        )
    boxes = ["image\texpression\tbox", *(f"{image}\tthe dog\t4,4,{20 + n},16" for n, image in enumerate(images))]
    (tmp_path / "boxes.tsv").write_text("\n".join([*boxes, "0.png\tthe cat\t90,90,95,95"]))
    return tmp_path


def imported(*words: object, to: str, task: str, file: str) -> str:
    """Import a file of the folder."""
    where = ("--images", "pictures", "--task", task, "--name", to.split("/")[-1], "--to", to, "--max-quarantine", 0.1)
    return call("data", "import", file, *where, *words)


def test_questions(own: Path) -> None:
    out = imported("--held-out", 0.3, "--licence", "mine", to="datasets/my-vqa", task="vqa", file="questions.jsonl")
    folder = own / "datasets/my-vqa"
    records = read_records(folder / "records.parquet")
    assert len(records) == 21 and {record.source for record in records} == {"my-vqa"}
    assert {record.id.split("-")[-1] for record in records} == {f"q{n}" for n in range(21)}
    assert read_jsonl(folder / "quarantine.jsonl") == [
        {
            "field": "image",
            "file": "questions.jsonl",
            "reason": "the reference contains '..'; expected a path below the image folder",
            "row": 22,
        }
    ]
    card = read_json(folder / "card.json")
    assert card["intake"]["licence"] == "mine" and card["intake"]["quarantined"]["num_rows"] == 1
    assert card["image_sizes"] == {"300x20": 1, "48x32": 20}
    text = (folder / "card.md").read_text()
    assert (
        "- licence: mine" in text and "- quarantined rows: 1\n  - image: the reference contains ...; expected" in text
    )
    assert (folder / "contact_sheet.png").read_bytes().startswith(b"\x89PNG")
    counts = {split: card["splits"][split]["num_records"] for split in ("train", "test")}
    assert f'options: {{records: "my-vqa"}}\n    num_train: {counts["train"]}\n    num_test: {counts["test"]}\n' in out
    assert out.endswith("lm_eval_task: pilot_vqa\n    max_quarantine: 0.046\n")  # 1 of 22 is 0.0454...
    assert "21 records, valid" in call("data", "validate", folder / "records.parquet")


def test_same_bytes_twice(own: Path) -> None:
    for to in ("a/my", "b/my"):
        imported("--held-out", 0.3, to=to, task="vqa", file="questions.jsonl")
    names = sorted(path.name for path in (own / "a/my").iterdir())
    assert names == ["card.json", "card.md", "contact_sheet.png", "quarantine.jsonl", "records.parquet"]
    for name in names:
        assert (own / "a/my" / name).read_bytes() == (own / "b/my" / name).read_bytes(), name


def test_written_scenario_is_built_from_the_import(own: Path) -> None:
    imported("--scenario", "my.yaml", to="datasets/my-captions", task="caption", file="captions.csv")
    assert len((own / "my.yaml").read_text().splitlines()) < 30
    scenario = load_scenario(own / "my.yaml")
    assert scenario.tasks[0].options == {"records": "my-captions"} and scenario.tasks[0].lm_eval_task == "pilot_caption"
    build_data(scenario, own / "out", quiet)
    before = read_records(own / "datasets/my-captions/records.parquet")
    after = read_records(own / "out/data/my-captions/records.parquet")
    fields = [(r.id, r.image, r.instruction, r.answer, r.references, r.attributes, r.split) for r in before]
    assert fields == [(r.id, r.image, r.instruction, r.answer, r.references, r.attributes, r.split) for r in after]
    assert {r.source for r in after} == {"imported"} and after[0].references == ("Dog 0.", "Hound.")
    with pytest.raises(UserError, match=r"--scenario: my.yaml exists\. Name a new file, or add the task below"):
        imported("--scenario", "my.yaml", to="datasets/my-captions", task="caption", file="captions.csv")


def test_altered_image_of_an_import_is_refused(own: Path) -> None:
    imported("--scenario", "my.yaml", to="datasets/my-captions", task="caption", file="captions.csv")
    path = own / "datasets/my-captions/records.parquet"
    table = pyarrow.parquet.read_table(path)
    images = [data + b"another byte" if number == 2 else data for number, data in enumerate(table["image"].to_pylist())]
    place = table.column_names.index("image")
    pyarrow.parquet.write_table(table.set_column(place, "image", pyarrow.array(images, pyarrow.binary())), path)
    with pytest.raises(UserError, match=r"records\.parquet: row 2, field image_sha256: .*altered: import the data"):
        build_data(load_scenario(own / "my.yaml"), own / "out", quiet)


def test_boxes_survive_the_import(own: Path) -> None:
    options = ("--boxes", "pixels_xyxy", "--held-out", 0.3)
    out = imported(*options, to="datasets/my-boxes", task="ground", file="boxes.tsv")
    path = own / "my.yaml"
    path.write_text(_SCENARIO + out)
    build_data(load_scenario(path), own / "out", quiet)
    before = read_records(own / "datasets/my-boxes/records.parquet")
    after = read_records(own / "out/data/my-boxes/records.parquet")
    assert [(r.id, r.box, r.answer) for r in before] == [(r.id, r.box, r.answer) for r in after]
    by_id = {r.id.split("-")[-1]: r for r in after}
    assert by_id["2"].box == (4 / 48, 4 / 32, 20 / 48, 0.5) and by_id["2"].answer == "[0.08, 0.12, 0.42, 0.50]"
    assert by_id["22"].box == (4 / 300, 4 / 20, 40 / 300, 16 / 20)
    card = read_json(own / "out/data/my-boxes/card.json")
    assert card["intake"]["quarantined"] == {"by_reason": [["box: the box is outside the image", 1]], "num_rows": 1}


_SCENARIO = """\
name: my
title: My data
data_seed: 0
partition_seed: 0
methods: [fedavg]
seeds: [0]
validation_fraction: 0.1
local_test_fraction: 0.1
min_client_examples: 1
tasks:
"""


ODD = "a [b] ? c"


@pytest.fixture
def unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    """No contact sheet is drawn, which takes longer than all the rest."""
    monkeypatch.setattr("pilot.data.card.contact_sheet", lambda task, records, images: b"")


@pytest.mark.usefixtures("unseen")
@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_absolute_paths_and_odd_names_from_anywhere(
    own: Path, suffix: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FILE, --images, --to, --scenario, and `file:` and `records:` of a scenario, with characters of patterns."""
    root = tmp_path_factory.mktemp(ODD)
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    write_pictures(root / "p [x]?", [f"{number}.png" for number in range(6)])
    file = root / f"f [1]?{suffix}"
    write_lines(file, [{"image": f"{n}.png", "question": "What?", "answer": "red"} for n in range(6)])
    if suffix == ".csv":
        file.write_text("image,question,answer\n" + "".join(f"{n}.png,What?,red\n" for n in range(6)))
    words = ("--images", root / "p [x]?", "--task", "vqa", "--name", "my", "--to", root / "to [y]?/my")
    done = invoke("data", "import", file, *words, "--held-out", 0.4, "--scenario", root / "s [z]?.yaml")
    line = "6 rows read: 4 for training, 2 for testing, 0 in quarantine, 0 skipped.\n"
    assert done.stderr.endswith(f"{root / 'to [y]?/my'}: {line}")
    done = invoke(
        "data", "build", "--scenario", root / "s [z]?.yaml", "--profile", "smoke", "--results", root / "r [w]?"
    )
    assert done.stderr.endswith(f"my: {line}")
    options = {"file": str(file), "images": str(root / "p [x]?"), "held_out": 0.4}
    build_data(scenario_of(task(num_train=4, num_test=2, options=options)), root / "out", quiet)
    assert list(read_json(root / "out/data/manifest.json")["source_files"]["q"]) == [file.as_posix()]


def closing(own: Path, name: str, content: str, *words: object, kind: str = "vqa") -> str:
    """The closing line of an import of a file with this content."""
    (own / name).write_text(content)
    where = ("--images", "pictures", "--task", kind, "--name", "my", "--to", "datasets/my", "--held-out", 0.3)
    said = invoke("data", "import", name, *where, *words).stderr.splitlines()
    return said[-1].removeprefix("datasets/my: ")


@pytest.mark.usefixtures("unseen")
def test_the_closing_line_accounts_for_every_row(own: Path) -> None:
    rows = [{"image": f"{n}.png", "question": "What?", "answer": "red"} for n in range(20)]
    both = "".join(json.dumps(row | {"split": "test" if n < 3 else "train"}) + "\n" for n, row in enumerate(rows))
    assert closing(own, "both.jsonl", both) == (
        "20 rows read: 12 for training, 5 for testing, 0 in quarantine, 3 skipped. Skipped: split test (3)."
    )
    missing = [{**rows[0], "answer": float("nan")}, {**rows[1], "answers": ["red", float("nan")]}]
    lines = "".join(json.dumps(row) + "\n" for row in [*rows, *missing])
    assert closing(own, "nan.jsonl", lines, "--max-quarantine", 0.2).endswith(
        "2 in quarantine, 0 skipped. In quarantine: answer: is missing or empty (1); answers: expected text or a "
        "number, got null (1)."
    )
    captions = [f"{n % 20}.png,a thing number {n} stands here\n" for n in range(300)]
    captions[100], captions[150] = '0.png,"""Two things stand \n', '0.png,"""A thing and \n'
    line = closing(own, "quotes.csv", "image,caption\n" + "".join(captions), kind="caption")
    assert "300 rows read: " in line and " 2 in quarantine, 0 skipped." in line
    nested = "".join(json.dumps(row | {"tags": [], "meta": {"source": "camera"}}) + "\n" for row in rows)
    assert closing(own, "nested.jsonl", nested).endswith("No text or number, so no attribute: meta (20); tags (20).")
    card = (own / "datasets/my/card.md").read_text()
    assert "Skipped: nothing.\nNo text or number, so no attribute: meta (20); tags (20).\n" in card


@pytest.mark.usefixtures("unseen")
def test_questions_of_another_form_are_named_with_their_option(own: Path) -> None:
    def talk(n: int, line: str) -> dict[str, Any]:
        turns = [{"from": "human", "value": f"<image>\nWhat is it?{line}"}, {"from": "gpt", "value": "Red"}]
        return {"id": n, "image": f"{n}.png", "conversations": turns}

    short = "\nAnswer the question using a single word or phrase."
    rows = [talk(n, short if n < 15 else "") for n in range(20)]
    said = "form open (--form open takes it, in a scenario forms: [open]) (5)"
    assert closing(own, "mixed.json", json.dumps(rows)).endswith(f"0 in quarantine, 5 skipped. Skipped: {said}.")
    other = "form short_answer (--form short_answer takes it, in a scenario forms: [short_answer]) (15)"
    line = closing(own, "mixed.json", json.dumps(rows), "--form", "open")
    assert line.endswith(f"15 skipped. Skipped: {other}.")
    plain = "\n".join(json.dumps(talk(n, "")) for n in range(20))
    with pytest.raises(UserError, match=r"0 usable rows for split .*20 rows: form open \(--form open takes it"):
        closing(own, "plain.json", plain)
    assert "20 rows read" in closing(own, "plain.json", plain, "--form", "open")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--name", "My Data"), "--name: expected lower-case letters"),
        (("--images", "nowhere"), "--images: nowhere: no such folder"),
        ((), "the source has 0 usable rows for split test .*or set held_out"),
        (("--held-out", "0.3", "--max-quarantine", "0"), "1 of 15 rows that were opened for split train"),
        (("--held-out", "7"), "field held_out: expected a share"),
        (("--held-out", "0.3", "--boxes", "pixels_xyxy", "--form", "open"), "field forms: unknown name 'forms'"),
    ],
)
def test_refusals(own: Path, words: tuple[str, ...], why: str) -> None:
    base = {"--images": "pictures", "--task": "vqa", "--name": "my", "--to": "datasets/my", "--max-quarantine": "0.1"}
    base |= dict(zip(words[::2], words[1::2], strict=True))
    with pytest.raises(UserError, match=why):
        call("data", "import", "questions.jsonl", *(word for pair in base.items() for word in pair))
    assert not (own / "datasets/my/records.parquet").exists()


@pytest.mark.parametrize("words", [(), ("--held-out", 0.3)])
@pytest.mark.parametrize(("name", "content"), [("empty.jsonl", ""), ("empty.csv", "image,question,answer\n")])
def test_a_file_without_rows_is_said_to_have_none(
    own: Path, name: str, content: str, words: tuple[object, ...]
) -> None:
    (own / name).write_text(content)
    with pytest.raises(UserError, match=rf"^{name}: no rows\. Name a file with at least one row\.$"):
        imported(*words, to="datasets/my", task="vqa", file=name)
    assert not (own / "datasets").exists()


def test_held_out_is_not_advised_where_it_is_stated(own: Path) -> None:
    write_lines(own / "one.jsonl", [{"image": "0.png", "question": "What?", "answer": "red"}])
    with pytest.raises(UserError, match=r"0 usable rows for split test .*\. Check file and options\.$"):
        imported("--held-out", 0.3, to="datasets/my", task="vqa", file="one.jsonl")


@pytest.mark.parametrize("to", ["file", "file/below", "link", "link/below/it"])
def test_the_target_is_checked_before_anything_is_read(own: Path, to: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (own / "file").write_text("mine")
    (own / "link").symlink_to("nowhere")
    monkeypatch.setattr("pilot.data.intake.intake.make_records", None)
    with pytest.raises(UserError, match=rf"{to.split('/')[0]}: not a folder\. Choose another folder\.$"):
        imported("--held-out", 0.3, to=to, task="vqa", file="questions.jsonl")
    assert (own / "file").read_text() == "mine" and not (own / "nowhere").exists()


def task(**values: Any) -> TaskConfig:
    """A task over `questions.jsonl`."""
    fields: dict[str, Any] = {"name": "q", "kind": "vqa", "source": "own", "num_train": 8, "num_test": 3}
    fields |= {"partition": {"kind": "iid"}, "lm_eval_task": "pilot_vqa", "max_quarantine": 0.25}
    options = {"file": "questions.jsonl", "images": "pictures", "held_out": 0.4}
    return TaskConfig.model_validate(fields | {"options": options} | values)


def scenario_of(*tasks: TaskConfig) -> Scenario:
    """The smoke scenario with other tasks."""
    return load_scenario("smoke").model_copy(update={"tasks": tasks})


def test_files_as_sources(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PILOT_DATASETS", str(own))
    calls: list[tuple[str, int, int]] = []
    build_data(scenario_of(task()), own / "out", lambda *words: calls.append(words))
    assert calls[-1] == ("q", 11, 11) and len(calls) == 11
    records = read_records(own / "out/data/q/records.parquet")
    assert [record.split for record in records] == ["train"] * 8 + ["test"] * 3
    manifest = read_json(own / "out/data/manifest.json")
    assert set(manifest) == {"digests", "source_files"} and list(manifest["source_files"]["q"]) == ["questions.jsonl"]
    rows = read_json(own / "out/data/q/card.json")["intake"]["rows"]["train"]
    assert (
        rows["num_read"] == 22
        and rows["num_taken"] == 8
        and rows["num_skipped"].keys() == {"on the other side of held_out"}
    )


def test_refused_sources(own: Path) -> None:
    for values, why in (
        (
            {"source": "nowhere"},
            r"unknown source 'nowhere'\. Expected one of: aokvqa, .* imported, .* own, .* scene",
        ),
        ({"source": "scene-vqa"}, "source 'scene-vqa' takes no options, got file, held_out, images"),
        ({"options": {}}, "scenario smoke, task q, options: field file: missing"),
        ({"options": {"file": "a.csv", "kind": "vqa"}}, "field kind: set by the task's field"),
        ({"source": "imported", "options": {"records": "none"}}, r"none/records\.parquet: no such file. Import your"),
        ({"source": "imported", "options": {"records": "none", "held_out": 0.5}}, "no such file"),
    ):
        with pytest.raises(UserError, match=why):
            build_data(scenario_of(task(**values)), own / "out", quiet)
        assert not (own / "out/data/manifest.json").exists()


def test_a_failed_intake_leaves_its_quarantine(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PILOT_DATASETS", str(own))
    write_lines(own / "bad.jsonl", [{"image": "0.png", "answer": "x"}] * 3)
    with pytest.raises(
        UserError,
        match=r"3 of 3 rows of bad\.jsonl cannot be used .*question: is missing or empty \(3\).* at least 1\.0\)\. "
        r".*data/q/quarantine\.failed\.jsonl lists the rows that cannot be used\.$",
    ):
        build_data(scenario_of(task(options={"file": "bad.jsonl", "held_out": 0.5})), own / "out", quiet)
    (listed,) = (own / "out/data/q").iterdir()
    assert listed.name == "quarantine.failed.jsonl" and len(read_jsonl(listed)) == 3


@pytest.mark.usefixtures("unseen")
def test_a_failed_import_changes_nothing_in_a_finished_folder(own: Path) -> None:
    folder = own / "datasets/my"
    imported("--held-out", 0.3, to="datasets/my", task="vqa", file="questions.jsonl")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    write_lines(own / "bad.jsonl", [{"image": "0.png", "answer": "x"}] * 3)
    with pytest.raises(UserError, match=r" datasets/my/quarantine\.failed\.jsonl lists the rows that cannot be used"):
        imported("--held-out", 0.3, to="datasets/my", task="vqa", file="bad.jsonl")
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert len(after.pop("quarantine.failed.jsonl").splitlines()) == 3 and after == before
    imported("--held-out", 0.3, to="datasets/my", task="vqa", file="questions.jsonl")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_failed_import_without_bad_rows_makes_nothing(own: Path) -> None:
    write_lines(own / "train.jsonl", [{"image": "0.png", "question": "What?", "answer": "red"}])
    with pytest.raises(UserError, match=r"0 usable rows for split test .*, or set held_out"):
        imported(to="datasets/my", task="vqa", file="train.jsonl")
    assert not (own / "datasets").exists()


def test_altered_imports_are_refused(own: Path) -> None:
    imported("--held-out", 0.3, to="datasets/my", task="vqa", file="questions.jsonl")
    (own / "datasets/my/quarantine.jsonl").write_text("{}\n")
    altered = task(source="imported", options={"records": "my"})
    with pytest.raises(UserError, match="quarantine.jsonl: damaged or altered"):
        build_data(scenario_of(altered), own / "out", quiet)
    (own / "datasets/my/records.parquet").write_bytes(b"PAR1")
    (own / "datasets/my/quarantine.jsonl").write_text("")
    with pytest.raises(UserError, match="not a readable parquet file"):
        build_data(scenario_of(altered), own / "out", quiet)


def test_options_change_digests_and_defaults_do_not() -> None:
    scenario = load_scenario("smoke")
    dumped = scenario.model_dump(mode="json")["tasks"][0]
    assert not {"options", "max_quarantine"} & set(dumped)
    changed = task(max_quarantine=0.5).model_dump(mode="json")
    assert changed["options"]["file"] == "questions.jsonl" and changed["max_quarantine"] == 0.5
    assert TaskConfig.model_validate(changed) == task(max_quarantine=0.5)
    with pytest.raises(ValueError, match="less than or equal to 1"):
        task(max_quarantine=2)
