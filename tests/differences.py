"""What differs between the files of two runs, short enough for a log."""

from collections.abc import Iterator, Mapping

from safetensors.torch import load

AROUND = 40
"""Bytes that are shown before and after the first that differs."""


def differences(found: Mapping[str, bytes], expected: Mapping[str, bytes]) -> Iterator[str]:
    """A line for every file that only one side has, and for every one that differs."""
    for name in sorted(found.keys() | expected.keys()):
        if name not in expected:
            yield f"{name}: should not be there ({len(found[name])} bytes)"
        elif name not in found:
            yield f"{name}: missing"
        elif found[name] != expected[name]:
            yield f"{name}: {_difference(name, found[name], expected[name])}"


def _difference(name: str, found: bytes, expected: bytes) -> str:
    if name.endswith(".safetensors"):
        return _of_tensors(found, expected)
    first = next((i for i, pair in enumerate(zip(found, expected, strict=False)) if pair[0] != pair[1]), None)
    if first is None:
        return f"{len(found)} bytes, expected {len(expected)}; one is the beginning of the other"
    part = slice(max(0, first - AROUND), first + AROUND)
    return f"from byte {first}: {found[part]!r}, expected {expected[part]!r}"


def _of_tensors(found: bytes, expected: bytes) -> str:
    ours, theirs = load(found), load(expected)
    names = [n for n in ours.keys() & theirs.keys() if ours[n].shape == theirs[n].shape and ours[n].is_floating_point()]
    gaps = {n: (ours[n].double() - theirs[n].double()).abs().max().item() for n in names if ours[n].numel()}
    other = {n: gap for n, gap in gaps.items() if gap}
    if not other:
        return f"other names, shapes, integers or notes: {sorted(ours)[:3]}, expected {sorted(theirs)[:3]}"
    worst = max(other, key=lambda n: other[n])
    return f"{len(other)} of {len(theirs)} tensors, at most by {other[worst]:.3g} ({worst})"
