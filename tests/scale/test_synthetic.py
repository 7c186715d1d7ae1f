"""Synthetic clients: whom they depend on, how far apart they are, and that a streaming server holds few of them."""

import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
import torch

from pilot.bench.scale.streaming import ShiftedClients
from pilot.bench.scale.synthetic import ClusteredRows, FileStates, GaussianRows, write_rows
from pilot.federation.client import PhaseTask
from pilot.federation.transport import Answer
from pilot.methods.base import Update, weighted_mean
from pilot.methods.blocks import Rows, StateRows, distance_matrix


def row(rows: Rows, index: int) -> torch.Tensor:
    out = torch.empty(rows.width)
    rows.fill(index, out)
    return out


@pytest.mark.parametrize("kind", ["clustered", "gaussian"])
def test_a_client_depends_on_the_seed_and_itself_only(kind: str) -> None:
    def make(count: int, seed: int) -> Rows:
        return ClusteredRows(count, 50, 0.2, seed) if kind == "clustered" else GaussianRows(count, 50, seed)

    few, many, other = make(3, 0), make(30, 0), make(3, 1)
    assert torch.equal(row(few, 2), row(many, 2)) and torch.equal(row(few, 2), row(few, 2))
    assert not torch.equal(row(few, 2), row(few, 1)) and not torch.equal(row(few, 2), row(other, 2))


def test_distances_between_and_within_tasks() -> None:
    """Squared differences per number: 2 within a task, 2 + 2 * 1.3 ** 2 between tasks, so a ratio of 1.64."""
    distances = distance_matrix(StateRows([{"a": row(ClusteredRows(60, 2000, 0.2, 0), k)} for k in range(60)]))
    same = torch.tensor([[k % 3 == j % 3 for j in range(60)] for k in range(60)]) & ~torch.eye(60, dtype=torch.bool)
    other = torch.tensor([[k % 3 != j % 3 for j in range(60)] for k in range(60)])
    assert float(distances[same].square().mean()) == pytest.approx(2 * 2000, rel=0.15)
    ratio = float((distances[other].square().mean() / distances[same].square().mean()).sqrt())
    assert ratio == pytest.approx(1.64, rel=0.1)


def test_noise_is_what_the_directions_leave() -> None:
    """Without directions, two clients of a task differ by independent numbers of variance 2."""
    rows = ClusteredRows(6, 5000, 1.0, 0)
    difference = row(rows, 0) - row(rows, 3)
    assert float(difference.var()) == pytest.approx(2.0, rel=0.1)
    halves = difference[:2500] * difference[2500:]
    assert abs(float(halves.mean())) < 0.15
    still = ClusteredRows(6, 5000, 0.0, 0)
    rank = torch.linalg.matrix_rank(torch.stack([row(still, k) for k in (0, 3)] + [torch.zeros(5000)]), rtol=1e-4)
    assert int(rank) == 2


def test_files_are_the_rows(tmp_path: Path) -> None:
    rows = GaussianRows(3, 10, 0)
    write_rows(rows, tmp_path)
    states = FileStates(tmp_path, 2)
    assert len(states) == 2 and len(list(states)) == 2
    assert [value.numel() for value in states[1].values()] == [3, 3, 2, 2]
    assert torch.equal(torch.cat(list(states[1].values())), row(rows, 1))
    with pytest.raises(IndexError):
        states[2]


class Watched(ShiftedClients):
    """Counts the updates that are alive whenever another one is made."""

    most = 0

    def exchange(self, tasks: Iterable[PhaseTask], progress: Callable[[int], None]) -> Iterator[Answer]:
        alive: weakref.WeakSet[Update] = weakref.WeakSet()
        answers = super().exchange(tasks, progress)
        while (answer := next(answers, None)) is not None:
            alive.add(Handle(answer.update))  # type: ignore[union-attr, arg-type]
            self.most = max(self.most, len(alive))
            yield answer
            del answer


def Handle(update: Update) -> torch.Tensor:
    """A tensor of the update, by which it can be watched: dataclasses that compare cannot be in a set."""
    return next(iter(update.state.values()))


@pytest.mark.parametrize("count", [5, 40])
def test_the_driver_holds_few_updates_whatever_the_number_of_clients(count: int) -> None:
    clients = Watched(count, 100)
    mean = clients.driver().run(clients.start()).server.shared
    assert clients.error(mean) < 1e-6
    assert 1 <= clients.most <= 4


def test_the_synthetic_mean_would_be_missed() -> None:
    """Two clients, of 100 and 101 examples: 101 / 201 of 1 / 1000 above the model; the model itself is not that."""
    clients = ShiftedClients(2, 100)
    assert clients.error(clients.model) == pytest.approx(101 / 201 / 1000, rel=1e-3)


def test_a_mean_of_means_is_the_mean() -> None:
    """Two levels of servers, each passing on its mean and its number of examples."""
    clients = ShiftedClients(12, 100)
    updates = [(clients.state(k / 1000), clients.num_examples[k]) for k in range(12)]
    below = [updates[:5], updates[5:7], updates[7:]]
    tree = weighted_mean((weighted_mean(part), sum(weight for _, weight in part)) for part in below)
    assert clients.error(tree) < 1e-6
