"""The Kubernetes profile with a stand-in for kubectl: what is submitted, and what comes back. No cluster is used."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .workflow import ROOT, copy_repository, dry_run, snakemake

PROFILE = "pipelines/profiles/kubernetes"
ON_GPU = ("features", "train", "answers")
PARTITION = "out/smoke/smoke/partition/assignment.parquet"
HAS_PLUGIN = importlib.util.find_spec("snakemake_executor_plugin_cluster_generic") is not None
with_plugin = pytest.mark.skipif(not HAS_PLUGIN, reason="needs `pip install 'pilot-bench[kubernetes]'`")


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the stand-in was asked to run; `kubectl` on the path is the stand-in."""
    folder, program = tmp_path / "cluster", tmp_path / "bin" / "kubectl"
    folder.mkdir()
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__).parent / "kubectl.py"} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("CLUSTER", str(folder))
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    return folder


def script(name: str, *arguments: str) -> str:
    """What a script of the profile prints."""
    done = subprocess.run([ROOT / PROFILE / name, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@with_plugin
@pytest.mark.slow
def test_dry_run(tmp_path: Path) -> None:
    done = dry_run("scenario2", "--profile", PROFILE, "--config", "profile=llava", f"results={tmp_path}")
    assert {"data", "partition", "score", "tables", "draw", *ON_GPU} <= done.rules()
    for job in done.jobs:
        assert job["resources"]["gpu"] == (1 if job["rule_name"] in ON_GPU else 0), job["rule_name"]
    assert "train pilot, seed 0, llava-scenario2 (llava)" in done.text


@with_plugin
@pytest.mark.slow
@pytest.mark.exhaustive
def test_jobs_go_through_the_cluster(tmp_path: Path, cluster: Path) -> None:
    copy = copy_repository(tmp_path / "Müller's clone & more", methods="fedavg")
    arguments = (PARTITION, "--profile", PROFILE, "--retries", "0", "--seconds-between-status-checks", "1")
    configured = ("--latency-wait", "2", "--config", "results=out")
    done = snakemake(*arguments, *configured, folder=copy)
    logs = "".join(path.read_text() for path in cluster.glob("*.log"))
    assert done.code == 0 and (copy / PARTITION).is_file(), done.text + logs
    submitted = [json.loads(path.read_text()) for path in cluster.glob("*.json")]
    jobs = {entry["job"]["metadata"]["labels"]["rule"]: entry["job"]["spec"] for entry in submitted}
    assert set(jobs) == {"data", "partition"}
    container = jobs["partition"]["template"]["spec"]["containers"][0]
    assert container["resources"] == {
        "requests": {"cpu": "1", "memory": "2000M"}, "limits": {"memory": "2000M", "nvidia.com/gpu": "0"},
    }  # fmt: skip
    assert (container["image"], container["workingDir"]) == ("python:3.11", str(copy))
    assert jobs["partition"]["activeDeadlineSeconds"] == 30 * 60
    assert (copy / "out/smoke/smoke/logs/partition.log").exists()

    (copy / PARTITION).unlink()
    (copy / "pilot/data/partition.py").write_text("raise OSError('the volume is full')\n")
    failed = snakemake(*arguments, *configured, folder=copy)
    assert failed.code == 1 and "Error in rule partition" in failed.text
    assert "the volume is full" in (copy / "out/smoke/smoke/logs/partition.log").read_text()


def test_status_and_cancellation(cluster: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Job that nobody knows has failed; one whose cluster is away may still run."""
    for state in ("Complete", "Failed", "Suspended"):
        (cluster / f"{state.lower()}.json").write_text(json.dumps({"state": state}))
    states = {name: script("status.sh", f"job.batch/{name}") for name in ("complete", "failed", "suspended", "gone")}
    assert states == {"complete": "success", "failed": "failed", "suspended": "running", "gone": "failed"}
    script("cancel.sh", "job.batch/failed", "job.batch/suspended")
    assert [path.name for path in cluster.iterdir()] == ["complete.json"]
    monkeypatch.setenv("AWAY", "1")
    assert script("status.sh", "job.batch/complete") == "running"
