"""Other tools' answers as a run beside ours: what is written, what is refused, what `compare` makes of it."""

import json
from pathlib import Path
from typing import Any

import pytest

from pilot.data.record import read_records
from pilot.errors import UserError
from pilot.evaluation.imported.run import ImportSummary, import_answers, refuse_imported
from pilot.evaluation.scoring import score_runs
from pilot.io.atomic import read_json, read_jsonl, write_json, write_jsonl
from pilot.io.digest import digest_json, sha256_file
from pilot.io.verified import write_noted
from pilot.report.compare.side_by_side import compare
from pilot.report.numbers.load import load_runs
from pilot.report.plots.style import Source
from pilot.report.plots.write import write_figures
from pilot.report.tables.write import write_tables

from ..report.synthetic import NUM_EXAMPLES, build_run, build_scenario

pytestmark = pytest.mark.slow

Row = dict[str, Any]


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    """Made-up runs of three methods and a reference, with data."""
    return build_scenario(tmp_path, ("pilot", "fedavg", "local", "untuned"))


def answers(scenario: Path, task: str, num_right: int) -> list[Row]:
    """One line per test example, the first `num_right` with its answer."""
    records = read_records(scenario / "data" / task / "records.parquet")
    return [{"id": r.id, "prediction": r.answer if n < num_right else "?"} for n, r in enumerate(records)]


def bring(scenario: Path, rows: list[Row], name: str = "llava-next", **options: Any) -> ImportSummary:
    """Import lines of our own format."""
    file = scenario.parent / f"{name}.jsonl"
    write_jsonl(file, rows)
    return import_answers(file, "jsonl", name, scenario, **options)


def of_method(scenario: Path, name: str, **options: Any) -> dict[str, Row]:
    """The records of a method in the output of `compare`, by task."""
    (grid,) = json.loads(compare([scenario], format="json", **options) or "")["scenarios"]
    return {row["task"]: row for row in grid["rows"] if row["method"] == name}


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_boxes_of_other_tools_in_their_frame(scenario: Path) -> None:
    """The scenario's runs answer in the original frame; a LLaVA-1.5 that was asked by another tool does not."""
    rows = answers(scenario, "scene-ground", NUM_EXAMPLES)
    made = bring(scenario, rows, frame="padded_square")
    (task,) = [task for task in read_json(made.run_dir / "config.json")["tasks"] if task["kind"] == "ground"]
    assert task["frame"] == "padded_square"
    first = read_jsonl(made.run_dir / "eval" / "samples.jsonl")[0]
    assert (first["frame"], first["size"]) == ("padded_square", [64, 64])
    scored = {entry["metric"] for entry in read_json(made.run_dir / "eval" / "metrics.json")["entries"]}
    assert scored == {"acc@0.5[padded_square]", "mean_iou[padded_square]", "parse_failure_rate"}
    with pytest.raises(UserError, match="coordinate frame differs"):
        compare([scenario], format="json")
    assert of_method(scenario, "llava-next", allow_different=["frame"])["scene-ground"]["metric"].startswith("acc@0.5[")


def test_a_run_like_any_other_but_for_what_is_not_known(scenario: Path) -> None:
    made = bring(scenario, answers(scenario, "scene-vqa", 30))
    assert made == ImportSummary(
        scenario / "runs/llava-next/seed0", {"scene-vqa": NUM_EXAMPLES}, ("scene-caption", "scene-ground")
    )
    rows = of_method(scenario, "llava-next")
    vqa, ground = rows["scene-vqa"], rows["scene-ground"]
    # 30 of 40 are right, whichever client asks: the worst client is the mean.
    assert (vqa["mean"], vqa["worst_client"], vqa["num_seeds"], vqa["status"]) == (0.75, 0.75, 1, "ok")
    assert vqa["reference"] and vqa["imported"] and not vqa["best"]
    assert vqa["ci_low"] < 0.75 < vqa["ci_high"] and vqa["std"] is None and vqa["p_holm"] is not None
    unknown = ("megabytes", "trainable_parameters", "wall_seconds", "local_mean")
    assert all(row[name] is None for row in rows.values() for name in unknown)
    assert (ground["mean"], ground["worst_client"], ground["status"]) == (None, None, "missing")
    markdown = compare([scenario], format="markdown") or ""
    assert "| *llava-next* (reference) | 1 | 0.750 " in markdown and "| missing | - | - |" in markdown
    assert "Imported, never bold or †: llava-next (jsonl): one set of answers of another tool" in markdown


