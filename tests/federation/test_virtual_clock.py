"""The virtual clock by hand; asynchronous runs: FedAvg where nothing is late, and the same bytes after a kill."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot.config.federation import AttackConfig, ClockConfig, DefenceConfig, ParticipationConfig
from pilot.errors import UserError
from pilot.federation.checkpoint import load_progress
from pilot.federation.participation import Participation, schedule, to_json
from pilot.federation.spec import RunSpec
from pilot.federation.training import train_run
from pilot.federation.virtual_clock import asynchronous_rounds, session_time
from pilot.io.atomic import read_jsonl
from pilot.io.checkpoint import load_state
from pilot.methods import averaging
from pilot.methods.base import Mean, State, Update, select, weighted_mean

from ..marks import few_of
from ..small import Small, contents, quiet

ONE = {0: 1, 1: 1}


class Killed(Exception):
    """Raised where a kill would end the process."""


def shown(
    clock: ClockConfig, steps: dict[int, int], rounds: int, seed: int = 0
) -> list[list[tuple[float, list[int], list[int]]]]:
    return [
        [(w.start, [s.client for s in w.sessions], [s.client for s in w.arrivals]) for w in waves]
        for waves in asynchronous_rounds(clock, steps, rounds, seed)
    ]


def test_equal_speeds_are_rounds() -> None:
    found = shown(ClockConfig(), {0: 9, 1: 9, 2: 9}, 2)
    assert [[(start, starting, sorted(arriving)) for start, starting, arriving in waves] for waves in found] == [
        [(0.0, [0, 1, 2], [0, 1, 2])],
        [(9.0, [0, 1, 2], [0, 1, 2])],
    ]


def test_no_client_is_always_the_last_of_those_that_arrive_together() -> None:
    """Over 60 rounds each of 3 clients is the last in 10 to 30; another seed draws another order."""
    orders = [waves[0][2] for waves in shown(ClockConfig(), {0: 9, 1: 9, 2: 9}, 60)]
    assert all(10 <= sum(order[-1] == client for order in orders) <= 30 for client in range(3))
    again, other = (shown(ClockConfig(), {2: 9, 0: 9, 1: 9}, 60, seed) for seed in (0, 1))
    assert [waves[0][2] for waves in again] == orders != [waves[0][2] for waves in other]


def test_a_fast_and_a_slow_client_by_hand() -> None:
    """Client 1 is three times as slow. Arrivals: 0 at 1, 2, 3 and 4; 1 at 3; six in all, so that the last is 0 at 5.

    At 3 both arrive, in a drawn order, and could start again; 1 would arrive at 6, after the end, and does not begin.
    """
    clock = ClockConfig(speeds=(1.0, 1 / 3))
    assert shown(clock, ONE, 3, seed=1) == [
        [(0.0, [0, 1], [0]), (1.0, [0], [0])],
        [(2.0, [0], [0, 1])],
        [(3.0, [0], [0]), (4.0, [0], [0])],
    ]
    rounds = schedule(Participation(clock=clock), [1, 0], 3, 1, ONE, True)
    assert [each.end for each in rounds] == [2.0, 3.0, 5.0] and [each.present for each in rounds] == [
        (0, 1),
        (0,),
        (0,),
    ]
    assert [each.sessions_of(0) for each in rounds] == [2, 1, 2] and [each.sessions_of(1) for each in rounds] == [
        1,
        0,
        0,
    ]
    row = to_json(Participation(clock=clock), 1, rounds)["rounds"][1]
    assert row["waves"] == [{
        "start": 2.0, "end": 3.0, "starts": [{"client": 0, "session": 3, "arrival": 3.0}],
        "arrivals": [{"client": 0, "session": 3, "start": 2.0}, {"client": 1, "session": 1, "start": 0.0}],
    }]  # fmt: skip


def test_delays_are_of_the_clock_alone() -> None:
    clock = ClockConfig(speeds=(2.0,), delays=(1.0, 3.0), seed=4)
    times = [session_time(clock, client, number, 6) for client in range(3) for number in (1, 2)]
    assert all(4 <= time <= 6 for time in times) and len(set(times)) == 6
    assert times[0] == session_time(clock, 0, 1, 6) != session_time(ClockConfig(delays=(1.0, 3.0), seed=5), 0, 1, 6)


@given(
    speeds=st.lists(st.floats(0.1, 10), min_size=1, max_size=4), num_clients=st.integers(1, 6),
    rounds=st.integers(1, 5), high=st.floats(0, 20),
)  # fmt: skip
def test_every_session_starts_and_arrives_once(speeds: list[float], num_clients: int, rounds: int, high: float) -> None:
    clock = ClockConfig(speeds=tuple(speeds), delays=(0.0, high))
    found = asynchronous_rounds(clock, dict.fromkeys(range(num_clients), 3), rounds, 7)
    waves = [wave for each in found for wave in each]
    started = [session for wave in waves for session in wave.sessions]
    arrived = [session for wave in waves for session in wave.arrivals]
    assert len(arrived) == num_clients * rounds and set(started) == set(arrived) and all(found)
    assert [s.arrival for s in arrived] == sorted(s.arrival for s in arrived)
    for client in range(num_clients):
        own = [session for session in started if session.client == client]
        assert [session.number for session in own] == list(range(1, len(own) + 1))
        assert all(a.arrival == b.start for a, b in zip(own, own[1:], strict=False)), "it never waits"
    count = 0
    for each in found:
        count += sum(len(wave.arrivals) for wave in each)
        assert count >= (found.index(each) + 1) * num_clients


def test_synchronous_rounds_wait_for_the_slowest() -> None:
    clock = ClockConfig(speeds=(1.0, 0.5))
    rounds = schedule(Participation(clock=clock), [0, 1], 2, 0, {0: 4, 1: 4})
    assert [each.end for each in rounds] == [8.0, 16.0] and rounds[0].duration == {0: 4.0, 1: 8.0}
    early = schedule(Participation(clock=clock, deadline=6.0), [0, 1], 2, 0, {0: 4, 1: 4})
    assert [each.end for each in early] == [6.0, 12.0] and early[0].late == (1,)
    assert "end" not in schedule(Participation(), [0, 1], 1, 0)[0].to_row(), "no clock, no change"
    assert "clock" not in ParticipationConfig().model_dump()


def test_what_does_not_go_together_is_refused(small: Small, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="clock: expected no stragglers"):
        ParticipationConfig(clock=ClockConfig(), stragglers=0.5)
    with pytest.raises(ValueError, match="delays: expected the smaller bound first"):
        ClockConfig(delays=(2.0, 1.0))
    with pytest.raises(UserError, match=r"participation\.dropout: expected 0\.0 for an asynchronous method"):
        train_run(with_clock(small, "fedasync", dropout=0.5), small.folder, tmp_path, False, quiet)
    spec = with_clock(small, "fedasync")
    federation = spec.profile.federation.model_copy(update={"defence": DefenceConfig(aggregation="median")})
    spec = replace(spec, profile=spec.profile.model_copy(update={"federation": federation}))
    with pytest.raises(UserError, match=r"defence\.aggregation: method fedasync takes updates one by one"):
        train_run(spec, small.folder, tmp_path, False, quiet)


def with_clock(small: Small, method: str, options: Mapping[str, Any] | None = None, **participation: Any) -> RunSpec:
    federation = small.profile.federation.model_copy(update={"participation": ParticipationConfig(**participation)})
    profile = small.profile.model_copy(update={"federation": federation})
    return replace(small.spec(method), profile=profile, options=options or {})


def train(small: Small, spec: RunSpec, target: Path, progress: Callable[[int, int], None] = quiet) -> dict[str, bytes]:
    train_run(spec, small.folder, target, True, progress)
    return contents(target)


@pytest.mark.slow
def test_a_full_buffer_at_equal_speeds_is_fedavg_bit_for_bit(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FedAvg of the same updates with equal weights: its mean takes each with the weight 1."""
    train(small, with_clock(small, "fedbuff", {"buffer": 6}), tmp_path / "fedbuff")

    def equally(updates: Iterable[Update], groups: frozenset[str], mean: Mean) -> State:
        return weighted_mean((select(update.state, groups), 1.0) for update in updates)

    monkeypatch.setattr(averaging, "mean_of_updates", equally)
    train(small, small.spec("fedavg"), tmp_path / "fedavg")
    models = [load_state(tmp_path / name / "checkpoint/round-2/server.safetensors") for name in ("fedbuff", "fedavg")]
    model, expected = ({n: v for n, v in state.items() if "lora" in n or "connector" in n} for state in models)
    assert len(expected) > 10 and {n: v.tolist() for n, v in model.items()} == {
        n: v.tolist() for n, v in expected.items()
    }


