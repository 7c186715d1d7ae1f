"""Equal compute: the steps that FedAvg's operations buy."""

from pathlib import Path

import pytest

from pilot.config.load import load_profile, load_scenario
from pilot.config.profile import Profile
from pilot.errors import UserError
from pilot.federation.run_inputs import RunInputs
from pilot.federation.spec import RunSpec, run_config
from pilot.plan.budget import run_flops, with_equal_flops
from pilot.runs import inputs
from pilot.runs.inputs import load_run_inputs

from ..small import Small

SCENARIO, PROFILE = load_scenario("scenario2"), load_profile("embedded+equal-flops")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fedavg", "pilot", "fedmoe", "feddat", "central", "flora"])
def test_as_many_steps_as_the_operations_buy(method: str) -> None:
    """One more would cost more than FedAvg's run; FedAvg keeps its own."""
    allowed = run_flops(SCENARIO, PROFILE, "fedavg")
    found = with_equal_flops(SCENARIO, PROFILE, method)
    assert found.local_steps is not None
    more = found.model_copy(update={"local_steps": found.local_steps + 1})
    assert run_flops(SCENARIO, found, method) <= allowed < run_flops(SCENARIO, more, method)
    if method == "fedavg":
        assert found == PROFILE
    if method == "feddat":  # a teacher's pass in every step
        assert found.local_steps < 9


def test_methods_that_train_nothing_keep_the_profile() -> None:
    assert with_equal_flops(SCENARIO, PROFILE, "untuned") is PROFILE


def test_too_few_operations_for_a_step_of_every_phase() -> None:
    profile = PROFILE.model_copy(update={"local_steps": 1})
    with pytest.raises(UserError, match="field budget: the operations of fedavg's 1 local steps do not buy the 2 that"):
        with_equal_flops(SCENARIO, profile, "pilot")


def test_a_method_without_a_plan_is_refused_before_training(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(run: RunSpec, architecture: object) -> None:
        raise UserError("--method fedavg: keeps tensors of a size of which no full size is known")

    monkeypatch.setattr("pilot.plan.budget.plan_run", unknown)
    monkeypatch.setattr(inputs, "load_setting", lambda *names: (small.scenario, flops(small), small.folder))
    with pytest.raises(UserError, match="no full size is known"):
        load_run_inputs("small", "tiny", "fedavg", small.results)


def flops(small: Small) -> Profile:
    """The small profile with the budget of operations."""
    return Profile.model_validate(small.profile.model_dump() | {"budget": "flops", "local_steps": 9})


def test_the_run_says_what_it_took(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps are in the run's profile; budgets of different methods are the same, so that they can be compared."""
    monkeypatch.setattr(inputs, "load_setting", lambda *names: (small.scenario, flops(small), small.folder))
    digests = {"data": "d", "partition": "p", "features": "f"}
    configs = [
        run_config(load_run_inputs("small", "tiny", method, small.results).spec, {}, digests)
        for method in ("fedavg", "feddat")
    ]
    assert configs[0]["budget"] == configs[1]["budget"] == {
        "rounds": 2, "batch_size": 2, "num_clients": 6, "kind": "flops"
    }  # fmt: skip
    steps = [config["profile_config"]["local_steps"] for config in configs]
    assert steps[0] == 9 and steps[1] < 9


def test_engines_that_cannot_compute_it_refuse(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="field budget: flops is for `pilot-bench train`"):
        RunInputs.from_names("scenario2", "embedded+equal-flops", "pilot", 0, tmp_path)
    with pytest.raises(ValueError, match="expected local_steps"):
        Profile.model_validate(PROFILE.model_dump() | {"local_steps": None, "local_epochs": 1})
