"""Reader of plain-data pickles (RefCOCO's `refs(*).p`) without unpickling: the file can neither run nor import code.

The opcodes, as listed by the standard library's `pickletools`, go through an interpreter that knows only those that
build lists, tuples, dicts, texts, bytes, numbers, Booleans and None. Every other opcode is refused by name:
GLOBAL, STACK_GLOBAL, INST, OBJ, NEWOBJ, REDUCE, BUILD, EXT*, PERSID, BINPERSID and any that a later protocol adds.
Python 2's byte strings become texts as Latin-1. Size, number of opcodes, depth and expanded size are limited and
cycles refused, so that the result is safe to traverse.
"""

import pickletools
from collections.abc import Callable, Iterator
from typing import Any

MAX_BYTES = 128 * 2**20
MAX_OPCODES = 20_000_000
MAX_DEPTH = 32
MAX_EXPANDED = 20_000_000
"""Limit on values reached from the root, each counted as often as it is reached (RefCOCOg: an estimated 3 million)."""


class InvalidPickle(ValueError):
    """Error for bytes that are not a pickle of plain data; the message gives the reason."""


def loads(data: bytes) -> Any:
    """Parse a pickle of plain data and return its value.

    Raises:
        InvalidPickle: an opcode that is not allowed, a truncated or malformed file, a cycle, or an exceeded limit.
    """
    if len(data) > MAX_BYTES:
        raise InvalidPickle(f"it is larger than {MAX_BYTES} bytes")
    machine = _Machine()
    try:
        for number, (opcode, argument, position) in enumerate(pickletools.genops(data)):
            if number >= MAX_OPCODES:
                raise InvalidPickle(f"it has more than {MAX_OPCODES} opcodes")
            step = _STEPS.get(opcode.name)
            if step is None:
                raise InvalidPickle(f"opcode {opcode.name} at byte {position} does not build plain data")
            step(machine, argument)
    except (ValueError, OverflowError) as error:
        raise (
            error if isinstance(error, InvalidPickle) else InvalidPickle(f"it is malformed ({str(error)[:200]})")
        ) from error
    if position != len(data) - 1:
        raise InvalidPickle(f"there is more data after its end at byte {position}")
    value = machine.result()
    _check_shape(value)
    return value


