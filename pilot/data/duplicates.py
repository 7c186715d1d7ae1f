"""Exact and near duplicates between training and test images.

Exact: equal sha256 of the normalised files. Near: 64-bit perceptual hashes that differ in at most four bits. The
hash is the DCT variant of pHash (Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010):
32x32 grey values, their two-dimensional DCT-II, of which the 8x8 lowest frequencies are compared with their median.
A plain image (of flat or almost flat colour) has no useful frequencies: its bits would be rounding errors, and all
plain images would look alike. It gets no hash and is only compared exactly; the data card counts such images.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE = 32
LOW = 8
BITS = LOW * LOW
PLAIN = 2.0
"""Standard deviation of the 32x32 grey values (0..255) below which an image counts as plain."""
DISTANCE = 4
_CHUNK = 1 << 20


NUM_EXAMPLES = 10


@dataclass(frozen=True)
class NearDuplicates:
    """Test images that look like training images.

    Attributes:
        num_test: number of test images with a near duplicate in the training data.
        num_train: number of training images with a near duplicate in the test data.
        examples: up to ten (distance in bits, test sha256, train sha256), nearest first.
    """

    num_test: int
    num_train: int
    examples: tuple[tuple[int, str, str], ...]


def perceptual_hash(image: "Image") -> int | None:
    """Return an image's hash, with the lowest frequency in the highest bit; None for a plain image."""
    from PIL import Image as Pictures

    small = image.convert("L").resize((SIDE, SIDE), Pictures.Resampling.BILINEAR)
    values = np.asarray(small, dtype=np.float64)
    if values.std() < PLAIN:
        return None
    rows = _dct_rows()
    low = (rows @ values @ rows.T).ravel()
    bits = low > np.median(low)
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def near_duplicates(
    train: Mapping[str, int | None], test: Mapping[str, int | None], distance: int = DISTANCE
) -> NearDuplicates:
    """Find the test images that are within `distance` bits of a training image.

    Two hashes within d bits agree in at least one of d + 1 bands of bits (pigeonhole). Only pairs that share a band
    are compared: for 100,000 images, a few in ten thousand of all pairs.

    Args:
        train: hash by sha256; None for an image without a hash.
        test: likewise.
        distance: largest number of different bits, 0..63.

    Raises:
        ValueError: `distance` is out of range.
    """
    if not 0 <= distance < BITS:
        raise ValueError(f"distance must be in 0..{BITS - 1}, got {distance}")
    first, members_a = _grouped(test)
    second, members_b = _grouped(train)
    pairs: set[tuple[int, int]] = set()
    for bit, width in _bands(distance + 1):
        mask = np.uint64((1 << width) - 1)
        keys_a, keys_b = ((values >> np.uint64(bit)) & mask for values in (first, second))
        pairs |= _within(first, second, keys_a, keys_b, distance)
    nearest = sorted((int(np.bitwise_count(first[a] ^ second[b])), int(first[a]), int(second[b])) for a, b in pairs)
    return NearDuplicates(
        num_test=sum(len(members_a[value]) for value in {value for _, value, _ in nearest}),
        num_train=sum(len(members_b[value]) for value in {value for _, _, value in nearest}),
        examples=tuple((bits, members_a[x][0], members_b[y][0]) for bits, x, y in nearest[:NUM_EXAMPLES]),
    )


def _grouped(hashes: Mapping[str, int | None]) -> tuple[np.ndarray, dict[int, list[str]]]:
    """Return the distinct hashes in ascending order, and the images of each."""
    members: dict[int, list[str]] = {}
    for name in sorted(hashes):
        if (value := hashes[name]) is not None:
            members.setdefault(value, []).append(name)
    return np.array(sorted(members), dtype=np.uint64), members


def _bands(number: int) -> list[tuple[int, int]]:
    """Return (lowest bit, width) of `number` bands that cover all bits, with widths as even as possible."""
    edges = [BITS * band // number for band in range(number + 1)]
    return [(low, high - low) for low, high in zip(edges, edges[1:], strict=False)]


def _within(
    first: np.ndarray, second: np.ndarray, keys_a: np.ndarray, keys_b: np.ndarray, distance: int
) -> set[tuple[int, int]]:
    """Return positions (in `first`, in `second`) of pairs with equal keys and at most `distance` different bits."""
    order = np.argsort(keys_b, kind="stable")
    ordered = keys_b[order]
    low, high = (np.searchsorted(ordered, keys_a, side=side) for side in ("left", "right"))
    counts = high - low
    pairs: set[tuple[int, int]] = set()
    start = 0
    while start < len(first):
        # Take as many test hashes per step as keep the number of candidates within _CHUNK (at least one hash).
        stop = start + max(1, int(np.searchsorted(np.cumsum(counts[start:]), _CHUNK, side="right")))
        sizes = counts[start:stop]
        a = np.repeat(np.arange(start, stop), sizes)
        within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        b = order[np.repeat(low[start:stop], sizes) + within]
        near = np.bitwise_count(first[a] ^ second[b]) <= distance
        pairs.update(zip(a[near].tolist(), b[near].tolist(), strict=True))
        start = stop
    return pairs


@cache
def _dct_rows() -> np.ndarray:
    """Return the first rows of the orthonormal DCT-II, shape (LOW, SIDE)."""
    frequencies, places = np.arange(LOW)[:, None], np.arange(SIDE)[None, :]
    rows = np.cos(np.pi * (2 * places + 1) * frequencies / (2 * SIDE)) * np.sqrt(2 / SIDE)
    rows[0] /= np.sqrt(2)
    return rows
