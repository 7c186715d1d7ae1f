"""TaskAvg, Clustered, and the bipartition that the latter rests on."""

from collections.abc import Mapping
from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from baselines.clustered import Clustered
from baselines.taskavg import TaskAvg
from baselines.taskavg_plus import TaskAvgPlus
from pilot.methods.base import ClientInfo, PhaseResult, ServerState, Update
from pilot.methods.pilot import Pilot
from pilot.methods.robust import coordinate_median
from pilot.methods.similarity import bipartition

NAME = "connector.a"
CLIENTS = tuple(ClientInfo(client=k, task="vqa", tasks=("vqa", "caption"), seed=0) for k in range(5))


def update(client: int, *values: float, count: int = 1, task: str = "vqa") -> Update:
    return Update(client, task, count, {NAME: torch.tensor(values, dtype=torch.float32)})


def test_taskavg_averages_inside_each_task() -> None:
    # vqa: (1 * 2 + 3 * 6) / 4 = 5; caption: 9 alone. Then vqa 8 alone; caption keeps what it had.
    method = TaskAvg()
    (phase,) = method.phases(1)
    asking = {task: ClientInfo(client=0, task=task, tasks=("vqa", "caption"), seed=0) for task in ("vqa", "caption")}
    assert method.payload(ServerState(), asking["vqa"], phase) == {}
    updates = [update(0, 2.0), update(1, 6.0, count=3), update(2, 9.0, count=7, task="caption")]
    server = method.aggregate(phase, iter(updates), ServerState())
    assert {task: method.payload(server, info, phase)[NAME].tolist() for task, info in asking.items()} == {
        "vqa": [5.0], "caption": [9.0],
    }  # fmt: skip
    assert server.record == {"tasks": {"vqa": [0, 1], "caption": [2]}}
    server = method.aggregate(phase, iter([update(0, 8.0)]), server)
    assert {task: method.payload(server, info, phase)[NAME].tolist() for task, info in asking.items()} == {
        "vqa": [8.0], "caption": [9.0],
    }  # fmt: skip
    assert not method.single_model


def test_momentum_of_each_task_by_hand() -> None:
    """vqa from 1: mean 5, v = 4, x = 5; then mean 8: v = 0.5 * 4 + 3 = 5, x = 10. caption keeps x and v meanwhile."""
    method = TaskAvgPlus(beta=0.5)
    (phase,) = method.phases(1)
    asking = {task: ClientInfo(client=0, task=task, tasks=("vqa", "caption"), seed=0) for task in ("vqa", "caption")}
    server = method.initial_server_state({NAME: torch.ones(1)}, CLIENTS)
    assert method.payload(server, asking["vqa"], phase) == {}
    first = [update(0, 2.0), update(1, 6.0, count=3), update(2, 9.0, count=7, task="caption")]
    server = method.aggregate(phase, iter(first), server)
    assert method.payload(server, asking["vqa"], phase)[NAME].tolist() == [5.0]
    server = method.aggregate(phase, iter([update(0, 8.0)]), server)
    assert method.payload(server, asking["vqa"], phase)[NAME].tolist() == [10.0]
    assert method.payload(server, asking["caption"], phase)[NAME].tolist() == [9.0]
    server = method.aggregate(phase, iter([update(2, 9.0, task="caption")]), server)
    assert method.payload(server, asking["caption"], phase)[NAME].tolist() == [13.0]  # v = 0.5 * 8 + 0


def test_without_options_it_is_taskavg() -> None:
    plain, plus = TaskAvg(), TaskAvgPlus(beta=0.0)
    assert plus.phases(1) == plain.phases(1)
    (phase,) = plain.phases(1)
    updates = [update(0, 2.1), update(1, 6.3, count=3), update(2, 9.7, count=7, task="caption")]
    ours = plus.aggregate(phase, iter(updates), plus.initial_server_state({}, CLIENTS))
    theirs = plain.aggregate(phase, iter(updates), ServerState())
    for task in ("vqa", "caption"):
        info = ClientInfo(client=0, task=task, tasks=("vqa", "caption"), seed=0)
        (one, other) = (method.payload(state, info, phase) for method, state in ((plus, ours), (plain, theirs)))
        assert one.keys() == other.keys() and torch.equal(one[NAME], other[NAME])