class _Machine:
    """Pickle machine: a stack in segments that begin at marks, and the memo."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.outer: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def top(self) -> Any:
        if not self.stack:
            raise InvalidPickle("it pops from an empty stack")
        return self.stack[-1]

    def pop(self) -> Any:
        value = self.top()
        del self.stack[-1]
        return value

    def mark(self) -> None:
        self.outer.append(self.stack)
        self.stack = []

    def pop_to_mark(self) -> list[Any]:
        if not self.outer:
            raise InvalidPickle("it pops to a missing mark")
        values, self.stack = self.stack, self.outer.pop()
        return values

    def gather(self, make: Callable[[list[Any]], Any]) -> None:
        made = make(self.pop_to_mark())
        self.stack.append(made)

    def extend(self, values: list[Any]) -> None:
        target = self.top()
        if not isinstance(target, list):
            raise InvalidPickle("it appends to a value that is not a list")
        target.extend(values)

    def update(self, values: list[Any]) -> None:
        target = self.top()
        if not isinstance(target, dict):
            raise InvalidPickle("it sets an item of a value that is not a dict")
        target.update(_pairs(values))

    def result(self) -> Any:
        if self.outer or len(self.stack) != 1:
            raise InvalidPickle("it does not end with exactly one value")
        return self.stack[0]


def _pairs(values: list[Any]) -> dict[Any, Any]:
    keys = values[0::2]
    if len(values) % 2 or not all(isinstance(key, str | bytes | int | float | None) for key in keys):
        raise InvalidPickle("a dict has a key without value, or a key that is neither text nor number")
    return dict(zip(keys, values[1::2], strict=True))


def _integer(machine: _Machine, value: int) -> None:
    if value.bit_length() > 64:
        raise InvalidPickle("it has an integer of more than 64 bits")
    machine.stack.append(value)


def _get(machine: _Machine, key: int) -> None:
    if key not in machine.memo:
        raise InvalidPickle(f"it reads memo entry {key}, which was not stored")
    machine.stack.append(machine.memo[key])


def _set_item(machine: _Machine) -> None:
    value, key = machine.pop(), machine.pop()
    machine.update([key, value])


def _tuple(machine: _Machine, length: int) -> None:
    machine.stack.append(tuple([machine.pop() for _ in range(length)][::-1]))


def _nothing(machine: _Machine, argument: Any) -> None:
    """Ignore protocol number, frames and stop, which do not affect the value."""


_Step = Callable[[_Machine, Any], None]

_LITERALS = (
    "BININT", "BININT1", "BININT2", "FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE",
    "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
)  # fmt: skip

_STEPS: dict[str, _Step] = {
    **dict.fromkeys(_LITERALS, lambda machine, value: machine.stack.append(value)),
    **dict.fromkeys(("INT", "LONG", "LONG1", "LONG4"), _integer),
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), _nothing),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _get),
    **dict.fromkeys(
        ("PUT", "BINPUT", "LONG_BINPUT"), lambda machine, key: machine.memo.__setitem__(key, machine.top())
    ),
    "MEMOIZE": lambda machine, _: machine.memo.__setitem__(len(machine.memo), machine.top()),
    "NONE": lambda machine, _: machine.stack.append(None),
    "NEWTRUE": lambda machine, _: machine.stack.append(True),
    "NEWFALSE": lambda machine, _: machine.stack.append(False),
    "MARK": lambda machine, _: machine.mark(),
    "EMPTY_LIST": lambda machine, _: machine.stack.append([]),
    "EMPTY_DICT": lambda machine, _: machine.stack.append({}),
    "EMPTY_TUPLE": lambda machine, _: machine.stack.append(()),
    "LIST": lambda machine, _: machine.gather(list),
    "DICT": lambda machine, _: machine.gather(_pairs),
    "TUPLE": lambda machine, _: machine.gather(tuple),
    "TUPLE1": lambda machine, _: _tuple(machine, 1),
    "TUPLE2": lambda machine, _: _tuple(machine, 2),
    "TUPLE3": lambda machine, _: _tuple(machine, 3),
    "APPEND": lambda machine, _: machine.extend([machine.pop()]),
    "APPENDS": lambda machine, _: machine.extend(machine.pop_to_mark()),
    "SETITEM": lambda machine, _: _set_item(machine),
    "SETITEMS": lambda machine, _: machine.update(machine.pop_to_mark()),
}


def _inside(value: Any) -> Iterator[Any]:
    return iter(value.values() if isinstance(value, dict) else value)


def _check_shape(value: Any) -> None:
    """Refuse cycles, and values that are too deep or too large to traverse; without recursion."""
    if not isinstance(value, list | tuple | dict):
        return
    shapes: dict[int, tuple[int, int]] = {}  # depth and expanded size of finished containers, by identity
    path = [(value, _inside(value))]
    on_path = {id(value)}
    totals = [[1, 1]]
    while path:
        container, rest = path[-1]
        child = next(rest, path)  # `path`, which is never a value of the file, marks the end
        if child is path:
            path.pop()
            on_path.discard(id(container))
            depth, size = totals.pop()
            shapes[id(container)] = (depth, size)
        elif not isinstance(child, list | tuple | dict):
            depth, size = 0, 1
        elif id(child) in on_path:
            raise InvalidPickle("a container contains itself")
        elif id(child) in shapes:
            depth, size = shapes[id(child)]
        else:
            path.append((child, _inside(child)))
            on_path.add(id(child))
            totals.append([1, 1])
            depth, size = 0, 0
        if totals:
            totals[-1] = [max(totals[-1][0], depth + 1), totals[-1][1] + size]
        if len(path) > MAX_DEPTH or depth > MAX_DEPTH or (totals and totals[-1][1] > MAX_EXPANDED):
            raise InvalidPickle(f"it is nested deeper than {MAX_DEPTH} or holds more than {MAX_EXPANDED} values")
