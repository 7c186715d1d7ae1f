"""The plan beside what real runs recorded, its advice, and its command."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pilot.cli.main import app
from pilot.config.load import load_profile, load_scenario
from pilot.errors import UserError
from pilot.io.atomic import read_json, write_json
from pilot.methods.catalogue import METHODS as TABLE
from pilot.plan.architecture import architecture_of
from pilot.plan.plan import GPU_CONTEXT, PlanInputs, make_plan, measured_seconds, plan_run
from pilot.plan.work import client_examples

from ..marks import DIFFERENT, few_of
from ..small import Small

METHODS = tuple(TABLE)
BOUNDED = ("fedmoe", "flexlora", "hetlora", "fedilora", "florist", "fedlease")
"""What clients send depends on their choice of experts or on their rank."""


def ask(small: Small, **changes: Any) -> PlanInputs:
    """About the small scenario on a machine of 8 GB."""
    asked = PlanInputs(small.scenario, small.profile, METHODS, 1, 8 * 10**9, 60, 20, None)
    return replace(asked, **changes)


def llava(**changes: Any) -> PlanInputs:
    """About scenario2 with the profile llava on one GPU of 80 GB."""
    asked = PlanInputs(load_scenario("scenario2"), load_profile("llava"), ("pilot",), 1, 80 * 10**9, 128, 32, None)
    return replace(asked, **changes)


@pytest.mark.parametrize(("profile", "tflops"), [("embedded", 0.006), ("smol", 0.06), ("llava", 120.0)])
def test_assumed_throughput_is_that_of_the_device_and_the_llms_width(profile: str, tflops: float) -> None:
    inputs = llava(profile=load_profile(profile))
    assert make_plan(inputs, Path("nowhere"))["assumptions"]["tflops_per_device"] == tflops


def moved(run: Path, number: int, direction: str, client: int) -> int:
    """Bytes that a client's messages of a round had, as the ledger says."""
    return sum(
        sum(message["groups"].values())
        for message in read_json(run / "ledger.json")["messages"]
        if (message["round"], message["direction"], message["client"]) == (number, direction, client)
    )


@pytest.mark.slow
@pytest.mark.parametrize("method", few_of(DIFFERENT, METHODS))
def test_what_runs_recorded(small: Small, method: str) -> None:
    """Steps, what is trained, and every byte up and down; where clients differ, at most what is planned."""
    run = small.run(method)
    ledger = read_json(run / "ledger.json")
    plan = make_plan(ask(small, methods=(method,)), small.root / "nowhere")["methods"][method]
    work = plan["work"]
    assert work["steps"] == ledger["optimiser_steps"]
    table = plan_run(small.spec(method), architecture_of(small.profile))
    trained = [phase.trained for number in (1, 2) for phase in table.phases(number)]
    if method == "fedlease":  # a router's size depends on the number of clusters
        assert max(trained) >= ledger["trainable_parameters"]
    else:
        assert max(trained, default=0) == ledger["trainable_parameters"]
    clients = 1 if method == "central" else 6
    for way in ("down", "up"):
        for index, planned in enumerate(work[way]):
            found = [moved(run, index + 1, way, client) for client in range(clients)]
            if method in BOUNDED:
                assert 0 < min(found) and max(found) <= planned or found == [planned] * clients
            else:
                assert found == [planned] * clients
    total = ledger["totals"]["bytes_up"] + ledger["totals"]["bytes_down"]
    assert work["total_bytes"] >= total if method in BOUNDED else work["total_bytes"] == total
    assert plan["bytes_are_upper_bounds"] is (method in BOUNDED)


@pytest.mark.slow
def test_plan_of_a_variant(small: Small) -> None:
    """Experts of the own task only: no other task's adapter is received."""
    name = "pilot+own-expert"
    work = make_plan(ask(small, methods=(name,)), small.root / "nowhere")["methods"][name]["work"]
    totals = read_json(small.run(name) / "ledger.json")["totals"]
    assert work["total_bytes"] == totals["bytes_up"] + totals["bytes_down"]