def test_an_adapter_of_its_own_stays_on_the_client() -> None:
    method = TaskAvgPlus(beta=0.0, client_adapter=True)
    (phase,) = method.phases(3)
    assert phase.shared == {"text_adapter", "task_adapter"} and phase.trainable == phase.shared | {"client_adapter"}
    names = ("text_adapter.q.lora_B", "task_adapter.w", "client_adapter.w")
    end = {name: torch.ones(1) for name in names}
    sent = method.split_result(phase, CLIENTS[0], PhaseResult(end, end, {}, {}, 1))
    assert sent.shared.keys() == set(names[:2]) and sent.private.keys() == {"client_adapter.w"}


def test_texts_by_distance_and_the_rest_by_task() -> None:
    """Texts 0, 1 | 10, 11 with equal counts: 0 and 1 mix to 0.5, 10 and 11 to 10.5, whatever their tasks."""
    text = "text_adapter.q.lora_B"
    method = TaskAvgPlus(beta=0.0, gap_text=True)
    (phase,) = method.phases(1)
    updates = [
        Update(k, task, 1, {NAME: torch.tensor([float(k)]), text: torch.tensor([[value]])})
        for k, (task, value) in enumerate((("vqa", 0.0), ("caption", 1.0), ("vqa", 10.0), ("caption", 11.0)))
    ]
    server = method.aggregate(phase, iter(updates), method.initial_server_state({}, CLIENTS))
    for k, (task, own, mixed) in enumerate(
        (("vqa", 1.0, 0.5), ("caption", 2.0, 0.5), ("vqa", 1.0, 10.5), ("caption", 2.0, 10.5))
    ):
        payload = method.payload(server, ClientInfo(k, task, ("vqa", "caption"), 0), phase)
        assert payload[NAME].tolist() == [own] and payload[text].item() == pytest.approx(mixed)
    assert server.record["neighbours"]["0"] == [1]
    later = method.aggregate(phase, iter(updates[:2]), server)
    away = method.payload(later, ClientInfo(2, "vqa", ("vqa", "caption"), 0), phase)
    assert away[text].item() == pytest.approx(10.5), "who was away keeps its text adapter"
    newcomer = ClientInfo(9, "vqa", ("vqa", "caption"), 0)
    received = method.newcomer_state(server, newcomer, {text: torch.zeros(1, 1)})
    assert received[text].item() == pytest.approx(0.5), "distances .5, .5, 10.5, 10.5: those before the gap"
    assert TaskAvgPlus().newcomer_state(server, newcomer, {text: torch.zeros(1, 1)}) == {}


def test_momentum_of_texts_by_distance() -> None:
    text = "text_adapter.q.lora_B"
    method = TaskAvgPlus(beta=0.5, gap_text=True)
    (phase,) = method.phases(1)
    updates = [
        Update(k, "vqa", 1, {NAME: torch.zeros(1), text: torch.tensor([[value]])})
        for k, value in enumerate((0.0, 1.0, 10.0, 11.0))
    ]
    server = method.initial_server_state({NAME: torch.zeros(1), text: torch.zeros(1, 1)}, CLIENTS)
    for expected in (0.5, 0.75):
        server = method.aggregate(phase, iter(updates), server)
        payload = method.payload(server, ClientInfo(1, "vqa", ("vqa",), 0), phase)
        assert payload[text].item() == pytest.approx(expected)


@pytest.mark.parametrize("beta", [-0.1, 1.0])
def test_momentum_is_below_one(beta: float) -> None:
    with pytest.raises(ValueError, match="beta: expected a number in"):
        TaskAvgPlus(beta=beta)


