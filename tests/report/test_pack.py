"""Packs of runs: tables from an unpacked folder are those of the runs themselves, and a pack is what it says."""

import csv
import shutil
import tarfile
from pathlib import Path

import pytest

from pilot.config.study import load_study
from pilot.errors import UserError
from pilot.report.compare.power import show_power
from pilot.report.compare.reference import REFERENCE
from pilot.report.compare.side_by_side import compare
from pilot.report.numbers.load import load_methods
from pilot.report.numbers.summary import group_runs, image_of_example, values_by_seed_and_client
from pilot.report.pack import pack_runs, unpack_runs
from pilot.report.tables.study import write_study
from pilot.report.tables.write import write_tables

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def packed(scenario: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("pack") / "a folder" / "runs.tar.xz"
    assert pack_runs([scenario], file, everything=True) == 20  # six methods with three seeds, two references with one
    return file


def test_tables_are_the_same(scenario: Path, packed: Path, tmp_path: Path) -> None:
    results = tmp_path / "new results"
    unpacked = unpack_runs(packed, results)
    folder = results / "embedded" / "scenario2"
    assert len(unpacked.new) == 20 and not unpacked.known
    assert not list(folder.rglob("*.safetensors")) and not (folder / "data").exists()
    write_tables(folder)
    expected = {path.name: path.read_bytes() for path in (scenario / "tables").iterdir()}
    found = {path.name: path.read_bytes() for path in (folder / "tables").iterdir()}
    assert found == expected


def test_images_count_once(scenario: Path, packed: Path, tmp_path: Path) -> None:
    """Without the images of examples, intervals would be others: two examples of an image are not independent."""
    unpack_runs(packed, tmp_path)
    folder = tmp_path / "embedded" / "scenario2"
    with_images = compare([folder / "runs/fedavg"], format="json")
    image_of_example.cache_clear()
    (folder / "images.json").unlink()
    assert compare([folder / "runs/fedavg"], format="json") != with_images
    assert compare([scenario / "runs/fedavg"], format="json") == with_images


def test_same_runs_give_the_same_bytes(scenario: Path, tmp_path: Path) -> None:
    folders = [scenario / "runs" / name for name in ("pilot", "untuned", "majority")]
    first, again, unpacked = (tmp_path / f"{name}.tar.xz" for name in ("first", "again", "unpacked"))
    pack_runs(folders, first, everything=True)
    pack_runs(folders[::-1], again, everything=True)
    assert again.read_bytes() == first.read_bytes()
    unpack_runs(first, tmp_path)
    pack_runs([tmp_path / "embedded" / "scenario2"], unpacked, everything=True)
    assert unpacked.read_bytes() == first.read_bytes()


def test_scores_are_what_comparisons_read(scenario: Path, packed: Path, tmp_path: Path) -> None:
    file = tmp_path / "scores.tar.xz"
    assert pack_runs([scenario], file) == 20 and file.stat().st_size < packed.stat().st_size / 2
    unpack_runs(file, tmp_path)
    folder = tmp_path / "embedded/scenario2"
    assert {path.name for path in (folder / "runs/pilot/seed0/eval").iterdir()} == {"metrics.json", "per_example.jsonl"}
    assert compare([folder], format="json") == compare([scenario], format="json")
    assert show_power([folder], ["0.05"], format="csv") == show_power([scenario], ["0.05"], format="csv")


def test_unpacking_adds_to_what_is_there(scenario: Path, packed: Path, tmp_path: Path) -> None:
    pack_runs([scenario / "runs/pilot/seed0", scenario / "runs/fedavg"], tmp_path / "some.tar.xz")
    assert len(unpack_runs(tmp_path / "some.tar.xz", tmp_path).new) == 4
    both = unpack_runs(packed, tmp_path)
    assert (len(both.new), len(both.known)) == (16, 4)
    assert compare([tmp_path / "embedded/scenario2"], format="csv") == compare([scenario], format="csv")


def test_another_run_is_not_replaced(packed: Path, tmp_path: Path) -> None:
    unpack_runs(packed, tmp_path)
    run = tmp_path / "embedded/scenario2/runs/pilot/seed0"
    (run / "manifest.json").write_text("{}")
    shutil.rmtree(run.parent / "seed1")
    with pytest.raises(UserError, match=r"seed0: another run than that of .*runs.tar.xz. Unpack into another folder"):
        unpack_runs(packed, tmp_path)
    assert not (run.parent / "seed1").exists()


def test_bad_input(scenario: Path, packed: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"ends in \.tar\.xz"):
        pack_runs([scenario], tmp_path / "runs.zip")
    with pytest.raises(UserError, match="no such file"):
        unpack_runs(tmp_path / "none.tar.xz", tmp_path)
    (tmp_path / "cut.tar.xz").write_bytes(packed.read_bytes()[:5000])
    with pytest.raises(UserError, match=r"cut\.tar\.xz: .*not a pack"):
        unpack_runs(tmp_path / "cut.tar.xz", tmp_path)
    (tmp_path / "evil").write_text("{}")
    for name in ("../../outside/manifest.json", "/root/runs/x/seed0/manifest.json", "a/b/c/d/e/manifest.json"):
        with tarfile.open(tmp_path / "evil.tar.xz", "w:xz") as tar:
            tar.add(tmp_path / "evil", arcname=name)
        with pytest.raises(UserError, match="expected <profile>/<scenario>/runs"):
            unpack_runs(tmp_path / "evil.tar.xz", tmp_path / "results")
    assert not (tmp_path / "results").exists()


def test_two_results_folders_are_not_mixed(scenario: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(scenario, tmp_path / "other/embedded/scenario2"))
    with pytest.raises(UserError, match="is also in another results folder"):
        pack_runs([scenario / "runs/pilot", other / "runs/pilot"], tmp_path / "both.tar.xz")


def test_reference_packs_give_the_reference_tables(tmp_path: Path) -> None:
    """The committed scores are those behind the committed table of scenario2."""
    for file in sorted((REFERENCE / "embedded/packs").glob("scenario2-*.tar.xz")):
        unpack_runs(file, tmp_path)
    methods = ["pilot", "fedavg", "fedprox", "fedmoe", "local", "central"]
    groups = {each.label: each for each in group_runs(load_methods(tmp_path / "embedded/scenario2", methods))}
    with (REFERENCE / "embedded/scenario2/main.csv").open(newline="", encoding="utf-8") as file:
        lines = [row for row in csv.DictReader(file) if row["method"] in groups and row["protocol"] == "personalised"]
    compared = [line for line in lines if line["mean"]]
    assert {line["method"] for line in compared} == set(methods) and len(compared) >= 6 * 7
    for line in compared:
        values = values_by_seed_and_client(groups[line["method"]], line["task"], line["metric"], "personalised")
        assert values is not None and float(line["mean"]) == pytest.approx(values.mean(), abs=1e-6)


@pytest.mark.exhaustive
def test_reference_packs_give_the_studies(tmp_path: Path) -> None:
    """Committed tables of the zoo on scenario2, and of heterogeneity, are made of the committed scores."""
    for file in sorted((REFERENCE / "embedded/packs").glob("*.tar.xz")):
        unpack_runs(file, tmp_path)
    parts = {
        "zoo": ("scenario2", "pilot-scenario2", "variants-scenario2", "near-scenario2"),
        "heterogeneity": ("alpha", "clients"),
    }
    for study, names in parts.items():
        write_study(load_study(study).subset(parts=names), "embedded", tmp_path, index=False)
    for study, name in ((study, name) for study, names in parts.items() for name in names):
        expected, found = (
            list(csv.DictReader((folder / f"embedded/studies/{study}/{name}.csv").open(newline="", encoding="utf-8")))
            for folder in (REFERENCE, tmp_path)
        )
        assert len(found) == len(expected) >= 3 * 8
        for own, other in zip(found, expected, strict=True):
            assert own.keys() == other.keys()
            for field, value in other.items():
                same = own[field] == value or float(own[field]) == pytest.approx(float(value), abs=2e-6)
                assert same, (name, other["method"], field)
