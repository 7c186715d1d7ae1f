"""Entries of the leaderboard (docs/submit.md): what a stranger could change is found and named."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pilot.cli.main import app
from pilot.config.identity import IGNORED_PROFILE_FIELDS, identity
from pilot.config.load import load_profile
from pilot.errors import UserError
from pilot.io.digest import sha256_bytes, sha256_file
from pilot.report.entries import verify
from pilot.report.entries.page import leaderboard
from pilot.report.entries.rules import CHOICES, REFERENCE, STATIC, static_problems
from pilot.report.entries.submit import DESCRIPTION, write_entry
from pilot.report.pack import read_pack, unpack_runs, write_pack

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
RUN = "smoke/smoke/runs/fedavg/seed0"
VERSION = "0.1.0"
Change = Callable[[dict[str, bytes]], None]


@pytest.fixture(scope="module")
def entry(smoke_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("an entry") / "fedavg.tar.xz"
    write_entry([smoke_run / "results" / "smoke" / "smoke" / "runs" / "fedavg"], file, VERSION, by="Ada")
    return file


def changed(entry: Path, file: Path, change: Change, sealed: bool = True) -> Path:
    """Change an entry's files as somebody would who knows the format: with `sealed`, all digests are made to fit."""
    members = read_pack(entry)
    change(members)
    if sealed:
        if f"{RUN}/config.json" in members:
            manifest = json.loads(members[f"{RUN}/manifest.json"])
            for name in ("config.json", "rounds.jsonl"):
                manifest["files"][name] = sha256_bytes(members[f"{RUN}/{name}"])
            members[f"{RUN}/manifest.json"] = json.dumps(manifest).encode()
        described = json.loads(members[DESCRIPTION])
        described["files"] = {name: sha256_bytes(data) for name, data in members.items() if name != DESCRIPTION}
        members[DESCRIPTION] = json.dumps(described).encode()
    write_pack(members, file)
    return file


def edited(name: str, edit: Callable[[Any], None]) -> Change:
    def change(members: dict[str, bytes]) -> None:
        value = json.loads(members[name])
        edit(value)
        members[name] = json.dumps(value).encode()

    return change


