"""The JSON part of messages, without what tensors need: a node that only says who it is must not load PyTorch."""

import json
from collections.abc import Mapping
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, RecordDict


class MalformedMessage(ValueError):
    """A message that is not of the agreed form."""


def pack(value: Mapping[str, Any], **records: ArrayRecord) -> RecordDict:
    """One message: a JSON value, and tensors by name."""
    return RecordDict({**records, "json": ConfigRecord({"value": json.dumps(value, sort_keys=True)})})


def unpack_json(content: RecordDict) -> dict[str, Any]:
    """The JSON value of a message.

    Raises:
        MalformedMessage: there is none.
    """
    try:
        value = json.loads(str(content.config_records["json"]["value"]))
    except (KeyError, ValueError) as error:
        raise MalformedMessage("no readable JSON part") from error
    if not isinstance(value, dict):
        raise MalformedMessage("the JSON part is no object")
    return value