def test_tasks_whose_names_begin_alike_are_told_apart() -> None:
    """`vqa.text` would be read as a tensor `text` of `vqa`: names have no dots; `vqa-text` is not of `vqa`."""
    with pytest.raises(ValueError, match="task 'vqa.text': expected a name without dots"):
        ClientInfo(client=0, task="vqa", tasks=("vqa", "vqa.text"), seed=0)
    with pytest.raises(ValueError, match="task 'vqa.text'"):
        ClientInfo(client=0, task="vqa.text", tasks=("vqa",), seed=0)
    tasks, text = ("vqa", "vqa-text"), "text_adapter.q.lora_A"
    infos = [ClientInfo(client=k, task=task, tasks=tasks, seed=0) for k, task in enumerate(tasks)]
    for method, name in ((TaskAvg(), NAME), (Pilot(num_neighbors=1), "task_adapter.w")):
        phase = method.phases(1)[0]
        updates = [Update(k, tasks[k], 1, {name: torch.full((1,), 5.0 + k), text: torch.zeros(1, 1)}) for k in (0, 1)]
        server = method.aggregate(phase, iter(updates), ServerState())
        for info, value in zip(infos, (5.0, 6.0), strict=True):
            received = method.payload(server, info, phase)
            assert received.keys() <= {name, text} and received[name].tolist() == [value]


def test_taskavg_takes_a_robust_mean_inside_tasks() -> None:
    method = TaskAvg()
    (phase,) = method.phases(1)
    updates = [update(0, 2.0), update(1, 3.0), update(2, 1e6), update(3, 7.0, task="caption")]
    server = method.aggregate(phase, iter(updates), ServerState(), coordinate_median)
    assert method.payload(server, CLIENTS[0], phase)[NAME].tolist() == [3.0]


def test_bipartition_by_hand() -> None:
    # 0 and 2 are alike (0.9), so are 1 and 3 (0.8); the closest across are 0 and 3 (0.1).
    similarities = [[1, -0.5, 0.9, 0.1], [-0.5, 1, -0.4, 0.8], [0.9, -0.4, 1, 0.0], [0.1, 0.8, 0.0, 1]]
    assert bipartition(similarities) == ([0, 2], [1, 3], 0.1)
    assert bipartition([[1, -0.3], [-0.3, 1]]) == ([0], [1], -0.3)
    with pytest.raises(ValueError, match="at least 2 rows"):
        bipartition([[1.0]])


@given(st.data())
def test_bipartition_is_optimal(data: st.DataObject) -> None:
    count = data.draw(st.integers(2, 6))
    upper = {pair: data.draw(st.integers(-9, 9)) / 9 for pair in combinations(range(count), 2)}
    similarities = [[1.0 if i == j else upper[min(i, j), max(i, j)] for j in range(count)] for i in range(count)]

    def across(part: set[int]) -> float:
        return max(similarities[i][j] for i in part for j in range(count) if j not in part)

    sizes = range(1, count)
    best = min(across(set(part)) for size in sizes for part in combinations(range(count), size))
    first, second, alpha = bipartition(similarities)
    assert sorted(first + second) == list(range(count)) and first and second and 0 in first
    assert alpha == across(set(first)) == best


def models(method: Clustered, server: ServerState) -> dict[int, list[float]]:
    (phase,) = method.phases(9)
    payloads = {info.client: method.payload(server, info, phase) for info in CLIENTS}
    assert all(payload.keys() <= {NAME} for payload in payloads.values())
    return {client: payload[NAME].tolist() for client, payload in payloads.items() if payload}


def clustered_round(
    method: Clustered, number: int, server: ServerState, values: Mapping[int, tuple[float, float]]
) -> ServerState:
    (phase,) = method.phases(number)
    return method.aggregate(phase, iter(update(k, *value, count=1 + k) for k, value in values.items()), server)