def test_bounds_are_reached(small: Small) -> None:
    """FedMoE's first round has all experts; clients 2 and 5 of FlexLoRA have the full rank, the others less."""
    for method, rounds, reached in (("fedmoe", (1,), {0, 1, 2, 3, 4, 5}), ("flexlora", (1, 2), {2, 5})):
        work = make_plan(ask(small, methods=(method,)), small.root / "nowhere")["methods"][method]["work"]
        for number in rounds:
            for way in ("down", "up"):
                found = [moved(small.run(method), number, way, client) for client in range(6)]
                most = work[way][number - 1]
                assert {client for client, size in enumerate(found) if size == most} == reached, (method, number, way)


@pytest.mark.slow
@pytest.mark.parametrize("method", few_of([*DIFFERENT, "pilot+no-stage1"], METHODS))
def test_disk(small: Small, method: str) -> None:
    """Bytes of tensors in all kept checkpoints; a safetensors file has a header of under 200 bytes a tensor beside."""
    run = small.run(method)
    work = make_plan(ask(small, methods=(method,)), small.root)["methods"][method]["work"]
    for files, planned in (
        (list(run.glob("checkpoint/round-*/server.safetensors")), work["server_disk"]),
        (list(run.glob("clients/*/*.safetensors")), work["client_disk"]),
    ):
        found = sum(path.stat().st_size for path in files)
        headers = sum(int.from_bytes(path.read_bytes()[:8], "little") + 8 for path in files)
        if method in ("florist", "fedlease", "disco"):  # a step's rank and the number of clusters depend on training
            assert found - headers <= planned
        else:
            assert found - headers == planned


def test_features_on_disk(small: Small) -> None:
    """An image in two records is stored once."""
    features = make_plan(ask(small, methods=()), small.root)["features"]
    stored = sum(path.stat().st_size for path in (small.folder / "features").glob("*.npy"))
    assert features["images"] == 40 + 36 + 44 + 24
    assert 0 < stored <= features["bytes"] + 128 * len(list((small.folder / "features").glob("*.npy")))


def test_features_under_conditions(small: Small) -> None:
    """A test image is seen as it is and under each of two conditions: `tests/data/test_conditions.py` counts them."""
    asked = ask(small, methods=())
    scenario = asked.scenario.model_copy(update={"conditions": (("blur",), ("noise",))})
    assert make_plan(replace(asked, scenario=scenario), small.root)["features"]["images"] == 40 + 36 + 44 + 3 * 24


def test_examples_are_split_evenly(small: Small) -> None:
    """40 over two clients, less a fifth."""
    assert client_examples(small.scenario) == [16, 16, 15, 15, 18, 18]


def test_epochs() -> None:
    """One epoch of 400 examples in steps of 32 is 13; nine clients, three rounds. Pooled: 3,600 are 113 steps."""
    plan = make_plan(llava(methods=("pilot", "fedavg", "central")), Path("nowhere"))
    assert client_examples(llava().scenario) == [400] * 9
    assert plan["methods"]["fedavg"]["work"]["steps"] == plan["methods"]["pilot"]["work"]["steps"] == 13 * 9 * 3
    assert plan["methods"]["central"]["work"]["steps"] == 113 * 3