CLOCK = ClockConfig(speeds=(1.0, 0.4, 2.5), delays=(0.0, 1.0), seed=3)


@pytest.mark.slow
@pytest.mark.parametrize("method", few_of(["fedbuff"], ["fedasync", "fedasmu"]))
def test_a_killed_run_ends_in_the_same_bytes(small: Small, tmp_path: Path, method: str) -> None:
    """Killed in round 2, in which clients work on what began in round 1; every update is as stale as planned."""
    spec = with_clock(small, method, clock=CLOCK)
    whole = train(small, spec, tmp_path / "whole")

    def kill(done: int, total: int) -> None:
        if (tmp_path / "killed/checkpoint/round-1/complete.json").is_file():
            raise Killed

    with pytest.raises(Killed):
        train(small, spec, tmp_path / "killed", kill)
    before = load_progress(tmp_path / "killed/checkpoint", None)
    assert before is not None and before.round_number == 1 and before.server.per_client, "updates on their way"
    assert train(small, spec, tmp_path / "killed") == whole
    rows = read_jsonl(tmp_path / "whole/rounds.jsonl")
    arrivals = [(row["wave"]["arrivals"], row["aggregation"]["arrivals"]) for row in rows]
    assert all([a["client"] for a in planned] == [a["client"] for a in taken] for planned, taken in arrivals)
    staleness = [each["staleness"] for _, taken in arrivals for each in taken]
    assert len(staleness) == 12 and max(staleness) > 0 and [row["round"] for row in rows][0] == 1
    assert [row["end"] for row in rows] == sorted(row["end"] for row in rows)
    steps = sum(client["steps"] for row in rows for client in row["clients"])
    assert steps == 36 and not any(row["skipped"] for row in rows)


