"""Perceptual hashes by hand and on changed pictures, and the search for near duplicates against all pairs."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from pilot.data.duplicates import NearDuplicates, near_duplicates, perceptual_hash

from .pictures import encoded, pixels


def hash_of(image: Image.Image) -> int:
    """The hash of a picture that has one."""
    found = perceptual_hash(image)
    assert found is not None
    return found


def distance(first: int, second: int) -> int:
    """Number of different bits."""
    return (first ^ second).bit_count()


def test_hash_of_one_frequency() -> None:
    """A cosine over the width with two half waves: only the DC and the coefficient (0, 2) are above the median."""
    wave = 128 + 100 * np.cos(np.pi * (2 * np.arange(32) + 1) * 2 / 64)
    values = np.broadcast_to(wave.round().astype(np.uint8), (32, 32))
    bits = f"{hash_of(Image.fromarray(np.ascontiguousarray(values))):064b}"
    assert bits[0] == "1" and bits[2] == "1"  # coefficients (0, 0) and (0, 2)
    # Rounding to whole grey values leaves errors below 1 in the first row; the others are zero up to 1e-12.
    inverse = f"{hash_of(Image.fromarray(255 - values)):064b}"
    assert inverse[0] == "1" and inverse[2] == "0"


def test_copies_are_near_and_others_are_not() -> None:
    image = Image.fromarray(pixels(11, 320, 240))
    own = hash_of(image)
    copies = {
        "jpeg": Image.open(io.BytesIO(encoded(image, "JPEG", quality=40))),
        "smaller": image.resize((160, 120), Image.Resampling.LANCZOS),
        "brighter": ImageEnhance.Brightness(image).enhance(1.1),
        "grey": image.convert("L"),
    }
    assert {name: distance(own, hash_of(copy)) <= 4 for name, copy in copies.items()} == dict.fromkeys(copies, True)
    others = [hash_of(Image.fromarray(pixels(seed, 320, 240))) for seed in range(100, 140)]
    assert min(distance(own, other) for other in others) > 4


def test_plain_pictures_have_no_hash() -> None:
    assert perceptual_hash(Image.new("RGB", (64, 64), "navy")) is None
    almost = np.random.default_rng(0).integers(100, 103, (64, 64), dtype=np.uint8)
    assert perceptual_hash(Image.fromarray(almost)) is None
    assert near_duplicates({"a": None, "b": 5}, {"c": None}) == NearDuplicates(0, 0, ())


def test_pairs_by_hand() -> None:
    train = {"t1": 0b0, "t2": 0b0, "t3": 2**64 - 1, "t4": 0xF0F0F0F0F0F0F0F0}
    test = {"x": 0b1111, "y": 0b11111, "z": 2**64 - 1}
    found = near_duplicates(train, test)
    assert found == NearDuplicates(num_test=2, num_train=3, examples=((0, "z", "t3"), (4, "x", "t1")))
    assert near_duplicates(train, test, distance=0) == NearDuplicates(1, 1, ((0, "z", "t3"),))
    with pytest.raises(ValueError, match="distance must be in 0..63, got 64"):
        near_duplicates(train, test, distance=64)


centres = st.integers(0, 2**64 - 1)
flips = st.lists(st.integers(0, 63), max_size=7)


@given(st.lists(st.tuples(centres, flips, st.booleans()), max_size=30), st.integers(0, 8), st.data())
def test_search_finds_what_all_pairs_have(
    drawn: list[tuple[int, list[int], bool]], limit: int, data: st.DataObject
) -> None:
    base = data.draw(centres)
    hashes: list[dict[str, int | None]] = [{}, {}]
    for number, (centre, bits, near) in enumerate(drawn):
        value = base if near else centre
        for bit in bits:
            value ^= 1 << bit
        hashes[number % 2][str(number)] = value
    train, test = hashes
    pairs = [(x, t) for x, a in test.items() for t, b in train.items() if distance(int(a or 0), int(b or 0)) <= limit]
    found = near_duplicates(train, test, limit)
    assert found.num_test == len({x for x, _ in pairs}) and found.num_train == len({t for _, t in pairs})
    assert bool(found.examples) == bool(pairs)


def test_many_images() -> None:
    """20,000 against 5,000 in well under what all 10^8 pairs cost; the planted pairs are found."""
    rng = np.random.default_rng(4)
    values = [int(value) for value in rng.integers(0, 2**64, 25_000, dtype=np.uint64)]
    train = {f"t{number}": value for number, value in enumerate(values[:20_000])}
    test = {f"x{number}": value for number, value in enumerate(values[20_000:])}
    test["x7"] = values[123] ^ 0b1011
    found = near_duplicates(train, test)
    assert (found.num_test, found.num_train, found.examples) == (1, 1, ((3, "x7", "t123"),))
