"""Transport between the driver and clients over Flower: a simulation's virtual nodes, or SuperNodes on other machines.

A client is identified by the data that its node says it holds, never by Flower's node id. Answers are returned in the
order of the tasks; at most `window` tasks are in progress or waiting to be returned, so the server's memory does not
grow with the number of clients. If a node goes offline, the transport waits for it for `patience` seconds and sends the
task again when it is back. While its node is online, a client may take any time unless `limit` is set: training can
take hours. Steps count as done when their client's answer has arrived.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from pilot.errors import UserError
from pilot.federation.client import PhaseTask
from pilot.federation.flower.messages import to_array_record, unpack_result
from pilot.federation.flower.wire import MalformedMessage, pack, unpack_json
from pilot.federation.participant import ClientFailure
from pilot.federation.store import Version
from pilot.federation.transport import Answer
from pilot.provenance import package_versions

log = logging.getLogger("flwr.pilot")
WINDOW = 16
PATIENCE_SECONDS = 600.0
POLL_SECONDS = 0.1
MAX_SECONDS_BETWEEN_CHECKS = 2.0
QUERY_SECONDS = 120.0
VIRTUAL_NODES_SECONDS = 10.0
MAX_RETRY_SECONDS = 10.0
MAX_LOSSES = 30
"""Losses after which a task is given up: one that kills every worker would be sent again forever. Restarting a Ray
worker costs a handful."""
NO_ANSWER = "no answer"


@dataclass
class _PendingTask:
    """A task that was sent or waits for its node: when it was queued, when its node was last online, losses so far."""

    task: PhaseTask
    queued: float
    last_online: float
    message: str | None = None
    losses: int = 0
    not_before: float = 0.0

    def retry_later(self) -> None:
        """Schedule another attempt, with a growing delay: a dead Ray actor refuses at once until another is free."""
        self.message, self.losses = None, self.losses + 1
        wait = min(POLL_SECONDS * 2**self.losses, MAX_RETRY_SECONDS)
        self.not_before = time.monotonic() + wait


@dataclass
class FlowerTransport:
    """Transport over Flower; see the module docstring.

    Attributes:
        grid: Flower's connection to the nodes of the run.
        config: the run's `config.json`, which every message carries.
        nodes: digest of each client's data, by client.
        window: maximum number of tasks in progress at once.
        patience: seconds after which a client whose node is offline is excluded from the phase.
        limit: total seconds that a client may take for a phase; None for no limit.
    """

    grid: Grid
    config: Mapping[str, Any]
    nodes: Mapping[int, str]
    window: int = WINDOW
    patience: float = PATIENCE_SECONDS
    limit: float | None = None
    parallel: bool = field(default=True, init=False)
    _node_of: dict[int, int] = field(default_factory=dict, init=False)
    _refused: set[int] = field(default_factory=set, init=False)
    _last_check: float = field(default=0.0, init=False)

    def exchange(self, tasks: Iterable[PhaseTask], progress: Callable[[int], None]) -> Iterator[Answer]:
        """Send tasks as capacity allows; yield answers in the order of the tasks.

        Raises:
            UserError: at the end, if no client has answered at all.
        """
        source, order, ready = iter(tasks), list[int](), dict[int, Answer]()
        asked: dict[int, _PendingTask] = {}
        wait, heard, silent = POLL_SECONDS, False, False
        while True:
            while len(order) < self.window and (new := next(source, None)) is not None:
                order.append(new.info.client)
                asked[new.info.client] = _PendingTask(new, time.monotonic(), time.monotonic())
            if not order:
                break
            self._send(asked)
            arrived = self._collect(asked)
            for client, answer in arrived.items():
                task = asked.pop(client).task
                if not isinstance(answer, ClientFailure):
                    progress(task.steps)
                ready[client] = answer
                silent, heard = silent or _is_unanswered(answer), heard or not _is_unanswered(answer)
            while order and order[0] in ready:
                yield ready.pop(order.pop(0))
            wait = POLL_SECONDS if arrived else min(2 * wait, MAX_SECONDS_BETWEEN_CHECKS)
            if asked:
                time.sleep(wait)
        if silent and not heard:
            raise UserError(
                "no client answered during a whole phase. Start the nodes and resume the run; finished rounds are kept."
            )

    def verify(self, versions: Mapping[int, Version], wait: bool = True) -> str:
        """Ask every node to check the private state that it should have; return the problems as text.

        A round is not rejected because a node is offline or does not answer: its client fails later if necessary.
        """
        asked = {}
        if wait:
            self._wait_for(versions.keys())
        for client, version in versions.items():
            if client in self._node_of:
                content = pack({**self._common(), "version": vars(version)})
                asked[client] = Message(content, self._node_of[client], "query.verify")
        replies = self._query(asked)
        for client in versions:
            if "problem" not in replies.get(client, {}):
                log.warning("client %s: no answer to the check of its private state", client)
        problems = {client: str(reply.get("problem", "")) for client, reply in replies.items()}
        return "; ".join(f"client {client}: {problem}" for client, problem in sorted(problems.items()) if problem)

    def require_nodes(self, num_clients: int) -> None:
        """Refuse a simulation with fewer virtual nodes than clients; all of them connect within seconds of its start.

        Raises:
            UserError: there are fewer.
        """
        until = time.monotonic() + VIRTUAL_NODES_SECONDS
        while (there := len(list(self.grid.get_node_ids()))) < num_clients and time.monotonic() < until:
            time.sleep(POLL_SECONDS)
        if there < num_clients:
            raise UserError(
                f"--federation-config num-supernodes={there}: the run has {num_clients} clients, and each needs its "
                f"own node. Expected num-supernodes={num_clients}."
            )

    def _common(self) -> dict[str, Any]:
        nodes = {str(client): digest for client, digest in self.nodes.items()}
        return {"config": self.config, "nodes": nodes, "versions": package_versions()}

    def _send(self, asked: Mapping[int, _PendingTask]) -> None:
        """Send the tasks that are not in progress and whose client's node is online."""
        now = time.monotonic()
        idle = [each for each in asked.values() if each.message is None and each.not_before <= now]
        if not idle:
            return
        if any(each.task.info.client not in self._node_of for each in idle) or self._last_check == 0:
            self._identify_nodes()
        online = set(self.grid.get_node_ids())
        for each in idle:
            node = self._node_of.get(each.task.info.client)
            if node in online:
                message = Message(self._content(each.task), node, "train", group_id=str(each.task.round_number))
                each.message = next(iter(self.grid.push_messages([message])), None)

    def _content(self, task: PhaseTask) -> RecordDict:
        value = {
            **self._common(), "round": task.round_number, "phase_index": task.phase_index, "phase": task.phase.name,
            "steps": task.steps,
            "base": vars(task.base) if task.base else None, "keep": list(task.keep),
        }  # fmt: skip
        return pack(value, payload=to_array_record(task.payload))

    def _collect(self, asked: Mapping[int, _PendingTask]) -> dict[int, Answer]:
        """Collect the answers that have arrived, and failures for clients whose time is up."""
        of_message = {each.message: client for client, each in asked.items() if each.message}
        answers: dict[int, Answer] = {}
        for reply in self.grid.pull_messages(list(of_message)) if of_message else ():
            client = of_message[reply.metadata.reply_to_message_id]
            if reply.has_error():
                log.warning("client %s: task lost (%s); it is sent again", client, reply.error.reason)
                asked[client].retry_later()
                continue
            answers[client] = self._read(client, reply.content)
        online = set(self.grid.get_node_ids())
        for client, each in asked.items():
            if self._node_of.get(client) in online:
                each.last_online = time.monotonic()
            reason = "" if client in answers else self._reason_to_give_up(each)
            if reason:
                log.error("client %s: excluded from the phase: %s", client, reason)
                answers[client] = ClientFailure(client, reason)
        return answers

    def _reason_to_give_up(self, asked: _PendingTask) -> str:
        """Return why the transport stops waiting for a client; empty if it keeps waiting."""
        now = time.monotonic()
        if now - asked.last_online > self.patience:
            return f"{NO_ANSWER}: no node for {self.patience:g} s"
        if self.limit is not None and now - asked.queued > self.limit:
            return f"{NO_ANSWER} within {self.limit:g} s"
        if asked.losses >= MAX_LOSSES:
            return f"{NO_ANSWER}: its process was lost {asked.losses} times"
        return ""

    def _read(self, client: int, content: RecordDict) -> Answer:
        try:
            value = unpack_json(content)
            if "failure" in value:
                log.error("client %s: %s", client, value["failure"])
                return ClientFailure(client, str(value["failure"]))
            result = unpack_result(content)
            if result.update.client != client:
                raise MalformedMessage(f"it answers for client {result.update.client}")
            return result
        except MalformedMessage as error:
            log.error("client %s: malformed answer: %s", client, error)
            return ClientFailure(client, f"malformed answer: {error}")

    def _wait_for(self, clients: Iterable[int]) -> None:
        """Look for nodes until all of `clients` have one, or `patience` seconds are over."""
        wanted, until = set(clients), time.monotonic() + self.patience
        self._identify_nodes()
        while not wanted <= self._node_of.keys() and time.monotonic() < until:
            time.sleep(MAX_SECONDS_BETWEEN_CHECKS)
            self._identify_nodes()

    def _identify_nodes(self) -> None:
        """Ask new nodes to identify themselves; refuse those that do not fit, and tell them."""
        if time.monotonic() - self._last_check < MAX_SECONDS_BETWEEN_CHECKS:
            return
        known = set(self._node_of.values()) | self._refused
        new = [node for node in sorted(self.grid.get_node_ids()) if node not in known]
        replies = self._query({node: Message(pack(self._common()), node, "query.hello") for node in new})
        claims: dict[int, list[int]] = {}
        for node, reply in replies.items():
            reason = reply.get("failure") or reply.get("refused", "")
            if reason:
                self._refuse(node, f"node {node} (client {reply.get('client', 'unknown')}): {reason}")
            else:
                claims.setdefault(int(reply["client"]), []).append(node)
        for client, nodes in sorted(claims.items()):
            if client in self._node_of or len(nodes) > 1:
                for node in sorted(nodes):
                    self._refuse(node, f"node {node} claims client {client}, which another node claims as well")
            else:
                self._node_of[client] = nodes[0]
        self._last_check = time.monotonic()

    def _refuse(self, node: int, reason: str) -> None:
        log.error("refused: %s", reason)
        self._refused.add(node)
        self.grid.push_messages([Message(pack({"reason": reason}), node, "query.refused")])

    def _query(self, messages: Mapping[int, Message]) -> dict[int, dict[str, Any]]:
        """Send messages and return JSON replies by key: `failure` for a malformed reply, no entry for a missing one."""
        keys = list(messages)
        ids = dict(zip(self.grid.push_messages([messages[key] for key in keys]), keys, strict=True)) if keys else {}
        replies: dict[int, dict[str, Any]] = {}
        until = time.monotonic() + QUERY_SECONDS
        while ids and time.monotonic() < until:
            for reply in self.grid.pull_messages(list(ids)):
                key = ids.pop(reply.metadata.reply_to_message_id)
                if not reply.has_error():
                    try:
                        replies[key] = unpack_json(reply.content)
                    except MalformedMessage as error:
                        replies[key] = {"failure": str(error)}
            if ids:
                time.sleep(POLL_SECONDS)
        return replies


def _is_unanswered(answer: Answer) -> bool:
    return isinstance(answer, ClientFailure) and answer.reason.startswith(NO_ANSWER)
