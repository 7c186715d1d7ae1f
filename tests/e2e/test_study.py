"""A study in miniature through Snakemake, on copies of the repository: its runs beside the scenario's own."""

import re
import shutil
from pathlib import Path

import pytest

from ..pipelines.workflow import copy_repository
from ..smoke import copy_smoke_run
from .test_snakemake import planned, snakemake

VARIANT = "pilot+no-ata"


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository whose smoke scenario has two methods."""
    return copy_repository(tmp_path_factory.mktemp("study") / "copy", methods="pilot, fedavg")


def plan(copy: Path, target: str, *configured: str) -> str:
    """A dry run."""
    return snakemake(copy, *configured, "-n", target=target)


@pytest.mark.exhaustive  # tests/pipelines/test_dry_run.py plans all studies at once
def test_plans(copied: Path) -> None:
    """No two rules claim a file, and each run is made once."""
    output = plan(copied, "smoke_study")
    assert "strict-dag-evaluation" not in output
    counts = {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", output, re.MULTILINE)}
    # Pilot, FedAvg and two references; Pilot's variant.
    assert counts["train"] == counts["answers"] == 4 + 1
    assert (counts["data"], counts["partition"], counts["score"], counts["score_study"]) == (1, 1, 1, 1)
    output = plan(copied, "zoo", "zoo_methods=pilot,fedavg,local")
    counts = {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", output, re.MULTILINE)}
    assert (counts["train"], counts["score"], "score_study" in counts) == (2 * (6 * 3 + 2), 2, False)
    output = plan(copied, "ablation", f"ablation_methods={VARIANT},fedavg")
    counts = {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", output, re.MULTILINE)}
    # The variant; FedAvg and Pilot with three other numbers of rounds; the scenario's own.
    assert counts["train"] == 3 * (1 + 2 * 3 + 6) + 2 and counts["score_study"] == 4
    output = plan(copied, "tuning", "zoo_methods=pilot,local")
    counts = {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", output, re.MULTILINE)}
    assert counts["tune"] == 3 and counts["tuning_table"] == 1  # FedAvg is the baseline


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_variant_of_a_scenario(copied: Path, tmp_path: Path) -> None:
    """It has data, shards, features and runs of its own."""
    target = "results/smoke/smoke+clients-1/tables/main.md"
    snakemake(copied, target=target)
    assert "| fedavg | 1 | " in (copied / target).read_text()


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_study_beside_its_scenario(smoke_run: Path, tmp_path: Path) -> None:
    copy = copy_repository(tmp_path / "copy")
    copy_smoke_run(smoke_run, copy)
    results = copy / "results/smoke"
    index = (results / "studies/smoke/index.md").read_text()
    assert f"| {VARIANT} |" in index and (results / "studies/smoke/components.png").is_file()
    assert "Nothing to be done" in plan(copy, "smoke_study")
    # The scenario's own tables need no run of the study, and do not show the variant.
    assert VARIANT not in (results / "smoke/tables/main.csv").read_text()
    for name in ("tables", "figures"):
        shutil.move(results / "smoke" / name, tmp_path / name)
    assert planned(plan(copy, "smoke")) == {"tables", "draw", "page", "smoke"}
    for name in ("tables", "figures"):
        shutil.move(tmp_path / name, results / "smoke" / name)
    variant = copy / "pipelines/variants/no-ata.yaml"
    variant.write_text(variant.read_text().replace("adaptive_text_aggregation: false", "num_neighbors: 1"))
    repeated = {f"train {VARIANT}", f"answers {VARIANT}", "score_study", "study", "smoke_study"}
    assert planned(plan(copy, "smoke_study")) == repeated
    assert "Nothing to be done" in plan(copy, "smoke")
