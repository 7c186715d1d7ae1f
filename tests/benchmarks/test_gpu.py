"""`pilot-bench bench gpu` (docs/llava.md) at toy size on the CPU: every part, what a cut-off leaves, a bare machine."""

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from pilot.bench.gpu import bench, sizes
from pilot.bench.gpu.bench import Check, bench_gpu, compare_memory, loss_difference
from pilot.bench.gpu.parts import OutOfTimeError, UnavailableError, Values, run_parts
from pilot.bench.gpu.sizes import Sizes, full_sizes, quick_sizes
from pilot.bench.scale.model import resize_profile
from pilot.bench.scale.random_round import Stage, Workload
from pilot.cli.main import app
from pilot.config.model import RandomModel
from pilot.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "tests/benchmarks/gpu"
INSTALLED = set((SCRIPTS / "installed.txt").read_text(encoding="utf-8").split())
"""Packages of requirements.lock that the image of the lent machine has beside CUDA, as listed in November 2026."""
CPU = torch.device("cpu")


def ignore(name: str, values: Values) -> None:
    """Take no notice of a finished part."""


@pytest.fixture
def toy() -> Sizes:
    """One layer of width 32, one batch of two examples."""
    given = quick_sizes()
    changes = {"text_layers": 1, "text_hidden": 32, "text_heads": 2, "text_kv_heads": 2, "accumulation": 1}
    small = resize_profile(given.small, changes | {"generation_batch": 2, "prompt_template": "<image>{instruction}"})
    return Sizes(small, small, Workload(8, 2, 1), (64, 3), 3, 1, Workload(8, 2, 1))


@pytest.mark.slow
def test_every_part_is_measured(toy: Sizes, monkeypatch: pytest.MonkeyPatch) -> None:
    """3 clients x 2 examples of a step; 2 prompts whose answers have 3 tokens; a wrong tolerance is a failed check."""
    monkeypatch.setattr(bench, "LOSS_TOLERANCE", {"float32": 1e-4, "bfloat16": -1.0})
    finished: list[str] = []
    report = bench_gpu(toy, 5.0, lambda name, values: finished.append(name))
    assert finished == ["matrix_rate", "losses", "model", "features", "answers", "pilot", "fedavg"]
    assert report["complete"], report["parts"]
    parts = report["parts"]
    assert report["checks"] == {"losses in float32": True, "losses in bfloat16": False}
    assert parts["losses"]["float32"]["relative_difference"] == 0.0, "the CPU beside itself"
    assert parts["answers"]["tokens"] == 6 and parts["features"]["images"] == 2
    assert {name for name in parts["pilot"] if name.startswith("stage")} == {"stage1", "stage2"}
    for stage in (parts["pilot"]["stage1"], parts["pilot"]["stage2"], parts["fedavg"]["train"]):
        assert stage["clients"] == 3 and stage["sequence"] == 1 + 16 + 8
        assert stage["samples_per_second"] == pytest.approx(6 / stage["seconds"], rel=0.05)
        assert stage["share_of_rate"] == pytest.approx(stage["tflops"] / parts["matrix_rate"]["tflops"], rel=0.6)
        assert "CPU" in stage["memory_not_compared"] and "memory" not in stage
    assert report["versions"]["torch"] == torch.__version__ and report["device"]["name"] == "cpu"
    text = bench.as_text(report)
    assert "losses in bfloat16: NOT within" in text and "losses in float32: within" in text


