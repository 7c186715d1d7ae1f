"""Writes plain data as Python 2's pickler (protocol 2) writes it; the tests may not import a pickler."""

import struct
from typing import Any


def pickled(value: Any) -> bytes:
    """The pickle: ASCII texts as byte strings (Python 2's `str`), other texts as `unicode`."""
    return b"\x80\x02" + _Writer().written(value) + b"."


class _Writer:
    """Counts what was stored in the memo."""

    def __init__(self) -> None:
        self.stored = 0

    def put(self) -> bytes:
        number, self.stored = self.stored, self.stored + 1
        return b"q" + bytes([number]) if number < 256 else b"r" + struct.pack("<I", number)

    def written(self, value: Any) -> bytes:
        if isinstance(value, dict):
            start = b"}" + self.put() + b"("
            return start + b"".join(self.written(key) + self.written(one) for key, one in value.items()) + b"u"
        if isinstance(value, list):
            return b"]" + self.put() + b"(" + b"".join(self.written(one) for one in value) + b"e"
        if isinstance(value, str) and value.isascii():
            return b"U" + bytes([len(value)]) + value.encode("ascii") + self.put()
        if isinstance(value, str):
            data = value.encode("utf-8")
            return b"X" + struct.pack("<I", len(data)) + data + self.put()
        if isinstance(value, int):
            return b"K" + bytes([value]) if 0 <= value < 256 else b"J" + struct.pack("<i", value)
        raise TypeError(type(value))
