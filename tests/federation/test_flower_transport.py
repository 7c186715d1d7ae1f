"""Flower's transport against nodes that are away, lie, or send rubbish; no Flower process is started."""

import itertools
import json
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Context, Error, Message, RecordDict
from flwr.app.user_config import UserConfig

from pilot.deployment.app import _without_traceback
from pilot.errors import UserError
from pilot.federation.client import ClientReport, PhaseTask
from pilot.federation.flower import transport as flower_transport
from pilot.federation.flower.messages import from_array_record, pack_result, to_array_record, unpack_result
from pilot.federation.flower.node_app import NodeFolders, locate_folders, make_client_app
from pilot.federation.flower.server import exclusion_messages, serve_context
from pilot.federation.flower.transport import FlowerTransport
from pilot.federation.flower.wire import MalformedMessage, pack, unpack_json
from pilot.federation.node_folder import node_name
from pilot.federation.nodes import prepare_nodes, read_register
from pilot.federation.participant import ClientFailure, ClientResult
from pilot.federation.spec import run_config
from pilot.federation.store import Version
from pilot.methods.base import ClientInfo, Phase, Update

from ..small import Small
from .grid import inside_flower

PHASE = Phase("train", frozenset({"connector"}), frozenset({"connector"}))
REPORT = ClientReport(2, {"total": [1.0]}, {}, 7, {"connector": 2}, 2, 2)
Behave = Callable[[str, dict[str, Any]], RecordDict | str | None]


def result(client: int) -> ClientResult:
    """What an honest node of a client sends."""
    update = Update(client, "task", 3, {"connector.w": torch.tensor([float(client), 0.5])})
    return ClientResult(update, REPORT, Version("r1p0", "0" * 64), 0.1, 10.0)


def honest(client: int) -> Behave:
    """Introduces itself and trains."""
    return lambda kind, asked: (
        pack({"client": client, "refused": ""}) if kind == "hello" else pack_result(result(client))
    )


@dataclass
class FakeGrid:
    """Nodes by id; each answers a message with content, `error`, or nothing. Answers come in reverse order."""

    nodes: dict[int, Behave]
    replies: dict[str, Message] = field(default_factory=dict)
    told: list[tuple[int, str]] = field(default_factory=list)
    most: int = 0
    ids: Iterator[int] = field(default_factory=itertools.count)

    def get_node_ids(self) -> list[int]:
        return list(self.nodes)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        names = []
        for message in messages:
            name = f"message {next(self.ids)}"
            message.metadata.__dict__["_message_id"] = name
            names.append(name)
            node, kind = message.metadata.dst_node_id, message.metadata.message_type.split(".")[-1]
            if kind == "refused":
                self.told.append((node, unpack_json(message.content)["reason"]))
                continue
            answer = self.nodes[node](kind, unpack_json(message.content))
            if isinstance(answer, RecordDict):
                self.replies[name] = Message(answer, reply_to=message)
            elif answer == "error":
                self.replies[name] = Message(Error(code=5, reason="node unavailable"), reply_to=message)
        self.most = max(self.most, len(self.replies))
        return names

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        return [self.replies.pop(name) for name in reversed(list(message_ids)) if name in self.replies]