def test_a_round_that_is_cut_off_keeps_its_finished_clients(toy: Sizes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second client of stage 1 is interrupted."""
    check, calls = Check(toy, CPU), []
    real = bench.RandomRound._measure

    def stop(self: Any, trainer: Any, task: Any, stored: Any) -> Any:
        calls.append(task.info.client)
        if len(calls) == 2:
            raise OutOfTimeError
        return real(self, trainer, task, stored)

    monkeypatch.setattr(bench.RandomRound, "_measure", stop)
    parts = {
        "model": check.load,
        "features": check.time_features,
        "pilot": lambda values: check.train_round("pilot", values),
    }
    found = run_parts(parts, 60.0, ignore)["pilot"]
    assert found["status"] == "out of time" and found["stage1"]["clients"] == 1 and "stage2" not in found
    assert found["stage1"]["samples_per_second"] > 0


def test_parts_degrade() -> None:
    """A part that is cut off keeps its values; the rest is not reached. Failures are named and stop nothing."""

    def endless(values: Values) -> None:
        values["before"] = 1
        while True:
            time.sleep(0.01)

    def out_of_memory(values: Values) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nMore lines")

    def without_bfloat16(values: Values) -> None:
        raise UnavailableError("this GPU does not compute in bfloat16")

    def broken(values: Values) -> None:
        raise RuntimeError("CUDA error: no kernel image\nmore")

    def refused(values: Values) -> None:
        raise UserError("profile llava: field device")

    named = {"a": out_of_memory, "b": without_bfloat16, "c": broken, "d": refused, "e": endless, "f": endless}
    seen: list[str] = []
    found = run_parts(named, 0.2, lambda name, values: seen.append(name))
    assert seen == list(named)
    assert [found[name]["status"] for name in named] == [
        "failed", "not reached", "failed", "failed", "out of time", "not reached",
    ]  # fmt: skip
    assert found["a"]["reason"] == "out of memory: CUDA out of memory. Tried to allocate 2 GiB."
    assert found["b"]["reason"] == "this GPU does not compute in bfloat16"
    assert found["c"]["reason"] == "RuntimeError: CUDA error: no kernel image"
    assert found["d"]["reason"] == "profile llava: field device"
    assert found["e"]["before"] == 1 and found["e"]["seconds"] < 5 and "before" not in found["f"]


def test_later_parts_name_what_is_missing(toy: Sizes) -> None:
    check = Check(toy, CPU)
    found = run_parts({"answers": check.time_answers, "features": check.time_features}, 60.0, ignore)
    assert {part["reason"] for part in found.values()} == {"the model was not loaded"}


def test_memory_beside_the_plan() -> None:
    assert compare_memory(23 << 20, 20 << 20) == {
        "planned_mb": 23.0, "measured_mb": 20.0, "planned_share": 1.15, "within": True,
    }  # fmt: skip
    assert not compare_memory(16.9 * 2**20, 20 << 20)["within"]
    assert not compare_memory(23.1 * 2**20, 20 << 20)["within"]


def test_difference_of_losses() -> None:
    def stages(*losses: float | None) -> dict[str, Stage]:
        return {"stage1": Stage(1, losses=[{"total": list(losses)}])}

    assert loss_difference(stages(2.0, 4.0), stages(2.0, 4.4)) == pytest.approx(0.1)
    assert loss_difference(stages(2.0, None), stages(2.0, 4.0)) == float("inf")
    assert loss_difference({}, {}) == float("inf"), "nothing was compared"


def test_sizes() -> None:
    """The full size is LLaVA-1.5-7B's at the batch of its profile, on a GPU; a device is checked."""
    full = full_sizes()
    assert full.profile.architecture == RandomModel(materialise=False) and full.profile.device == "cuda"
    assert (full.profile.batch_size, full.profile.accumulation, full.profile.precision) == (16, 2, "bfloat16")
    assert quick_sizes("cuda").profile.device == "cuda" and quick_sizes().profile.device == "cpu"
    assert full.small.architecture is not None and not full.small.architecture.materialise
    with pytest.raises(UserError, match="device"):
        full_sizes("tpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
def test_without_a_gpu_there_is_one_message() -> None:
    result = CliRunner().invoke(app, ["bench", "gpu"])
    assert isinstance(result.exception, UserError) and "field device: cuda" in str(result.exception)


def test_exit_code_says_whether_all_was_measured(toy: Sizes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "quick_sizes", lambda device: replace(toy, matrix=(8, 1)))
    monkeypatch.setattr(Check, "compare_losses", lambda self, values: time.sleep(30))
    result = CliRunner().invoke(app, ["bench", "gpu", "--quick", "--minutes", "0.01", "--json"])
    assert result.exit_code == 1
    parts = json.loads(result.stdout)["parts"]
    assert parts["matrix_rate"]["status"] == "done" and parts["losses"]["status"] == "out of time"
    assert {parts[name]["status"] for name in ("model", "features", "answers", "pilot", "fedavg")} == {"not reached"}
    assert "matrix_rate: status done" in result.stderr


BLOCKING = """
import sys
from importlib.abc import MetaPathFinder
from importlib.metadata import packages_distributions
allowed = set(sys.argv.pop(1).split(","))
owners = {name: {own.lower().replace("_", "-") for own in owns} for name, owns in packages_distributions().items()}
class Absent(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if "." not in name and name in owners and not owners[name] & allowed:
            print("absent:", name, file=sys.stderr)
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
from pilot.cli.main import main
main()
"""
"""Run the command line as if packages that are not allowed were not installed."""


@pytest.mark.exhaustive
def test_a_bare_machine_needs_only_what_the_script_packs(tmp_path: Path) -> None:
    packed = re.search(r"^packages='(.*)'$", (SCRIPTS / "pack.sh").read_text(encoding="utf-8"), re.MULTILINE)
    assert packed is not None
    names = {name.replace("_", "-") for name in packed[1].split("|")}
    allowed = ",".join(INSTALLED | names | {"pilot-bench"})
    command = [sys.executable, "-c", BLOCKING, allowed, "bench", "gpu", "--quick", "--json"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["complete"]
