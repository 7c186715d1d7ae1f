"""The schedule of a run: by hand, its rates, and that no client's draws depend on another client."""

import itertools
import json
import math
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot.federation import participation
from pilot.federation.participation import JITTER, Participation, RoundSchedule, schedule, to_json

configs = st.builds(
    Participation,
    fraction=st.floats(0.05, 1),
    over_selection=st.floats(0, 2),
    deadline=st.none() | st.floats(1.01, 5),
    dropout=st.floats(0, 0.9),
    stragglers=st.floats(0, 1),
    slowdown=st.floats(1, 6),
)
PINNED = [((0, 1, 6, 7), (0,)), ((2, 5, 6, 7), (2, 7)), ((0, 1, 5, 6), (0,))]
PINNED_DURATIONS = {1: 1.0397700976045559, 6: 1.0948664859780792, 7: 1.0891317252387442}
some_clients = st.lists(st.integers(0, 50), min_size=1, max_size=12, unique=True)


def with_draws(monkeypatch: pytest.MonkeyPatch, draws: Mapping[str, Mapping[int, float]]) -> None:
    """Replace every draw: by purpose and client, 0.5 where nothing is given."""

    class Fixed:
        def __init__(self, value: float) -> None:
            self.value = value

        def random(self) -> float:
            return self.value

    def generator(seed: int, name: str, round_number: int, client: int, purpose: str) -> Fixed:
        assert (seed, name, round_number) == (7, "participation", 1)
        return Fixed(draws.get(purpose, {}).get(client, 0.5))

    monkeypatch.setattr(participation, "generator", generator)