@pytest.fixture(autouse=True)
def as_a_task_of_flower(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages can be made, and nothing is waited for long."""
    inside_flower(monkeypatch)


def exchange(
    grid: FakeGrid, clients: Iterable[int], steps: Callable[[int], None] = lambda steps: None, **options: Any
) -> list[ClientResult | ClientFailure]:
    """One phase with these clients."""
    tasks = (PhaseTask(ClientInfo(k, "task", ("task",), 0), PHASE, 1, 0, 2, {}) for k in clients)
    transport = FlowerTransport(grid, {"method": "x"}, dict.fromkeys(range(9), "digest"), **options)  # type: ignore[arg-type]
    return list(transport.exchange(tasks, steps))


def clients_of(answers: Iterable[ClientResult | ClientFailure]) -> list[int]:
    """Who answered, in order."""
    return [each.client if isinstance(each, ClientFailure) else each.update.client for each in answers]


def test_answers_come_in_order_and_few_at_a_time() -> None:
    grid = FakeGrid({100 + k: honest(k) for k in (5, 3, 0, 1, 4, 2)})
    answers = exchange(grid, range(6), window=2)
    assert clients_of(answers) == [0, 1, 2, 3, 4, 5]
    assert all(isinstance(each, ClientResult) for each in answers)
    first = answers[3]
    assert isinstance(first, ClientResult) and torch.equal(first.update.state["connector.w"], torch.tensor([3.0, 0.5]))
    assert first.version == Version("r1p0", "0" * 64)
    trained = FakeGrid({100 + k: honest(k) for k in range(6)})
    exchange(trained, range(6), window=6)
    assert grid.most == 6 and trained.most == 6, "greetings of all nodes"


def test_a_node_that_went_away_is_asked_again() -> None:
    count = [0]

    def flaky(kind: str, asked: dict[str, Any]) -> RecordDict | str | None:
        count[0] += kind == "train"
        return "error" if kind == "train" and count[0] < 3 else honest(1)(kind, asked)

    answers = exchange(FakeGrid({10: honest(0), 11: flaky}), [0, 1])
    assert count[0] == 3 and all(isinstance(each, ClientResult) for each in answers)


def test_a_node_that_comes_late_is_waited_for() -> None:
    grid = FakeGrid({10: honest(0)})
    looks = [0]
    original = grid.get_node_ids

    def growing() -> list[int]:
        looks[0] += 1
        if looks[0] == 6:
            grid.nodes[11] = honest(1)
        return original()

    grid.get_node_ids = growing  # type: ignore[method-assign]
    assert all(isinstance(each, ClientResult) for each in exchange(grid, [0, 1], patience=20.0))


def test_patience_ends() -> None:
    def silent(kind: str, asked: dict[str, Any]) -> RecordDict | None:
        return None if kind == "train" else pack({"client": 1, "refused": ""})

    answers = exchange(FakeGrid({10: honest(0), 11: silent}), [0, 1], patience=0.1, limit=0.5)
    assert isinstance(answers[0], ClientResult)
    assert answers[1] == ClientFailure(1, "no answer within 0.5 s"), "its node was there all the time"


def test_a_node_that_is_lost_again_and_again_is_asked_until_the_limit() -> None:
    count = [0]

    def lost(kind: str, asked: dict[str, Any]) -> RecordDict | str:
        count[0] += kind == "train"
        return "error" if kind == "train" else pack({"client": 1, "refused": ""})

    answers = exchange(FakeGrid({10: honest(0), 11: lost}), [0, 1], limit=1.0)
    assert answers[1] == ClientFailure(1, "no answer within 1 s")
    assert 5 <= count[0] <= 12, "each time it is asked after twice the time of before"


def test_a_task_that_kills_whoever_works_on_it_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flower_transport, "MAX_LOSSES", 4)
    deadly: Behave = lambda kind, asked: "error" if kind == "train" else pack({"client": 1, "refused": ""})  # noqa: E731
    done: list[int] = []
    answers = exchange(FakeGrid({10: honest(0), 11: deadly}), [0, 1], done.append)
    assert answers[1] == ClientFailure(1, "no answer: its process was lost 4 times")
    assert done == [2], "only steps that were taken are counted"


def test_a_simulation_with_too_few_nodes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flower_transport, "VIRTUAL_NODES_SECONDS", 0.05)
    transport = FlowerTransport(FakeGrid({10: honest(0), 11: honest(1)}), {}, {})  # type: ignore[arg-type]
    transport.require_nodes(2)
    with pytest.raises(UserError, match="num-supernodes=2: the run has 6 clients, .* Expected num-supernodes=6"):
        transport.require_nodes(6)


RUN = {"scenario": "smoke", "profile": "smoke", "method": "pilot", "seed": 0, "results": "nowhere"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scenario": "smok"}, "scenario: unknown name 'smok'"),
        ({"method": "fedavgg"}, "fedavgg"),
        ({"patiense": 5}, "--run-config: field patiense: unknown name 'patiense'. Did you mean 'patience'"),
        ({"window": 0}, "--run-config: field window: .* greater than or equal to 1"),
        ({"patience": -1}, "--run-config: field patience"),
        ({"seed": "x"}, "--run-config: field seed"),
    ],
)
def test_the_run_configuration_is_checked_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        serve_context(FakeGrid({}), Context(1, 7, UserConfig(), RecordDict(), UserConfig(RUN | change)))  # type: ignore[arg-type]
    assert not any(tmp_path.iterdir())


def test_who_was_left_out_is_said() -> None:
    rows = [{"excluded": []}, *({"excluded": [{"client": 4, "reason": reason}]} for reason in ("NaN", "no answer"))]
    assert exclusion_messages(rows) == ["client 4 was excluded from 2 of 3 phases: no answer"]
    assert exclusion_messages(rows[:1]) == []


def test_a_users_mistake_has_no_traceback_in_flowers_log() -> None:
    record = logging.LogRecord("flwr", 40, "", 1, "%s raised an exception", ("ServerApp",), None)
    record.exc_info = (UserError, UserError("field, what to do"), None)
    assert _without_traceback(record) and record.exc_info is None
    assert record.getMessage() == "ServerApp raised an exception: field, what to do"


def test_nobody_answers() -> None:
    with pytest.raises(UserError, match="no client answered during a whole phase. Start the nodes and resume"):
        exchange(FakeGrid({}), [0, 1], patience=0.2)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (pack({}), "malformed answer: an answer lacks a part"),
        (RecordDict(), "malformed answer: no readable JSON part"),
        (pack_result(result(0)), "malformed answer: it answers for client 0"),
        (pack({"failure": "RuntimeError (its node's log has the text)"}), "RuntimeError (its node's log has the text)"),
    ],
)
def test_rubbish_is_a_failure_of_that_client(answer: RecordDict, reason: str) -> None:
    liar: Behave = lambda kind, asked: answer if kind == "train" else pack({"client": 1, "refused": ""})  # noqa: E731
    answers = exchange(FakeGrid({10: honest(0), 11: liar}), [0, 1])
    assert isinstance(answers[0], ClientResult)
    assert isinstance(answers[1], ClientFailure) and answers[1].reason.startswith(reason)


def test_two_nodes_that_claim_one_client_are_both_refused_and_told() -> None:
    grid = FakeGrid({10: honest(0), 11: honest(1), 12: honest(1)})
    answers = exchange(grid, [0, 1], patience=0.3)
    assert answers[1] == ClientFailure(1, "no answer: no node for 0.3 s")
    assert [node for node, _ in grid.told] == [11, 12]
    assert all("claims client 1, which another node claims as well" in reason for _, reason in grid.told)


def test_whoever_was_first_keeps_its_client() -> None:
    grid = FakeGrid({10: honest(0), 11: honest(1)})
    tasks = [PhaseTask(ClientInfo(k, "task", ("task",), 0), PHASE, 1, 0, 2, {}) for k in (0, 1)]
    transport = FlowerTransport(grid, {}, {}, patience=5.0)  # type: ignore[arg-type]
    assert len(list(transport.exchange(tasks, lambda steps: None))) == 2
    grid.nodes[12] = honest(1)
    transport._last_check = -1e9
    transport._identify_nodes()
    assert grid.told == [(12, "node 12 claims client 1, which another node claims as well")]
    assert len(list(transport.exchange(tasks, lambda steps: None))) == 2


def test_only_damage_is_a_problem_of_a_private_state() -> None:
    """A node that is away, or fails, must not cost the others a finished round."""

    def node(client: int, answer: dict[str, Any]) -> Behave:
        return lambda kind, asked: pack({"client": client, "refused": ""} if kind == "hello" else answer)

    grid = FakeGrid(
        {10: node(0, {"problem": ""}), 11: node(1, {"failure": "OSError"}), 12: node(2, {"problem": "damaged"})}
    )
    version = Version("r1p0", "0" * 64)
    transport = FlowerTransport(grid, {}, {}, patience=0.1)  # type: ignore[arg-type]
    assert transport.verify({0: version, 1: version, 3: version}) == ""
    assert transport.verify({0: version, 2: version}) == "client 2: damaged"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_tensors_arrive_bit_for_bit(dtype: torch.dtype) -> None:
    state = {
        "b.scalar": torch.tensor(1 / 3, dtype=dtype),
        "a.matrix": torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).to(dtype).T,
        "c.empty": torch.empty(0, 2, dtype=dtype),
        "d.special": torch.tensor([float("nan"), float("inf"), -0.0], dtype=dtype),
    }
    back = from_array_record(to_array_record(state))
    assert list(back) == sorted(state)
    for name, value in state.items():
        assert back[name].dtype == dtype and back[name].shape == value.shape
        bits = [each.reshape(-1).contiguous().view(torch.uint8) for each in (back[name], value)]
        assert torch.equal(*bits)


@pytest.mark.parametrize(
    "change", [{"dtype": "object"}, {"stype": "numpy.ndarray"}, {"shape": (3,)}, {"shape": (-2, -1)}]
)
def test_arrays_of_another_form_are_refused(change: dict[str, Any]) -> None:
    record = to_array_record({"w": torch.ones(2)})
    for name, value in change.items():
        setattr(record["w"], name, value)
    with pytest.raises(MalformedMessage):
        from_array_record(record)


def test_results_survive_the_journey() -> None:
    sent = result(4)
    back = unpack_result(pack_result(sent))
    assert torch.equal(back.update.state.pop("connector.w"), sent.update.state.pop("connector.w"))
    assert back == sent


@pytest.fixture(scope="module")
def nodes(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Node folders of the small scenario."""
    folder = tmp_path_factory.mktemp("nodes")
    prepare_nodes(small.scenario, small.folder, folder)
    return folder


def ask(place: NodeFolders, kind: str, value: dict[str, Any]) -> dict[str, Any]:
    """A node's answer to one message."""
    app = make_client_app(lambda context: place)
    context = Context(1, 7, UserConfig(), RecordDict(), UserConfig())
    message = Message(pack(value), 7, kind)
    message.metadata.__dict__["_message_id"] = "m"
    return unpack_json(app(message, context).content)


def asked_of(small: Small, nodes: Path) -> dict[str, Any]:
    """What the server's messages say about the run."""
    spec = small.spec("fedavg")
    register = read_register(spec, nodes)
    config = run_config(spec, vars(spec.make_method()), register.digests)
    known = {str(client): digest for client, digest in register.nodes.items()}
    return {"config": config, "nodes": known, "versions": {}}


def test_a_folder_that_was_moved_away_is_written_again(small: Small, nodes: Path, tmp_path: Path) -> None:
    """The same bytes; where all are there, nothing is written."""
    shutil.copytree(nodes, tmp_path / "nodes")
    shutil.move(tmp_path / "nodes" / node_name(3), tmp_path / "elsewhere")
    prepare_nodes(small.scenario, small.folder, tmp_path / "nodes")
    again = tmp_path / "nodes" / node_name(3)
    names = sorted(path.name for path in again.iterdir())
    assert names == sorted(path.name for path in (tmp_path / "elsewhere").iterdir())
    assert all((again / name).read_bytes() == (tmp_path / "elsewhere" / name).read_bytes() for name in names)
    (again / "records.parquet").write_bytes(b"as it is")
    prepare_nodes(small.scenario, small.folder, tmp_path / "nodes")
    assert (again / "records.parquet").read_bytes() == b"as it is"


def test_a_node_introduces_itself(small: Small, nodes: Path, tmp_path: Path) -> None:
    assert ask(NodeFolders(nodes / node_name(3), tmp_path), "query.hello", asked_of(small, nodes)) == {
        "client": 3,
        "refused": "",
    }


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda asked: asked["config"]["digests"].update(source="f" * 64),
            "source .* here, ffffffffffff at the server",
        ),
        (lambda asked: asked["config"]["digests"].update(backbone="f" * 64), "backbone .* here, ffffffffffff"),
        (lambda asked: asked["config"]["digests"].update(scenario="f" * 64), "scenario .* here, ffffffffffff"),
        (lambda asked: asked["versions"].update(torch="1.0"), "torch .* here, 1.0 at the server"),
        (lambda asked: asked["nodes"].pop("3"), "client 3 is not in this run"),
        (lambda asked: asked["nodes"].update({"3": "f" * 64}), "data .* here, ffffffffffff registered for client 3"),
    ],
)
def test_a_node_that_does_not_fit_says_so_and_does_not_train(
    small: Small,
    nodes: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    change: Callable[[dict[str, Any]], None],
    reason: str,
) -> None:
    asked = json.loads(json.dumps(asked_of(small, nodes)))
    change(asked)
    flower = logging.getLogger("flwr")
    flower.addHandler(caplog.handler)
    try:
        refused = ask(NodeFolders(nodes / node_name(3), tmp_path), "query.hello", asked)["refused"]
        trained = ask(NodeFolders(nodes / node_name(3), tmp_path), "train", asked)
    finally:
        flower.removeHandler(caplog.handler)
    assert re.search(reason, refused)
    assert trained == {"failure": f"refused: {refused}"}
    assert "node of client 3 does not fit the run" in caplog.text
    assert not list(tmp_path.iterdir())


