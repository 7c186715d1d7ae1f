"""Plans of methods for tests, asked at any size."""

from collections.abc import Mapping
from typing import Any

from pilot.methods.base import ClientInfo
from pilot.plan.architecture import Architecture
from pilot.plan.dry_run import dry_run_method
from pilot.plan.miniature import Miniature
from pilot.plan.phases import PlannedMethod
from pilot.registry import make_method

TASKS = ("one", "two", "three")


def planned(
    name: str, architecture: Architecture, rank: int, options: Mapping[str, Any] | None = None, num_clients: int = 9
) -> PlannedMethod:
    """The plan of three rounds with clients of three tasks."""
    clients = [ClientInfo(k, TASKS[k * len(TASKS) // num_clients], TASKS, 0) for k in range(num_clients)]
    return dry_run_method(make_method(name, options or {}), Miniature(architecture, rank, num_clients), clients, 3)
