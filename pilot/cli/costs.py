"""Compute the costs that `pilot-bench list methods` shows, and write them to `costs.json`.

Computing them takes PyTorch and some seconds; listing methods must not. After a change of what a method sends or keeps,
run `python -m pilot.cli.costs`; a test compares the file with the methods.
"""

from typing import Any

from pilot.cli.listing import COSTS, PROFILE, ROUND, SCENARIO
from pilot.config.load import load_profile, load_scenario
from pilot.federation.spec import RunSpec
from pilot.io.atomic import write_json
from pilot.methods.catalogue import METHODS
from pilot.plan.architecture import architecture_of
from pilot.plan.plan import plan_run
from pilot.plan.work import client_bytes
from pilot.registry import method_class


def method_costs(name: str) -> dict[str, Any]:
    """Return a method's groups, traffic and properties from its plan."""
    profile = load_profile(PROFILE)
    planned = plan_run(RunSpec(load_scenario(SCENARIO), profile, name, 0), architecture_of(profile))
    down, up = client_bytes(planned, ROUND)
    return {
        "leaves": list(planned.leaves),
        "stays": list(planned.stays),
        "megabytes_down": down / 1e6,
        "megabytes_up": up / 1e6,
        "upper_bound": planned.upper_bound,
        "one_model": method_class(name).single_model,
        "pooled": planned.pooled,
    }


if __name__ == "__main__":
    write_json(COSTS, {name: method_costs(name) for name in METHODS})