def test_an_error_text_stays_on_the_node(small: Small, nodes: Path, tmp_path: Path) -> None:
    asked = asked_of(small, nodes) | {"round": 1, "phase_index": 0, "phase": "none", "steps": 1}
    asked |= {"base": None, "keep": []}
    answer = ask(NodeFolders(nodes / node_name(3), tmp_path), "train", asked)
    assert answer == {"failure": "KeyError (its node's log has the text)"}


def test_a_node_without_folders_is_told_what_to_say() -> None:
    with pytest.raises(UserError, match=r"--node-config: expected data=.* state="):
        locate_folders(Context(1, 7, UserConfig(), RecordDict(), UserConfig()))


@pytest.mark.slow
@pytest.mark.parametrize("module", ["federation.flower.server", "federation.flower.node_app", "deployment.app"])
def test_nothing_reports_home(module: str) -> None:
    """Flower reads the setting when it is imported, so ours must come first; who wants to report can still say so."""
    show = "import os; from flwr.supercore.telemetry import FLWR_TELEMETRY_ENABLED as on"
    show += "; print(on, os.environ['RAY_USAGE_STATS_ENABLED'])"
    clean = {name: value for name, value in os.environ.items() if "TELEMETRY" not in name and "USAGE" not in name}
    wants = {"FLWR_TELEMETRY_ENABLED": "1"}
    for extra, expected in [({}, "0 0"), *([(wants, "1 0")] if module.endswith("node_app") else [])]:
        command = [sys.executable, "-c", f"import pilot.{module}; {show}"]
        printed = subprocess.run(command, env=clean | extra, capture_output=True, text=True, check=True).stdout
        assert printed.strip() == expected


def test_a_node_that_introduces_itself_does_not_load_pytorch() -> None:
    """A deployment starts a process per message."""
    code = "import sys, pilot.deployment.app; print(sorted({'torch', 'transformers', 'pandas'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