def test_llava_fits_80_gb() -> None:
    plan = make_plan(llava(), Path("nowhere"))
    method = plan["methods"]["pilot"]
    assert plan["parameters"] == 7_063_427_072 and method["fits"] and method["changes"] == []
    stage2 = method["memory"]["stage2"]
    assert stage2["weights"] == 2 * 7_063_427_072
    # LoRA, three task and cross-task adapters that are trained, three connectors that are not, the router.
    assert stage2["masters"] == 4 * (159_907_840 + 6 * 20_979_712 + 3 * 1024)
    assert method["device_bytes"] == -(-stage2["peak"] * 105 // 100) + GPU_CONTEXT
    assert plan["features"]["bytes_per_image"] == 576 * 1024 * 2
    assert method["work"]["down"][1] == 4 * (159_907_840 + 3 * 20_979_712)
    assert method["work"]["up"][1] == 4 * (159_907_840 + 20_979_712)
    # LoRA of 9 clients and 3 task adapters, in two checkpoints.
    assert method["work"]["server_disk"] == 2 * 4 * (9 * 159_907_840 + 3 * 20_979_712)


def test_more_gpus_are_faster_until_there_are_no_clients() -> None:
    hours = [make_plan(llava(gpus=gpus), Path("nowhere"))["methods"]["pilot"]["hours"] for gpus in (1, 3, 9, 12)]
    assert hours[0] == pytest.approx(3 * hours[1]) and hours[2] == hours[3] == pytest.approx(hours[0] / 9)
    twice = make_plan(llava(tflops=240.0), Path("nowhere"))["methods"]["pilot"]["hours"]
    assert twice == pytest.approx(hours[0] / 2)


def test_advice_ends_when_it_fits() -> None:
    """Without checkpointing the activations are the most; one change after the other, each with what it leaves."""
    profile = load_profile("llava").model_copy(update={"gradient_checkpointing": False, "precision": "float32"})
    method = make_plan(llava(profile=profile), Path("nowhere"))["methods"]["pilot"]
    assert not method["fits"] and method["device_bytes"] > 80 * 10**9
    assert [change["change"] for change in method["changes"]] == ["gradient_checkpointing: true"]
    assert method["changes"][-1]["fits"] and method["changes"][-1]["device_bytes"] <= 80 * 10**9
    least = make_plan(llava(profile=profile, memory=20 * 10**9), Path("nowhere"))["methods"]["pilot"]["changes"]
    assert [change["change"] for change in least] == [
        "gradient_checkpointing: true", "precision: bfloat16, feature_dtype: bfloat16",
        "batch_size: 8, accumulation: 4", "batch_size: 4, accumulation: 8", "batch_size: 2, accumulation: 16",
        "batch_size: 1, accumulation: 32",
    ]  # fmt: skip
    sizes = [change["device_bytes"] for change in least]
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == len(sizes)
    assert [change["fits"] for change in least] == [False] * len(least)


def test_measured_times_are_used(tmp_path: Path) -> None:
    """Two runs of 10 and 30 steps at 2 and 4 seconds each; an unfinished one counts for nothing."""
    assert measured_seconds(tmp_path) is None
    for seed, (steps, seconds) in enumerate([(10, 20.0), (30, 120.0), (10, 1000.0)]):
        write_json(tmp_path / f"seed{seed}/timing.json", {"train_seconds": seconds})
        write_json(tmp_path / f"seed{seed}/ledger.json", {"optimiser_steps": steps})
        if seed < 2:
            write_json(tmp_path / f"seed{seed}/manifest.json", {})
    assert measured_seconds(tmp_path) == 3.0


def test_command(small: Small) -> None:
    """The issue's own line, and the small scenario after a run."""
    line = ["plan", "--profile", "llava", "scenario2", "--gpus", "1", "--memory", "80", "-m", "pilot"]
    result = CliRunner().invoke(app, line)
    assert result.exit_code == 0 and "pilot: fits, " in result.output and "7063.4 million" in result.output
    small.run("fedavg")
    where = ["-p", str(small.profile_file), "--results", str(small.results)]
    made = CliRunner().invoke(app, ["plan", str(small.scenario_file), *where, "-m", "fedavg", "-m", "local", "--json"])
    plan = json.loads(made.output)["methods"]
    assert list(plan) == ["fedavg", "local"] and plan["fedavg"]["measured_hours"] > 0
    tight = CliRunner().invoke(app, ["plan", "-p", "llava", "scenario2", "-m", "pilot", "--memory", "12"])
    assert "pilot: DOES NOT FIT, " in tight.output and "This still does not fit" in tight.output
    wrong = CliRunner().invoke(app, ["plan", "scenario2", "-m", "fedagv"])
    assert isinstance(wrong.exception, UserError) and "Did you mean 'fedavg'?" in str(wrong.exception)