def test_tasks_add_up_in_any_order(scenario: Path, tmp_path: Path) -> None:
    vqa, ground = answers(scenario, "scene-vqa", 30), answers(scenario, "scene-ground", 10)
    bring(scenario, vqa)
    made = bring(scenario, ground, task="scene-ground")
    assert made.missing == ("scene-caption",) and made.num_skipped == 0
    first = contents(made.run_dir)
    rows = of_method(scenario, "llava-next")
    assert (rows["scene-vqa"]["mean"], rows["scene-ground"]["mean"]) == (0.75, 0.25)
    assert rows["scene-ground"]["parse_failure_rate"] == 0.75
    made.run_dir.rename(tmp_path / "aside")
    bring(scenario, ground)
    assert contents(bring(scenario, vqa).run_dir) == first
    manifest, config = read_json(made.run_dir / "manifest.json"), read_json(made.run_dir / "config.json")
    assert manifest["config_digest"] == digest_json(config) and set(config["imported"]) == {"scene-vqa", "scene-ground"}
    assert manifest["files"] == {name: sha256_file(made.run_dir / name) for name in manifest["files"]}
    assert {"config.json", "imported/scene-vqa.json"} < manifest["files"].keys()


def test_rows_of_other_tasks_are_counted(scenario: Path) -> None:
    rows = [row | {"task": task} for task in ("scene-vqa", "scene-ground") for row in answers(scenario, task, 30)]
    made = bring(scenario, rows, task="scene-vqa")
    assert made.num_skipped == NUM_EXAMPLES and str(made) == (
        f"{made.run_dir}: scene-vqa ({NUM_EXAMPLES} answers); {NUM_EXAMPLES} rows of other tasks skipped; "
        "without scene-caption, scene-ground"
    )
    assert bring(scenario, rows, name="both").num_skipped == 0


def test_scores_are_ours(scenario: Path) -> None:
    """The answers of a run of ours, brought back from outside, get the scores that they had."""
    run = scenario / "runs" / "fedavg" / "seed1"
    rows = [row for row in read_jsonl(run / "eval" / "samples.jsonl") if row["kind"] != "caption"]
    write_jsonl(run / "eval" / "samples.jsonl", rows)
    score_runs([run])
    made = bring(scenario, [{key: row[key] for key in ("task", "id", "prediction")} for row in rows])
    assert made.missing == ("scene-caption",)
    ours, theirs = (read_json(folder / "eval" / "metrics.json") for folder in (run, made.run_dir))
    assert theirs["entries"] == ours["entries"] and theirs["test_digest"] == ours["test_digest"]
    assert len({entry["value"] for entry in ours["entries"]}) > 2


def test_answers_are_replaced_only_on_request(scenario: Path) -> None:
    vqa = answers(scenario, "scene-vqa", 30)
    before = contents(bring(scenario, vqa).run_dir)
    assert contents(bring(scenario, vqa).run_dir) == before
    with pytest.raises(UserError, match=r"vqa.json: already has answers of another file \(llava-next.jsonl, jsonl\)"):
        bring(scenario, vqa[::-1])
    assert contents(scenario / "runs" / "llava-next" / "seed0") == before
    bring(scenario, answers(scenario, "scene-vqa", 20), replace=True)
    assert of_method(scenario, "llava-next")["scene-vqa"]["mean"] == 0.5


def test_seeds_of_one_name(scenario: Path) -> None:
    for seed, num_right in ((3, 30), (4, 20)):
        bring(scenario, answers(scenario, "scene-vqa", num_right), seed=seed)
    row = of_method(scenario, "llava-next")["scene-vqa"]
    assert (row["mean"], row["num_seeds"]) == (0.625, 2)
    bring(scenario, answers(scenario, "scene-ground", 20), seed=4)
    with pytest.raises(UserError, match=r"llava-next/seed3.*scene-ground for clients \[6, 7, 8\].*Import it for every"):
        compare([scenario], format="json")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fedavg", "--as fedavg: this is the name of a method of the suite. Choose another, such as fedavg-import"),
        ("FedMoE", "--as FedMoE: this is the name of a method of the suite"),
        ("pilot-small", "--as pilot-small: .*runs/pilot-small/seed1 was trained, not imported"),
        ("../llava", "--as '../llava': expected letters, digits"),
        ("llava next", "--as 'llava next': expected letters"),
    ],
)
def test_names_that_are_taken_or_no_names(scenario: Path, name: str, message: str) -> None:
    build_run(scenario / "runs" / "pilot-small" / "seed1", "pilot", 1)
    before = contents(scenario)
    write_jsonl(scenario.parent / "answers.jsonl", answers(scenario, "scene-vqa", 3))
    with pytest.raises(UserError, match=message):
        import_answers(scenario.parent / "answers.jsonl", "jsonl", name, scenario)
    assert contents(scenario) == before


