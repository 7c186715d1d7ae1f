"""Engines hand states on in different orders of names (Flower sorts them): no method's bytes may depend on it."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pilot.federation.assemble import make_participants
from pilot.federation.client import PhaseTask
from pilot.federation.nodes import Register
from pilot.federation.participant import ClientResult
from pilot.federation.spec import scenario_digests
from pilot.federation.training import CLIENTS, Conduct, conduct
from pilot.federation.transport import Answer, LocalTransport
from pilot.methods.base import State
from pilot.methods.registry import METHODS

from ..small import Small, contents, quiet

EXCHANGING = [name for name, method in METHODS.items() if method.exchanges]
QUICK = ("pilot", "scaffold", "hetlora", "clustered")


def backwards(state: State) -> State:
    """The same tensors, names in reverse order."""
    return {name: state[name] for name in sorted(state, reverse=True)}


class Reordering(LocalTransport):
    """Clients in this process, to whom and from whom states come in another order of names."""

    def exchange(self, tasks: Iterator[PhaseTask], progress: Callable[[int], None]) -> Iterator[Answer]:
        others = (replace(task, payload=backwards(task.payload)) for task in tasks)
        for answer in super().exchange(others, progress):
            assert isinstance(answer, ClientResult)
            yield replace(answer, update=replace(answer.update, state=backwards(answer.update.state)))


@pytest.mark.parametrize("method", [m if m in QUICK else pytest.param(m, marks=pytest.mark.slow) for m in EXCHANGING])
def test_bytes_do_not_depend_on_the_order_of_names(small: Small, tmp_path: Path, method: str) -> None:
    spec = small.spec(method)
    participants = make_participants(
        spec,
        small.backbone,
        small.features,
        small.examples,
        lambda client: tmp_path / CLIENTS / str(client),
        small.validation,
    )
    register = Register(scenario_digests(small.folder), {k: len(v) for k, v in small.examples.items()}, {})
    conduct(Conduct(spec, register, tmp_path, False, quiet), small.backbone, Reordering(participants))
    assert contents(tmp_path) == contents(small.run(method))