def problems(file: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Verify without computing scores again, which starts Java."""
    monkeypatch.setattr(verify, "_score_problems", lambda runs, folder: iter(()))
    return verify.verify_entry(file, VERSION).problems


def budget(config: dict[str, Any]) -> None:
    config["profile_config"]["rounds"] = config["budget"]["rounds"] = 40


def other_data(config: dict[str, Any]) -> None:
    config["digests"]["data"] = "0" * 64


def more_steps(members: dict[str, bytes]) -> None:
    members[f"{RUN}/rounds.jsonl"] *= 2


def without(name: str) -> Change:
    return lambda members: members.pop(name) and None


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (edited(f"{RUN}/config.json", budget), ["profile_config.rounds: expected 2, got 40", "budget.rounds: "]),
        (edited(f"{RUN}/config.json", other_data), ["settings: ", "digests.data: expected 131b8d0", "got 00000"]),
        (more_steps, ["optimiser steps, expected at most"]),
        (without(f"{RUN}/eval/samples.jsonl"), ["seed0/eval/samples.jsonl: missing"]),
        (without("entry/main.csv"), ["table: entry/main.csv: not what the runs give"]),
        (edited(f"{RUN}/eval/metrics.json", lambda m: m.update(test_digest="x")), ["tests: ", "other questions"]),
        (edited(DESCRIPTION, lambda d: d.update(seeds=[0, 1])), ["seeds: 0, expected 0, 1"]),
    ],
    ids=["budget", "data", "steps", "answers", "table", "tests", "seeds"],
)  # fmt: skip
def test_what_was_changed_is_named(
    entry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Change, expected: list[str]
) -> None:
    found = "\n".join(problems(changed(entry, tmp_path / "changed.tar.xz", change), monkeypatch))
    assert all(part in found for part in expected), found


def test_a_good_entry_and_one_file_more_or_less(entry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert problems(entry, monkeypatch) == []
    file = tmp_path / "changed.tar.xz"
    found = problems(changed(entry, file, without(f"{RUN}/ledger.json"), sealed=False), monkeypatch)
    assert f"files: {RUN}/ledger.json: missing" in found
    more = problems(changed(entry, file, lambda m: m.update({"entry/x": b"1"}), sealed=False), monkeypatch)
    assert more == ["files: entry/x: not listed in entry/entry.json"]
    other = problems(changed(entry, file, edited(f"{RUN}/config.json", budget), sealed=False), monkeypatch)
    assert any("files: " in each and "config.json: sha256 differs" in each for each in other)


@pytest.mark.java
def test_a_score_that_does_not_follow_from_the_answers(entry: Path, tmp_path: Path) -> None:
    def better(metrics: dict[str, Any]) -> None:
        row = next(each for each in metrics["entries"] if each["metric"] == "exact_match")
        row["value"] = 0.987654

    file = changed(entry, tmp_path / "better.tar.xz", edited(f"{RUN}/eval/metrics.json", better))
    outcome = CliRunner().invoke(app, ["verify", str(file)])
    assert outcome.exit_code == 2 and "exact_match of client 0" in outcome.stdout and "got 0.987654" in outcome.stdout
    lines = [line.rpartition(": ")[2] for line in outcome.stdout.splitlines() if line.startswith(str(file))]
    assert lines == ["ok", "ok", "ok", "ok", "wrong", "wrong", "ok"], "scores, and the table made of them"


@pytest.mark.java
@pytest.mark.exhaustive
def test_a_seed_trained_again(entry: Path, tmp_path: Path) -> None:
    """The same bytes; with another rate in the entry another model, which is too far from the scores."""
    outcome = CliRunner().invoke(app, ["verify", "--rerun", str(entry)])
    assert outcome.exit_code == 0 and "seed 0: the same model, byte for byte" in outcome.stdout

    def rates(config: dict[str, Any]) -> None:
        config["hyperparameters"]["learning_rates"] = {"text_adapter": 1e-9, "connector": 1e-9}

    file = changed(entry, tmp_path / "rates.tar.xz", edited(f"{RUN}/config.json", rates))
    outcome = CliRunner().invoke(app, ["verify", "--rerun", str(file)])
    assert outcome.exit_code == 2 and "too far (limit 10%)" in outcome.stdout


@pytest.mark.parametrize(("field", "value"), [("version", "9.9.9"), ("format", 2)])
def test_another_version_is_refused(entry: Path, tmp_path: Path, field: str, value: Any) -> None:
    file = changed(entry, tmp_path / "other.tar.xz", edited(DESCRIPTION, lambda d: d.update({field: value})))
    with pytest.raises(UserError, match=rf"field {field}: expected .*, as here, got {value}"):
        verify.verify_entry(file, VERSION)


def test_what_is_no_entry_is_refused(smoke_run: Path, entry: Path, tmp_path: Path) -> None:
    runs = smoke_run / "results" / "smoke" / "smoke" / "runs"
    with pytest.raises(UserError, match="expected the runs of one method"):
        write_entry([runs / "fedavg", runs / "pilot"], tmp_path / "two.tar.xz", VERSION)
    faults = smoke_run / "results" / "smoke" / "smoke" / "faults"
    with pytest.raises(UserError, match="a run with a fault is no entry"):
        write_entry([next(faults.glob("*/runs/fedavg"))], tmp_path / "fault.tar.xz", VERSION)
    file = changed(entry, tmp_path / "none.tar.xz", without(DESCRIPTION), sealed=False)
    with pytest.raises(UserError, match="entry/entry.json is missing"):
        verify.verify_entry(file, VERSION)


def test_an_entry_is_a_pack(entry: Path, smoke_run: Path, tmp_path: Path) -> None:
    assert len(unpack_runs(entry, tmp_path).new) == 1 and not (tmp_path / "entry").exists()
    again = tmp_path / "again.tar.xz"
    write_entry([smoke_run / "results" / "smoke" / "smoke" / "runs" / "fedavg"], again, VERSION, by="Ada")
    assert again.read_bytes() == entry.read_bytes()


def test_the_page(entry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "_score_problems", lambda runs, folder: iter(()))
    page = leaderboard({entry: verify.verify_entry(entry, VERSION)})
    assert "## smoke, profile smoke" in page and "| 1.00 | fedavg | " in page and "| Ada | `fedavg.tar.xz` " in page


def test_the_committed_page_lists_the_committed_entries() -> None:
    page = (ROOT / "docs/leaderboard.md").read_text()
    files = sorted((ROOT / "leaderboard").glob("*.tar.xz"))
    assert len(files) >= 6 and page.count(".tar.xz` ") == len(files)
    assert all(f"`{file.name}` {sha256_file(file)[:12]}" in page for file in files)


@pytest.mark.java
@pytest.mark.exhaustive
def test_the_committed_entries_are_good() -> None:
    """Every check of every entry: half a minute each, since captions are scored again."""
    files = sorted((ROOT / "leaderboard").glob("*.tar.xz"))
    found = {file: verify.verify_entry(file, VERSION) for file in files}
    assert [each.problems for each in found.values()] == [[]] * len(files)
    assert leaderboard(found) == (ROOT / "docs/leaderboard.md").read_text()


def test_static_settings_are_all_but_the_choices(entry: Path) -> None:
    config = json.loads(read_pack(entry)[f"{RUN}/config.json"])
    assert list(static_problems(config)) == []
    assert identity(config).keys() == {*CHOICES, *STATIC}, "a new field belongs to one of them"
    config["hyperparameters"]["learning_rates"]["connector"] = 1.0
    assert list(static_problems(config)) == []
    for name in load_profile("smoke").model_fields_set & config["profile_config"].keys() - {"name"}:
        other = json.loads(json.dumps(config))
        other["profile_config"][name] = "changed"
        found = list(static_problems(other))
        assert bool(found) != (name in IGNORED_PROFILE_FIELDS), name
    assert set(json.loads(REFERENCE.read_text())) >= {"embedded/scenario2", "smoke/smoke"}
