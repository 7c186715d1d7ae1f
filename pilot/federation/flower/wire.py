"""The JSON part of messages, apart from tensors: a node that only identifies itself must not load PyTorch."""

import json
from collections.abc import Mapping
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, RecordDict


class MalformedMessage(ValueError):
    """A message that does not have the expected form."""


def pack(value: Mapping[str, Any], **records: ArrayRecord) -> RecordDict:
    """Pack one message from a JSON value and tensors by name."""
    return RecordDict({**records, "json": ConfigRecord({"value": json.dumps(value, sort_keys=True)})})


def unpack_json(content: RecordDict) -> dict[str, Any]:
    """Return the JSON value of a message.

    Raises:
        MalformedMessage: there is no readable JSON object.
    """
    try:
        value = json.loads(str(content.config_records["json"]["value"]))
    except (KeyError, ValueError) as error:
        raise MalformedMessage("no readable JSON part") from error
    if not isinstance(value, dict):
        raise MalformedMessage("the JSON part is no object")
    return value