def test_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of clients 0..9, 3 are wanted and 6 asked.

    The six lowest draws of selection are those of 9, 8, 7, 6, 5 and 4. 8 drops out (0.1 < 0.2), 7 does not (0.2).
    9 is a straggler: 3 * (1 + 0.1 * 0.5) = 3.15, after the deadline; the others take 1 + 0.1 * jitter: 7 1.09, 6 1.05,
    5 1.02, 4 1.02. 4 and 5 arrive at once, first by client; then 6; then 7, which is one too many.
    """
    with_draws(
        monkeypatch,
        {
            "selection": {client: (10 - client) / 10 for client in range(10)},
            "dropout": {8: 0.1, 7: 0.2, 0: 0.0},
            "straggler": {9: 0.1, 0: 0.0},
            "jitter": {7: 0.9, 5: 0.2, 4: 0.2},
        },
    )
    config = Participation(fraction=0.3, over_selection=1.0, deadline=3.0, dropout=0.2, stragglers=0.2, slowdown=3.0)
    (only,) = schedule(config, range(10), 1, 7)
    durations = only.duration
    assert durations == {4: 1.02, 5: 1.02, 6: 1.05, 7: 1.09, 9: pytest.approx(3.15)}
    assert only == RoundSchedule(1, (4, 5, 6, 7, 8, 9), (8,), durations, (9,), (7,), (4, 5, 6))
    assert only.to_row() == {
        "round": 1, "selected": [4, 5, 6, 7, 8, 9], "dropped": [8], "late": [9], "unneeded": [7], "present": [4, 5, 6],
        "duration": {"4": 1.02, "5": 1.02, "6": 1.05, "7": 1.09, "9": durations[9]},
    }  # fmt: skip


def test_a_tie_goes_to_the_lower_client(monkeypatch: pytest.MonkeyPatch) -> None:
    with_draws(monkeypatch, {})
    config = Participation(fraction=0.5, over_selection=0.5)
    (only,) = schedule(config, [3, 2, 1, 0], 1, 7)
    assert (only.selected, only.present, only.unneeded) == ((0, 1, 2), (0, 1), (2,))
    # In time means at the deadline or before: all take 1.05.
    for deadline, present in ((1.05, (0, 1)), (1.04, ())):
        (only,) = schedule(Participation(fraction=0.5, deadline=deadline), range(4), 1, 7)
        assert only.present == present and only.late == (() if present else (0, 1))


@pytest.mark.parametrize(
    ("fraction", "over_selection", "num_clients", "wanted", "asked"),
    [
        (1.0, 0.0, 9, 9, 9),
        (1.0, 0.5, 9, 9, 9),  # no more than there are
        (0.5, 0.0, 9, 5, 5),
        (0.01, 0.0, 9, 1, 1),
        (0.1, 0.0, 10, 1, 1),
        (0.07, 0.0, 100, 7, 7),  # 0.07 * 100 = 7.000000000000001 in binary
        (0.5, 0.1, 100, 50, 55),  # 50 * 1.1 = 55.00000000000001
        (0.3, 0.34, 10, 3, 5),  # 4.02
    ],
)
def test_numbers(fraction: float, over_selection: float, num_clients: int, wanted: int, asked: int) -> None:
    config = Participation(fraction=fraction, over_selection=over_selection)
    assert (config.num_wanted(num_clients), config.num_selected(num_clients)) == (wanted, asked)
    for each in schedule(config, range(num_clients), 3, 0):
        assert (len(each.selected), len(each.present)) == (asked, wanted)


def test_with_the_defaults_everybody_is_present() -> None:
    rounds = schedule(Participation(), [5, 0, 2], 4, 1)
    assert [each.round for each in rounds] == [1, 2, 3, 4]
    for each in rounds:
        assert each.selected == each.present == (0, 2, 5)
        assert each.dropped == each.late == each.unneeded == ()
        assert all(1 <= value < 1 + JITTER for value in each.duration.values())


def test_the_stream_of_draws_is_pinned() -> None:
    """A change of these values changes every published schedule."""
    rounds = schedule(Participation(fraction=0.5, dropout=0.3), range(8), 3, 0)
    assert [(each.selected, each.dropped) for each in rounds] == PINNED
    assert rounds[0].duration == pytest.approx(PINNED_DURATIONS, abs=1e-12)


@given(config=configs, clients=some_clients, seed=st.integers(0, 3))
def test_every_client_asked_has_one_place(config: Participation, clients: list[int], seed: int) -> None:
    wanted = config.num_wanted(len(clients))
    for each in schedule(config, clients, 3, seed):
        parts = [each.dropped, each.late, each.unneeded, each.present]
        assert sorted(itertools.chain(*parts)) == list(each.selected) and set(each.selected) <= set(clients)
        assert all(list(part) == sorted(part) for part in parts)
        assert len(each.selected) == config.num_selected(len(clients)) and len(each.present) <= wanted
        assert set(each.duration) == set(each.selected) - set(each.dropped)
        limit = config.deadline or math.inf
        assert all(each.duration[client] > limit for client in each.late)
        assert all(each.duration[client] <= limit for client in (*each.present, *each.unneeded))
        if each.unneeded:
            assert len(each.present) == wanted
            assert max(each.duration[k] for k in each.present) <= min(each.duration[k] for k in each.unneeded)


@given(config=configs, clients=some_clients, seed=st.integers(0, 3), data=st.data())
def test_order_changes_nothing_and_a_seed_does(
    config: Participation, clients: list[int], seed: int, data: st.DataObject
) -> None:
    rounds = schedule(config, clients, 2, seed)
    assert schedule(config, data.draw(st.permutations(clients)), 2, seed) == rounds
    assert schedule(config, clients, 5, seed)[:2] == rounds, "later rounds change no earlier one"
    everyone = Participation()
    assert schedule(everyone, clients, 1, seed) != schedule(everyone, clients, 1, seed + 1)


@given(config=configs, clients=some_clients.filter(lambda ids: len(ids) > 1), seed=st.integers(0, 3), data=st.data())
def test_without_a_client_the_draws_of_the_others_are_the_same(
    config: Participation, clients: list[int], seed: int, data: st.DataObject
) -> None:
    gone = data.draw(st.sampled_from(clients))
    fewer = [client for client in clients if client != gone]
    for before, after in zip(schedule(config, clients, 2, seed), schedule(config, fewer, 2, seed), strict=True):
        for client in set(before.selected) & set(after.selected):
            assert (client in before.dropped) == (client in after.dropped)
            assert before.duration.get(client) == after.duration.get(client)
        # Both ask the first of one ranking, so one set of clients holds the other.
        kept, now = set(before.selected) - {gone}, set(after.selected)
        assert kept <= now or now <= kept


def rate(rounds: list[RoundSchedule], part: str) -> float:
    return sum(len(getattr(each, part)) for each in rounds) / sum(len(each.selected) for each in rounds)


def test_rates_over_many_rounds() -> None:
    """4,000 draws: the standard deviation of a share is at most 0.008; four of them are 0.032."""
    for dropout in (0.1, 0.3, 0.5):
        assert rate(schedule(Participation(dropout=dropout), range(10), 400, 0), "dropped") == pytest.approx(
            dropout, abs=0.032
        )
    slow = schedule(Participation(stragglers=0.25, deadline=2.0), range(10), 400, 0)
    assert rate(slow, "late") == pytest.approx(0.25, abs=0.032)
    chosen = schedule(Participation(fraction=0.3), range(10), 1000, 0)
    for client in range(10):
        share = sum(client in each.selected for each in chosen) / 1000
        assert share == pytest.approx(0.3, abs=4 * (0.3 * 0.7 / 1000) ** 0.5)


def test_drop_out_does_not_depend_on_selection_or_speed() -> None:
    """One draw used for two purposes would tie them together."""
    rounds = schedule(Participation(fraction=0.5, dropout=0.4, stragglers=0.4), range(10), 800, 1)
    assert rate(rounds, "dropped") == pytest.approx(0.4, abs=0.032)
    slow = sum(value >= 4 for each in rounds for value in each.duration.values())
    assert slow / sum(len(each.duration) for each in rounds) == pytest.approx(0.4, abs=0.04)


def test_json() -> None:
    config = Participation(fraction=0.5, deadline=2.0, stragglers=0.2)
    rounds = schedule(config, range(4), 2, 3)
    content = to_json(config, 3, rounds)
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    assert content["options"] == {
        "fraction": 0.5, "over_selection": 0.0, "quorum": 1, "deadline": 2.0, "dropout": 0.0, "stragglers": 0.2,
        "slowdown": 4.0,
    }  # fmt: skip
    assert content["seed"] == 3 and content["rounds"] == [each.to_row() for each in rounds]


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("fraction", (0.0, -0.1, 1.1, math.nan)),
        ("over_selection", (-0.1, math.inf, math.nan)),
        ("quorum", (0, -1, 1.5, True)),
        ("deadline", (0.0, 1.0, math.inf, math.nan)),
        ("dropout", (-0.1, 1.0, math.nan)),
        ("stragglers", (-0.1, 1.1, math.nan)),
        ("slowdown", (0.9, math.inf, math.nan)),
    ],
)
def test_wrong_options_are_named(field: str, wrong: tuple[float, ...]) -> None:
    for value in wrong:
        with pytest.raises(ValueError, match=rf"1 validation error for Participation\n{field}\n"):
            Participation.model_validate({field: value})


def test_a_schedule_that_cannot_work_is_refused() -> None:
    with pytest.raises(ValueError, match=r"participation\.quorum: expected at most 2, .*0.5 of 4.*, got 3"):
        schedule(Participation(fraction=0.5, quorum=3), range(4), 1, 0)
    for clients in ([], [1, 1]):
        with pytest.raises(ValueError, match="clients: expected at least one and each once"):
            schedule(Participation(), clients, 1, 0)