def test_other_test_sets_leave_no_trace(scenario: Path) -> None:
    before = contents(scenario)
    with pytest.raises(UserError, match="llava-next.jsonl: not the test set of scene-vqa: 2 ids have no answer, first"):
        bring(scenario, answers(scenario, "scene-vqa", 30)[:-2])
    assert contents(scenario) == before


def test_other_data_are_refused(scenario: Path) -> None:
    bring(scenario, answers(scenario, "scene-vqa", 30))
    manifest = scenario / "data" / "manifest.json"
    write_json(manifest, {"digests": {"scene-vqa": read_json(manifest)["digests"]["scene-vqa"]}})
    with pytest.raises(UserError, match="data: not the data of .*runs/fedavg/seed0. Train again with these data"):
        bring(scenario, answers(scenario, "scene-ground", 30))
    manifest.unlink()
    with pytest.raises(UserError, match="manifest.json: missing. Build the scenario's data first"):
        bring(scenario, answers(scenario, "scene-ground", 30))


def test_a_folder_without_runs(scenario: Path) -> None:
    with pytest.raises(UserError, match="no trained run .looked for runs/<method>/seed<k>/config.json"):
        import_answers(scenario.parent / "a.jsonl", "jsonl", "llava", scenario.parent)


def test_interrupted_and_again(scenario: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vqa, ground = answers(scenario, "scene-vqa", 30), answers(scenario, "scene-ground", 10)
    bring(scenario, vqa)
    expected = contents(bring(scenario, ground).run_dir)
    run_dir = scenario / "runs" / "llava" / "seed0"
    bring(scenario, vqa, "llava")
    monkeypatch.setattr("pilot.evaluation.imported.run.score_runs", lambda run_dirs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        bring(scenario, ground, "llava")
    with pytest.raises(UserError, match=r"llava/seed0: this run is not complete .* Finish it with pilot-bench import"):
        load_runs([scenario])
    monkeypatch.undo()
    bring(scenario, ground, "llava")
    found = contents(run_dir)
    for name in ("eval/metrics.json", "eval/samples.jsonl", "eval/per_example.jsonl"):
        assert found[name] == expected[name]
    assert found.keys() == expected.keys()


def test_compare_checks_the_examples(scenario: Path) -> None:
    made = bring(scenario, answers(scenario, "scene-vqa", 30))
    samples = made.run_dir / "eval" / "samples.jsonl"
    rows = read_jsonl(samples)
    rows[3]["references"] = ["another"]
    write_noted(samples, lambda path: write_jsonl(path, [*rows[:5], *rows[6:]]))
    score_runs([made.run_dir])
    with pytest.raises(UserError) as caught:
        compare([scenario], format="json")
    said = f"{made.run_dir} and {scenario}/runs/fedavg/seed0 disagree on 2 examples, first: '{rows[3]['id']}', '"
    assert f"- test set of scene-vqa differs: {said}{rows[5]['id']}'" in str(caught.value)
    # One of the 30 has another reference now, and one is gone.
    row = of_method(scenario, "llava-next", allow_different=["tests"])["scene-vqa"]
    assert row["mean"] == pytest.approx(28 / 39, abs=1e-6)


def test_an_imported_run_has_no_model(scenario: Path) -> None:
    made = bring(scenario, answers(scenario, "scene-vqa", 30))
    refuse_imported([scenario / "runs" / "pilot" / "seed0"])
    with pytest.raises(UserError, match="llava-next/seed0: this run was imported and has no model"):
        refuse_imported([made.run_dir])


def test_tables_and_figures_hold_it(scenario: Path) -> None:
    bring(scenario, answers(scenario, "scene-vqa", 30))
    write_tables(scenario)
    main = (scenario / "tables" / "main.csv").read_text().splitlines()
    assert "scenario2,llava-next,scene-caption,CIDEr,personalised,,,1,,,,missing" in main
    source = Source(scenario, tuple(load_runs([scenario])))
    assert source.methods == ["pilot", "fedavg", "local", "llava-next", "untuned"] and source.is_reference("llava-next")
    vqa, caption, _ = source.tasks
    assert source.primary(vqa).loc["llava-next", "mean"] == 0.75 and source.status(caption, "llava-next") == "missing"
    written = {path.stem for path in write_figures(scenario, only=["bars", "cost", "samples", "losses"])}
    assert written == {"bars", "cost", "samples", "losses"}


@pytest.mark.java
@pytest.mark.exhaustive
def test_captions(scenario: Path) -> None:
    made = bring(scenario, answers(scenario, "scene-caption", NUM_EXAMPLES))
    values = {entry["metric"]: entry["value"] for entry in read_json(made.run_dir / "eval" / "metrics.json")["entries"]}
    assert values["ROUGE-L"] == values["METEOR"] == 1.0
