"""Flower's grid without Flower's processes: nodes live in this process, every message becomes bytes on its way."""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import pytest
from flwr.app import ArrayRecord, Context, Message, RecordDict
from flwr.app.user_config import UserConfig
from flwr.clientapp import ClientApp
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as Wire
from flwr.supercore.task_identity import TaskIdentity

from pilot.federation.flower import transport as flower_transport

Nodes = Mapping[int, ClientApp]


def inside_flower(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let messages be made, which only a task of Flower's can; wait for nothing for long."""
    monkeypatch.setattr(TaskIdentity, "_run_id", 1)
    monkeypatch.setattr(TaskIdentity, "_node_id", 1)
    monkeypatch.setattr(TaskIdentity, "_task_id", 1)
    monkeypatch.setattr(flower_transport, "MAX_SECONDS_BETWEEN_CHECKS", 0.01)
    monkeypatch.setattr(flower_transport, "POLL_SECONDS", 0.001)
    monkeypatch.setattr(flower_transport, "QUERY_SECONDS", 0.2)


def sent(content: RecordDict) -> RecordDict:
    """Content as it arrives: through Flower's bytes, the names of tensors in reverse order."""
    arrived = recorddict_from_proto(Wire.FromString(recorddict_to_proto(content).SerializeToString()))
    for name, record in list(arrived.array_records.items()):
        arrived[name] = ArrayRecord({key: record[key] for key in sorted(record, reverse=True)})
    return arrived


@dataclass
class GridInProcess:
    """Each message is answered at once by its node's ClientApp."""

    nodes: Nodes
    replies: dict[str, Message] = field(default_factory=dict)
    ids: Iterator[int] = field(default_factory=itertools.count)

    def get_node_ids(self) -> list[int]:
        """All nodes, always."""
        return list(self.nodes)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Hand messages to their nodes; returns their names."""
        names = []
        for message in messages:
            node, kind = message.metadata.dst_node_id, message.metadata.message_type
            arrived = Message(sent(message.content), node, kind)
            for each in (message, arrived):
                each.metadata.__dict__["_message_id"] = f"message {next(self.ids)}"
            answer = self.nodes[node](arrived, Context(1, node, UserConfig(), RecordDict(), UserConfig()))
            names.append(message.metadata.message_id)
            self.replies[names[-1]] = Message(sent(answer.content), reply_to=message)
        return names

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """The answers to these messages, the last first."""
        return [self.replies.pop(name) for name in reversed(list(message_ids)) if name in self.replies]