def test_clustered_by_hand() -> None:
    method = Clustered()
    server = method.initial_server_state({NAME: torch.tensor([0.0, 0.0])}, CLIENTS)
    assert models(method, server) == {}
    # Warm-up: FedAvg, weights 1, 2, 3: (1 * 6 + 2 * 0 + 3 * 0, 0 + 0 + 3 * 2) / 6 = (1, 1), for everybody.
    server = clustered_round(method, 1, server, {0: (6, 0), 1: (0, 0), 2: (0, 2)})
    assert models(method, server) == dict.fromkeys(range(5), [1.0, 1.0])
    assert server.record == {"clusters": [[0, 1, 2, 3, 4]], "cuts": []}
    # Round 2, from (1, 1), weights 1, 2, 4, 5 (client 2 is absent): (3, 0), (3, 0), (-3, 0), (-3, 0). The mean is
    # (3 * 3 - 9 * 3) / 12 = -1.5, half of the longest, so below 0.6; across the cut the cosine is -1, and
    # sqrt((1 + 1) / 2) = 1 > 0.5. The parts agree: ratio 1, no further cut. Client 2 joins the first of equal parts.
    values: dict[int, tuple[float, float]] = {0: (4, 1), 1: (4, 1), 3: (-2, 1), 4: (-2, 1)}
    server = clustered_round(method, 2, server, values)
    assert server.record["clusters"] == [[0, 1, 2], [3, 4]]
    first, *later = server.record["cuts"]
    assert first == {
        "clients": [0, 1, 3, 4], "stationarity": pytest.approx(0.5), "cross_similarity": pytest.approx(-1), "cut": True,
    }  # fmt: skip
    alike = {"stationarity": pytest.approx(1), "cross_similarity": pytest.approx(1), "cut": False}
    assert later == [{"clients": [0, 1], **alike}, {"clients": [3, 4], **alike}]
    assert models(method, server) == {0: [4, 1], 1: [4, 1], 2: [4, 1], 3: [-2, 1], 4: [-2, 1]}
    # Round 3: only client 2 is there: its cluster follows, the other one keeps its model.
    server = clustered_round(method, 3, server, {2: (5, 5)})
    assert models(method, server) == {0: [5, 5], 1: [5, 5], 2: [5, 5], 3: [-2, 1], 4: [-2, 1]}


def test_clustered_cuts_recursively_in_one_round() -> None:
    # Of (1, 0), (0, 1), (-1, 0) the mean is (0, 1 / 3) and 0 the least possible cosine across a cut: 0 and 1 against 2,
    # by position. Their mean (1, 1) / 2 has 0.707 of the length of each, below 0.8: they are cut, too.
    method = Clustered(warm_up=0, stationarity=0.8)
    server = method.initial_server_state({NAME: torch.tensor([0.0, 0.0])}, CLIENTS[:3])
    (phase,) = method.phases(1)
    updates = [update(0, 1.0, 0.0), update(1, 0.0, 1.0), update(2, -1.0, 0.0)]
    server = method.aggregate(phase, iter(updates), server)
    assert server.record["clusters"] == [[0], [1], [2]]
    assert [(row["clients"], row["cut"]) for row in server.record["cuts"]] == [([0, 1, 2], True), ([0, 1], True)]
    assert server.record["cuts"][1]["stationarity"] == pytest.approx(0.5**0.5)


@pytest.mark.parametrize("options", [{"stationarity": 0.4}, {"separation": 1.0}, {"warm_up": 5}])
def test_clustered_thresholds_keep_together(options: dict[str, float]) -> None:
    # As in the round above, ratio 0.5 and sqrt((1 + 1) / 2) = 1, which is not above 1.
    method = Clustered(**{"warm_up": 1, **options})  # type: ignore[arg-type]
    server = method.initial_server_state({NAME: torch.tensor([1.0, 1.0])}, CLIENTS)
    server = clustered_round(method, 2, server, {0: (4, 1), 1: (4, 1), 3: (-2, 1), 4: (-2, 1)})
    assert server.record["clusters"] == [[0, 1, 2, 3, 4]]


def test_clustered_does_not_cut_where_nobody_moved() -> None:
    method = Clustered(warm_up=0)
    server = method.initial_server_state({NAME: torch.tensor([1.0, 1.0])}, CLIENTS)
    server = clustered_round(method, 1, server, {k: (1, 1) for k in range(5)})
    assert server.record["clusters"] == [[0, 1, 2, 3, 4]]


def test_clustered_takes_a_robust_mean_inside_clusters() -> None:
    method = Clustered()
    (phase,) = method.phases(1)
    server = method.initial_server_state({NAME: torch.tensor([0.0, 0.0])}, CLIENTS)
    updates = [update(0, 1.0, 1.0), update(1, 3.0, 2.0), update(2, 1e6, 1e6)]
    server = method.aggregate(phase, iter(updates), server, coordinate_median)
    assert models(method, server)[4] == [3.0, 2.0]


@pytest.mark.parametrize("option", ["warm_up", "stationarity", "separation"])
def test_clustered_options_out_of_range(option: str) -> None:
    with pytest.raises(ValueError, match=f"^{option}"):
        Clustered(**{option: -1})  # type: ignore[arg-type]
