"""The table of methods beside the methods themselves, and what they keep beside real runs."""

from importlib.metadata import EntryPoint
from typing import Any

import pytest
from safetensors import safe_open

from pilot.errors import UserError
from pilot.methods.base import belongs
from pilot.methods.families import METHODS
from pilot.plan import zoo
from pilot.plan.phases import PLAIN, Load
from pilot.plan.zoo import TABLE, planned_method
from pilot.registry import make_method

from ..small import Small

OPTIONS: dict[str, list[dict[str, Any]]] = {
    "clustered": [{"warm_up": 0}, {"warm_up": 2}, {"warm_up": 4}],
    "pilot": [{"stage1": False}, {"cross_task_adapters": False}],
    "fedmoe": [{"num_experts": 6}],
}
CASES = [(name, options) for name in METHODS for options in ({}, *OPTIONS.get(name, []))]


def test_every_method_has_a_plan() -> None:
    assert TABLE.keys() == METHODS.keys()


@pytest.mark.parametrize(("name", "options"), CASES)
def test_plans_say_what_methods_say(name: str, options: dict[str, Any]) -> None:
    """Phases of five rounds with their shares of steps, the groups that leave, and whether one model comes out."""
    method, planned = make_method(name, options), planned_method(name, options, 3, 6)
    for number in range(1, 6):
        phases, expected = method.phases(number), planned.phases(number)
        assert [(phase.name, phase.share) for phase in expected] == [(p.name, p.share_of_steps) for p in phases]
        assert {group for phase in phases for group in phase.shared} == set(planned.leaves)
        assert [phase.distils for phase in expected] == [phase.distils for phase in phases]
        assert [phase.validates for phase in expected] == [phase.validates for phase in phases]
        assert all((phase.folded > 0) is method.offsets for phase in expected)
    assert (planned.one_model, planned.pooled) == (method.single_model, method.pooled)


@pytest.mark.parametrize("name", METHODS)
def test_what_stays(small: Small, name: str) -> None:
    """Every tensor that a client stored belongs to a group that is named, and every group has one."""
    stays = planned_method(name, {}, 3, 6).stays
    stored = set()
    for path in small.run(name).glob("clients/*/*.safetensors"):
        with safe_open(path, "pt") as file:
            stored |= set(file.keys())
    assert all(belongs(tensor, stays) for tensor in stored)
    assert all(any(belongs(tensor, {group}) for tensor in stored) for group in stays)


def test_options_change_what_is_kept() -> None:
    assert planned_method("pilot", {"stage1": False}, 3, 6).stays == ("cross_task_adapter", "router")
    assert planned_method("pilot", {"cross_task_adapters": False}, 3, 6).stays == ("client_adapter", "router")
    # A text adapter per client, or one of all.
    assert planned_method("pilot", {}, 3, 6).server == Load(loras=6, mlps=3)
    assert planned_method("pilot_fedavg_text", {}, 3, 6).server == Load(loras=1, mlps=3)
    assert planned_method("taskavg", {}, 3, 6).server == PLAIN * 3
    assert planned_method("fedmosaic", {}, 3, 6).server == PLAIN * 7


def test_equal_ranks_are_exact() -> None:
    """Unless HetLoRA prunes."""
    assert planned_method("flexlora", {}, 3, 6).upper_bound
    assert not planned_method("flexlora", {"ranks": (1.0,)}, 3, 6).upper_bound
    assert planned_method("hetlora", {"ranks": (1.0,)}, 3, 6).upper_bound
    assert not planned_method("hetlora", {"ranks": (1.0,), "gamma": 1.0}, 3, 6).upper_bound


def test_methods_of_other_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("mine", "elsewhere.method:Mine", "pilot_bench.methods")
    monkeypatch.setattr(zoo, "plugins", lambda: {"mine": point})
    with pytest.raises(UserError, match=r"no plan is known for 'mine', a method of another package \(elsewhere"):
        planned_method("mine", {}, 3, 9)
    with pytest.raises(UserError, match="there is no plan for 'fedsgd'. Expected one of: central, clustered, "):
        planned_method("fedsgd", {}, 3, 9)
