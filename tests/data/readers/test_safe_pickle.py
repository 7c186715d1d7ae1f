"""Pickles of plain data are read, everything else is refused, and nothing ever runs."""

import base64
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilot.data.readers import safe_pickle
from pilot.data.readers.safe_pickle import InvalidPickle, loads

from .python2 import pickled

PLAIN: dict[str, Any] = {
    "split": "train",
    "ref_id": 7,
    "big": 2**40,
    "neg": -3,
    "f": 1.5,
    "none": None,
    "t": True,
    "l": [1, (2,), ("\xe9", "b"), ()],
    "d": {},
}
# `[PLAIN]`, with the field `bytes` from protocol 3 on, as CPython 3.11's pickler writes it
BY_PROTOCOL = {
    0: "KGxwMAooZHAxClZzcGxpdApwMgpWdHJhaW4KcDMKc1ZyZWZfaWQKcDQKSTcKc1ZiaWcKcDUKTDEwOTk1MTE2Mjc3NzZMCnNWbmVn"
    "CnA2CkktMwpzVmYKcDcKRjEuNQpzVm5vbmUKcDgKTnNWdApwOQpJMDEKc1ZsCnAxMAoobHAxMQpJMQphKEkyCnRwMTIKYShW6Qpw"
    "MTMKVmIKcDE0CnRwMTUKYSh0YXNWZApwMTYKKGRwMTcKc2Eu",
    1: "XXEAfXEBKFgFAAAAc3BsaXRxAlgFAAAAdHJhaW5xA1gGAAAAcmVmX2lkcQRLB1gDAAAAYmlncQVMMTA5OTUxMTYyNzc3NkwKWAMA"
    "AABuZWdxBkr9////WAEAAABmcQdHP/gAAAAAAABYBAAAAG5vbmVxCE5YAQAAAHRxCUkwMQpYAQAAAGxxCl1xCyhLAShLAnRxDChY"
    "AgAAAMOpcQ1YAQAAAGJxDnRxDyllWAEAAABkcRB9cRF1YS4=",
    2: "gAJdcQB9cQEoWAUAAABzcGxpdHECWAUAAAB0cmFpbnEDWAYAAAByZWZfaWRxBEsHWAMAAABiaWdxBYoGAAAAAAABWAMAAABuZWdx"
    "Bkr9////WAEAAABmcQdHP/gAAAAAAABYBAAAAG5vbmVxCE5YAQAAAHRxCYhYAQAAAGxxCl1xCyhLAUsChXEMWAIAAADDqXENWAEA"
    "AABicQ6GcQ8pZVgBAAAAZHEQfXERdWEu",
    3: "gANdcQB9cQEoWAUAAABzcGxpdHECWAUAAAB0cmFpbnEDWAYAAAByZWZfaWRxBEsHWAMAAABiaWdxBYoGAAAAAAABWAMAAABuZWdx"
    "Bkr9////WAEAAABmcQdHP/gAAAAAAABYBAAAAG5vbmVxCE5YAQAAAHRxCYhYAQAAAGxxCl1xCyhLAUsChXEMWAIAAADDqXENWAEA"
    "AABicQ6GcQ8pZVgBAAAAZHEQfXERWAUAAABieXRlc3ESQwH/cRN1YS4=",
    4: "gASVggAAAAAAAABdlH2UKIwFc3BsaXSUjAV0cmFpbpSMBnJlZl9pZJRLB4wDYmlnlIoGAAAAAAABjANuZWeUSv3///+MAWaURz/4"
    "AAAAAAAAjARub25llE6MAXSUiIwBbJRdlChLAUsChZSMAsOplIwBYpSGlClljAFklH2UjAVieXRlc5RDAf+UdWEu",
    5: "gAWVggAAAAAAAABdlH2UKIwFc3BsaXSUjAV0cmFpbpSMBnJlZl9pZJRLB4wDYmlnlIoGAAAAAAABjANuZWeUSv3///+MAWaURz/4"
    "AAAAAAAAjARub25llE6MAXSUiIwBbJRdlChLAUsChZSMAsOplIwBYpSGlClljAFklH2UjAVieXRlc5RDAf+UdWEu",
}
MALICIOUS = {
    "os.system, protocol 0": (b"cos\nsystem\n(S'touch canary'\ntR.", "GLOBAL"),
    "os.system, protocol 2": (b"\x80\x02cos\nsystem\nX\x0c\x00\x00\x00touch canary\x85R.", "GLOBAL"),
    "os.system, protocol 4": (b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0ctouch canary\x85R.", "STACK_GLOBAL"),
    "eval through INST": (b'(S\'open("canary", "w")\'\ni__builtin__\neval\n.', "INST"),
    "a chain of getattr": (b"cbuiltins\ngetattr\n(cos\n__dict__\nS'system'\ntR.", "GLOBAL"),
    "copyreg's reconstructor": (
        b"\x80\x02ccopy_reg\n_reconstructor\n(cposix\nsystem\nc__builtin__\nobject\nNtR.",
        "GLOBAL",
    ),
    "REDUCE of plain values": (b"U\x01aU\x01b\x85R.", "REDUCE"),
    "BUILD of plain values": (b"}}b.", "BUILD"),
    "OBJ": (b"(U\x01ao.", "OBJ"),
    "NEWOBJ": (b"U\x01a)\x81.", "NEWOBJ"),
    "NEWOBJ_EX": (b"\x80\x04U\x01a)}\x92.", "NEWOBJ_EX"),
    "extension registry": (b"\x82\x01.", "EXT1"),
    "extension registry, 2 bytes": (b"\x83\x01\x00.", "EXT2"),
    "extension registry, 4 bytes": (b"\x84\x01\x00\x00\x00.", "EXT4"),
    "persistent id": (b"Pcanary\n.", "PERSID"),
    "binary persistent id": (b"U\x06canaryQ.", "BINPERSID"),
    "out-of-band buffer": (b"\x80\x05\x97.", "NEXT_BUFFER"),
    "a set": (b"\x80\x04\x8f.", "EMPTY_SET"),
    "a byte array": (b"\x80\x05\x96\x01\x00\x00\x00\x00\x00\x00\x00a.", "BYTEARRAY8"),
    "bytes of Python 3 at protocol 2": (
        b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00bX\x06\x00\x00\x00latin1\x86R.",
        "GLOBAL",
    ),
}
MALFORMED = {
    "nothing": b"",
    "no end": b"]",
    "an empty stack": b".",
    "two values": b"NN.",
    "an open mark": b"(N.",
    "no mark": b"]e.",
    "append to a text": b"U\x01aNa.",
    "append without a list": b"Na.",
    "a list below the mark": b"](Na.",
    "item of a list": b"]NNs.",
    "key without value": b"}(Nu.",
    "a list as key": b"}]Ns.",
    "a tuple as key": b"})Ns.",
    "recall of nothing": b"h\x05.",
    "store of nothing": b"q\x00.",
    "a text that says it is longer": b"U\x05ab.",
    "a text of 4 GB": b"X\xff\xff\xff\xffab.",
    "a text of 2^63 bytes": b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7fa.",
    "no UTF-8": b"X\x01\x00\x00\x00\xff.",
    "no number": b"Iabc\n.",
    "an unknown opcode": b"\xfe.",
    "more after the end": b"N.N.",
    "an integer of 800 bits": b"\x8ad" + b"\x7f" * 100 + b".",
    "an integer of 5000 digits": b"L" + b"9" * 5000 + b"L\n.",
}


@pytest.mark.parametrize("protocol", range(6))
def test_plain_data_of_every_protocol(protocol: int) -> None:
    expected = PLAIN if protocol < 3 else PLAIN | {"bytes": b"\xff"}
    assert loads(base64.b64decode(BY_PROTOCOL[protocol])) == [expected]


def test_python_2_texts_are_latin_1() -> None:
    assert loads(b"\x80\x02]q\x00(U\x04caf\xe9q\x01X\x05\x00\x00\x00caf\xc3\xa9q\x02e.") == ["caf\xe9", "caf\xe9"]
    assert loads(b"(lp0\nS'ab'\np1\naI01\naI00\na.") == ["ab", True, False]


def test_values_may_be_shared() -> None:
    found = loads(b"\x80\x02]q\x00(]q\x01K\x01ah\x01e.")
    assert found == [[1], [1]] and found[0] is found[1]


@pytest.mark.parametrize("name", MALICIOUS)
def test_malicious_pickles_are_refused_by_opcode(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data, opcode = MALICIOUS[name]
    with pytest.raises(InvalidPickle, match=rf"opcode {opcode} at byte \d+ does not build plain data"):
        loads(data)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_pickles_are_refused(name: str) -> None:
    with pytest.raises(InvalidPickle):
        loads(MALFORMED[name])


def test_every_truncation_is_refused() -> None:
    data = base64.b64decode(BY_PROTOCOL[2])
    for length in range(len(data)):
        with pytest.raises(InvalidPickle):
            loads(data[:length])


def test_depth_is_limited_without_recursion() -> None:
    assert loads(b"]" * 32 + b"a" * 31 + b".") is not None
    for depth in (33, 200_000):
        with pytest.raises(InvalidPickle, match="nested deeper than 32"):
            loads(b"]" * depth + b"a" * (depth - 1) + b".")
    with pytest.raises(InvalidPickle, match="nested deeper than 32"):
        loads(b")" + b"\x85" * 200_000 + b".")


def test_shared_values_count_towards_depth() -> None:
    # memo 0: a list 20 deep; the outer list holds it, and holds 20 lists around it again
    inner = b"]" * 20 + b"a" * 19 + b"q\x00"
    with pytest.raises(InvalidPickle, match="nested deeper"):
        loads(b"](" + inner + b"]" * 20 + b"h\x00" + b"a" * 20 + b"e.")
    assert len(loads(b"](" + inner + b"]" * 10 + b"h\x00" + b"a" * 10 + b"e.")) == 2


def test_a_memo_bomb_is_refused() -> None:
    # ten lists, each of ten times the list before: 10^10 values in 400 bytes
    bomb = b"]q\x00" + b"".join(
        b"](" + b"h" + bytes([level]) + (b"h" + bytes([level])) * 9 + b"eq" + bytes([level + 1]) for level in range(10)
    )
    with pytest.raises(InvalidPickle, match="more than 20000000 values"):
        loads(b"(" + bomb + b"l.")


def test_cycles_are_refused() -> None:
    for data in (b"]q\x00h\x00a.", b"}q\x00U\x01ah\x00s.", b"]q\x00(]q\x01h\x00ae."):
        with pytest.raises(InvalidPickle, match="contains itself"):
            loads(data)


def test_size_and_number_of_opcodes_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safe_pickle, "MAX_OPCODES", 4)
    assert loads(b"]Na.") == [None]
    with pytest.raises(InvalidPickle, match="more than 4 opcodes"):
        loads(b"]NaNa.")
    monkeypatch.setattr(safe_pickle, "MAX_BYTES", 5)
    with pytest.raises(InvalidPickle, match="larger than 5 bytes"):
        loads(b"]NaNa.")


PLAIN_VALUES = st.recursive(
    st.integers(-(2**31), 2**31 - 1) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


@given(PLAIN_VALUES)
def test_what_was_written_is_read(value: Any) -> None:
    assert loads(pickled(value)) == value


@settings(max_examples=150)
@given(st.data())
def test_mutated_pickles_are_read_or_refused(data: st.DataObject) -> None:
    original = bytearray(base64.b64decode(BY_PROTOCOL[data.draw(st.integers(0, 5))]))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(original) - 1))
        original[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
        original = original or bytearray(b".")
    _read_or_refused(bytes(original))


@settings(max_examples=150)
@given(st.lists(st.sampled_from(b"()]}a.NeKdhqlstu\x85\x86\x87\x88\x94\x00\x01\x02"), max_size=30).map(bytes))
def test_arbitrary_opcodes_are_read_or_refused(data: bytes) -> None:
    _read_or_refused(data + b".")


@given(st.binary(max_size=60))
def test_arbitrary_bytes_are_read_or_refused(data: bytes) -> None:
    _read_or_refused(data)


def _read_or_refused(data: bytes) -> None:
    try:
        value = loads(data)
    except InvalidPickle as error:
        assert 0 < len(str(error)) < 500
        return
    assert _only_plain(value)


def _only_plain(value: Any) -> bool:
    if type(value) in (list, tuple):
        return all(_only_plain(one) for one in value)
    if type(value) is dict:
        return all(_only_plain(key) and _only_plain(one) for key, one in value.items())
    return value is None or type(value) in (str, bytes, int, float, bool)


def test_the_writer_of_these_tests_writes_python_2() -> None:
    # by hand: PROTO 2, EMPTY_LIST, BINPUT 0, MARK, SHORT_BINSTRING "ab", BINPUT 1, BININT1 5, BININT -1, APPENDS, STOP
    assert pickled(["ab", 5, -1]) == b"\x80\x02]q\x00(U\x02abq\x01K\x05J" + struct.pack("<i", -1) + b"e."