@pytest.mark.slow
def test_a_lost_update_changes_nothing_and_its_client_goes_on(small: Small, tmp_path: Path) -> None:
    spec = with_clock(small, "fedasync", clock=CLOCK)
    attack = AttackConfig(kind="nan", clients=(2,))
    federation = spec.profile.federation.model_copy(update={"attacks": (attack,)})
    spec = replace(spec, profile=spec.profile.model_copy(update={"federation": federation}))
    train(small, spec, tmp_path)
    rows = read_jsonl(tmp_path / "rounds.jsonl")
    taken = [each["client"] for row in rows for each in row["aggregation"]["arrivals"]]
    planned = [each["client"] for row in rows for each in row["wave"]["arrivals"]]
    assert planned.count(2) > 2 and taken == [client for client in planned if client != 2]


@pytest.mark.slow
def test_time_of_synchronous_runs(small: Small, tmp_path: Path) -> None:
    """Three steps a round; the slowest client takes 3 / 0.4 = 7.5."""
    spec = with_clock(small, "fedavg", clock=ClockConfig(speeds=(1.0, 0.4, 2.5)))
    files = train(small, spec, tmp_path)
    assert [row["end"] for row in read_jsonl(tmp_path / "rounds.jsonl")] == [7.5, 15.0]
    same = contents(small.run("fedavg"))
    assert files["checkpoint/round-2/server.safetensors"] == same["checkpoint/round-2/server.safetensors"]
