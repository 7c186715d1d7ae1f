"""Dry runs: what they say to a person, and what every job declares."""

import re
from pathlib import Path

import pytest
import yaml

from ..marks import few_of
from .workflow import ROOT, Done, dry_run, snakemake

TARGETS = {
    "all", "scenario1", "scenario2", "scenario3", "smoke", "figures", "report", "faults", "smoke_faults", "zoo",
    "ablation", "heterogeneity", "asynchrony", "smoke_study", "smoke_figures", "tuning", "privacy", "smoke_privacy",
}  # fmt: skip


@pytest.fixture(scope="module", params=few_of(["zoo_methods=pilot,local"], ["profile=embedded"]))
def everything(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """A dry run of all targets, in which every rule has a job: with a zoo of two methods, or with the whole one."""
    results = f"results={tmp_path_factory.mktemp('none')}"
    return dry_run(*sorted(TARGETS), "backbone", "--config", results, request.param)


@pytest.mark.slow
def test_every_rule_declares_what_it_needs(everything: Done) -> None:
    listed = set(snakemake("--list-rules").output.split())
    assert everything.rules() | TARGETS == listed
    for job in everything.jobs:
        assert job["rule_msg"], job["rule_name"]
        if job["rule_name"] not in TARGETS:
            assert job["resources"]["mem_mb"] >= 2000 and job["resources"]["runtime"] >= 30, job["rule_name"]
            assert job["threads"] == 1 and job["log"], job["rule_name"]


@pytest.mark.slow
def test_every_job_has_a_log_and_a_benchmark_of_its_own(everything: Done) -> None:
    own = [job for job in everything.jobs if job["rule_name"] not in TARGETS]
    logs, benchmarks = [log for job in own for log in job["log"]], [job["benchmark"] for job in own]
    assert len(set(logs)) == len(logs) == len(own)
    assert len(set(benchmarks)) == len(own)


@pytest.mark.slow
def test_a_dry_run_is_a_table_and_a_line_per_job(tmp_path: Path) -> None:
    """Nothing of it names a wildcard, or lists the files that go in and out."""
    done = dry_run("scenario2", "--quiet", "host", "reason", "--config", f"results={tmp_path}")
    lines = re.findall(r"^Job \d+: (.*)$", done.text, re.MULTILINE)
    assert len(lines) == len(done.jobs) == 48
    assert "train pilot, seed 0, scenario2 (embedded)" in lines
    assert "answer the test sets with fedavg, seed 2, scenario2 (embedded)" in lines
    assert "all done: tables, figures and report of scenario2 (embedded)" in lines
    assert re.search(r"^train +20$", done.text, re.MULTILINE)
    assert "wildcards" not in done.text and str(tmp_path) not in done.text
    few = dry_run("scenario2", "--quiet", "host", "rules", "--config", f"results={tmp_path}")
    assert "Job 0:" not in few.text and re.search(r"^train +20$", few.text, re.MULTILINE)


@pytest.mark.slow
def test_the_local_profile(tmp_path: Path) -> None:
    """It needs no --cores, prints a line per job, and keeps jobs on a GPU apart."""
    profile = "pipelines/profiles/local"
    done = dry_run("scenario2", "--profile", profile, "--config", f"results={tmp_path}", "profile=llava")
    assert "train pilot, seed 0, llava-scenario2 (llava)" in done.text and "wildcards" not in done.text
    assert {job["resources"].get("gpu") for job in done.jobs if job["rule_name"] == "train"} == {1}
    values = yaml.safe_load((ROOT / profile / "config.yaml").read_text())
    assert values["resources"] == ["gpu=1"] and values["rerun-incomplete"] is True and values["cores"] == "all"


@pytest.mark.slow
def test_more_seeds(tmp_path: Path) -> None:
    """Of a scenario's methods and a study's, beside those that are there; references have one run."""
    done = dry_run("smoke", "smoke_study", "--quiet", "host", "--config", f"results={tmp_path}", "seeds=3")
    found = set(re.findall(r"train (\S+), seed (\d+), smoke \(smoke\)", done.text))
    assert found >= {(method, seed) for method in ("pilot", "fedavg", "pilot+no-ata") for seed in "012"}
    assert {seed for _, seed in found} == set("012") and ("untuned", "1") not in found
