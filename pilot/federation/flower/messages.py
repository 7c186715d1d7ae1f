"""Messages between server and clients, as Flower's own record types; nothing is pickled.

Tensors are sent as raw little-endian bytes with their shape and dtype, in Flower's `ArrayRecord`, so that they arrive
bit for bit as they were sent, in any floating-point dtype. Everything else is one JSON text in a `ConfigRecord`.
"""

import math
from collections.abc import Mapping

import torch
from flwr.app import Array, ArrayRecord, RecordDict

from pilot.federation.client import ClientReport
from pilot.federation.flower.wire import MalformedMessage, pack, unpack_json
from pilot.federation.participant import ClientResult
from pilot.federation.store import Version
from pilot.methods.base import State, Update

RAW = "pilot.raw"
DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16, "float16": torch.float16}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


def to_array_record(state: Mapping[str, torch.Tensor]) -> ArrayRecord:
    """Convert a state to the record that Flower sends, sorted by name.

    Raises:
        ValueError: a tensor's dtype is not floating-point.
    """
    arrays = {}
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        if value.dtype not in NAMES:
            raise ValueError(f"{name}: {value.dtype} cannot be sent, expected one of {', '.join(DTYPES)}")
        data = value.reshape(-1).view(torch.uint8).numpy().tobytes()
        arrays[name] = Array(NAMES[value.dtype], tuple(value.shape), RAW, data)
    return ArrayRecord(arrays)


def from_array_record(record: ArrayRecord) -> State:
    """Restore the state that `to_array_record` packed.

    Raises:
        MalformedMessage: a dtype or form is unknown, or the number of bytes does not match the shape.
    """
    state: State = {}
    for name, array in record.items():
        dtype = DTYPES.get(array.dtype)
        if array.stype != RAW or dtype is None:
            raise MalformedMessage(f"tensor of form {array.stype!r} and dtype {array.dtype!r}")
        if any(size < 0 for size in array.shape) or len(array.data) != math.prod(array.shape) * dtype.itemsize:
            raise MalformedMessage(f"{len(array.data)} bytes for {array.dtype} {tuple(array.shape)}")
        flat = torch.frombuffer(bytearray(array.data), dtype=dtype) if array.data else torch.empty(0, dtype=dtype)
        state[name] = flat.reshape(tuple(array.shape))
    return state


def unpack_state(content: RecordDict, name: str) -> State:
    """Return the state called `name` of a message; empty if there is none."""
    record = content.array_records.get(name)
    return from_array_record(record) if record is not None else {}


def pack_result(result: ClientResult) -> RecordDict:
    """Pack a client's answer: the update's tensors, and a report of numbers."""
    report, update = result.report, result.update
    value = {
        "client": update.client, "task": update.task, "num_examples": update.num_examples,
        "report": vars(report), "version": vars(result.version) if result.version else None,
        "seconds": result.seconds, "peak_memory_mb": result.peak_memory_mb, "releases": result.releases,
        "step_seconds": result.step_seconds,
    }  # fmt: skip
    return pack(value, update=to_array_record(update.state), statistics=to_array_record(update.statistics))


def unpack_result(content: RecordDict) -> ClientResult:
    """Unpack the answer that `pack_result` packed.

    Raises:
        MalformedMessage: a part is missing or has the wrong type.
    """
    value = unpack_json(content)
    try:
        report, version = ClientReport(**value["report"]), value["version"]
        update = Update(
            int(value["client"]), str(value["task"]), value["num_examples"],
            unpack_state(content, "update"), unpack_state(content, "statistics"),
        )  # fmt: skip
        stored = Version(**version) if version else None
        numbers = float(value["seconds"]), float(value["peak_memory_mb"]), int(value["releases"])
        return ClientResult(update, report, stored, *numbers, float(value["step_seconds"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise MalformedMessage(f"an answer lacks a part or has one of another kind ({error})") from error
