"""Images: references that are refused, odd pictures, and bytes that are no pictures at all."""

import io
import os
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pilot.data.images import BadImage, Limits, NormalisedImage, load, normalise, resolve

from .pictures import decoded, encoded, pixels, png


def good(data: bytes, limits: Limits | None = None) -> NormalisedImage:
    """The normalised picture, which must be one."""
    image = normalise(data, limits or Limits())
    assert isinstance(image, NormalisedImage), image
    return image


def reason(data: bytes, limits: Limits | None = None) -> str:
    """Why a picture is refused, which it must be."""
    image = normalise(data, limits or Limits())
    assert isinstance(image, BadImage)
    return image.reason


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An image folder beside a secret."""
    (tmp_path / "images/deep").mkdir(parents=True)
    (tmp_path / "images/deep/a.png").write_bytes(png(0))
    (tmp_path / "secret.png").write_bytes(png(1))
    return tmp_path / "images"


@pytest.mark.parametrize("reference", ["deep/a.png", "./deep/a.png", "deep//a.png"])
def test_references_below_the_root(root: Path, reference: str) -> None:
    assert resolve(root, reference) == (root / "deep/a.png").resolve()
    assert isinstance(load(root, reference), NormalisedImage)


@pytest.mark.parametrize(
    ("reference", "why"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("/etc/passwd", "absolute"),
        ("//host/share/a.png", "absolute"),
        ("../secret.png", r"'\.\.'"),
        ("deep/../../secret.png", r"'\.\.'"),
        ("deep/../deep/a.png", r"'\.\.'"),
        ("..\\secret.png", "backslash"),
        ("\\\\host\\share\\a.png", "backslash"),
        ("deep/a.png\0.jpg", "control character"),
        ("deep/a.png\n", "control character"),
        ("http://example.org/a.png", "URL"),
        ("HTTPS:example.org/a.png", "URL"),
        ("file:///etc/passwd", "URL"),
        ("data:image/png;base64,AAAA", "URL"),
        ("C:/a.png", "drive"),
        ("c:a.png", "drive"),
        ("deep", "not a file"),
        ("deep/b.png", "no such file"),
        ("deep/a.png/b.png", "no such file"),
        ("x" * 5000, "no such file"),
        ("\ud800.png", "control character"),
        ("~/a.png", "no such file"),
    ],
)
def test_references_that_are_refused(root: Path, reference: str, why: str) -> None:
    found = resolve(root, reference)
    assert isinstance(found, BadImage)
    assert re.search(why, found.reason)


def test_links_and_special_files(root: Path) -> None:
    (root / "inside.png").symlink_to("deep/a.png")
    (root / "outside.png").symlink_to("../secret.png")
    (root / "folder").symlink_to("..")
    (root / "loop.png").symlink_to("loop.png")
    os.mkfifo(root / "pipe.png")
    assert resolve(root, "inside.png") == (root / "deep/a.png").resolve()
    for name, why in (
        ("outside.png", "link out"),
        ("folder/secret.png", "link out"),
        ("loop.png", "no such file"),
        ("pipe.png", "not a file"),
    ):
        found = resolve(root, name)
        assert isinstance(found, BadImage) and why in found.reason, name


@given(st.text(max_size=40) | st.lists(st.sampled_from(["..", ".", "a", "/", "\\", "\0", "deep", "a.png", "c:"])))
def test_no_reference_leaves_the_root(tmp_path_factory: pytest.TempPathFactory, parts: str | list[str]) -> None:
    root = tmp_path_factory.getbasetemp() / "fuzzed"
    (root / "deep").mkdir(parents=True, exist_ok=True)
    (root / "deep/a.png").write_bytes(b"x")
    found = resolve(root, parts if isinstance(parts, str) else "/".join(parts))
    assert isinstance(found, BadImage) or found == (root / "deep/a.png").resolve()


def test_plain_rgb_keeps_its_bytes() -> None:
    for data in (png(3), encoded(Image.fromarray(pixels(3)), "JPEG", quality=90)):
        image = good(data)
        assert image.data == data and image.notes == () and not image.rotated
        assert (image.width, image.height) == (48, 32)


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    values = np.array([[0, 128, 129, 257, 32896, 65535]], dtype=np.uint16)
    image = good(encoded(Image.fromarray(values)))
    # Rounded v / 257: 128 / 257 is below a half, 129 / 257 above; 32896 is 128 * 257.
    assert decoded(image.data)[0, :, 0].tolist() == [0, 0, 1, 1, 128, 255]
    assert image.notes == ("16 bits scaled to 8",)


def test_sixteen_bit_colour_is_re_encoded() -> None:
    row = struct.pack(">6H", 0x8000, 0xFFFF, 0, 0x0100, 0x00FF, 0x7FFF)
    image = good(raw_png(2, 1, b"\0" + row, depth=16, colour=2))
    assert image.notes == ("16 bits scaled to 8",) and image.data[24] == 8
    assert decoded(image.data).tolist() == [[[0x80, 0xFF, 0], [1, 0, 0x7F]]]  # PNG readers take the high byte


def raw_png(width: int, height: int, rows: bytes, depth: int = 8, colour: int = 2) -> bytes:
    """A PNG file made by hand."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_transparency_lies_on_white() -> None:
    clear = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    clear.putpixel((1, 0), (255, 0, 0, 255))
    image = good(encoded(clear))
    assert decoded(image.data).tolist() == [[[255, 255, 255], [255, 0, 0]]]
    assert image.notes == ("transparency laid on white",)
    palette = Image.new("P", (2, 1), 0)
    palette.putpalette([0, 0, 255, 0, 255, 0])
    palette.putpixel((1, 0), 1)
    image = good(encoded(palette, transparency=1))
    assert decoded(image.data).tolist() == [[[0, 0, 255], [255, 255, 255]]]
    assert image.notes == ("transparency laid on white", "mode P converted to RGB")
    grey = good(encoded(Image.new("L", (2, 1), 7), transparency=7))
    assert decoded(grey.data).tolist() == [[[255, 255, 255]] * 2]


def test_other_modes() -> None:
    grey = good(encoded(Image.new("L", (3, 2), 90)))
    assert decoded(grey.data)[0, 0].tolist() == [90, 90, 90] and grey.notes == ("mode L converted to RGB",)
    ink = good(encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=100))
    red, green, blue = decoded(ink.data)[8, 8].tolist()
    assert ink.notes == ("mode CMYK converted to RGB",) and red > 250 and green < 5 and blue < 5
    assert good(encoded(Image.new("1", (3, 2), 1))).notes == ("mode 1 converted to RGB",)
    assert good(encoded(Image.fromarray(pixels(1)), "BMP")).notes == ("BMP re-encoded as PNG",)
    assert "mode F" in reason(encoded(Image.new("F", (2, 2), 0.5), "TIFF"))


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP"])
def test_first_frame_of_animations(form: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "lime")]
    options = {"lossless": True} if form == "WEBP" else {}
    image = good(encoded(frames[0], form, save_all=True, append_images=frames[1:], duration=50, **options))
    assert decoded(image.data)[4, 4].tolist() == [255, 0, 0]
    assert image.notes[0] == "first frame of several"
    assert good(image.data).data == image.data  # what was normalised is a picture of one frame


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF"])
def test_exif_rotation_is_carried_out(form: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the top of the scene is at the stored picture's right: turn it clockwise
    stored = Image.new("RGB", (20, 10), "white")
    stored.paste("red", (0, 0, 10, 10))
    image = good(encoded(stored, form, exif=exif, **({"quality": 100} if form == "JPEG" else {})))
    assert (image.width, image.height, image.rotated) == (10, 20, True)
    upright = decoded(image.data)
    assert upright[2, 5, 1] < 60 < 200 < upright[17, 5, 1]  # the left half, red, is on top
    again = good(image.data)
    assert not again.rotated and again.data == image.data


def test_caps_come_before_decoding() -> None:
    bomb = raw_png(60_000, 60_000, b"")  # 3.6 gigapixels by its header, no pixel in it
    assert reason(bomb) == "more than 50000000 pixels"
    assert reason(raw_png(8000, 8000, b"")) == "more than 50000000 pixels"
    assert reason(png(1), Limits(pixels=48 * 32 - 1)) == "more than 1535 pixels"
    assert good(png(1), Limits(pixels=48 * 32)).width == 48
    assert reason(png(1), Limits(num_bytes=100)) == "the file is larger than 100 bytes"


def test_large_files_are_not_read_whole(root: Path) -> None:
    with (root / "huge.png").open("wb") as file:
        file.truncate(1 << 40)  # a sparse file of a terabyte
    found = load(root, "huge.png", Limits(num_bytes=1000))
    assert isinstance(found, BadImage) and found.reason == "the file is larger than 1000 bytes"


def test_what_is_no_picture() -> None:
    assert reason(b"") == "the file is empty"
    assert reason(b"hello" * 100).startswith("not an image in a supported format (JPEG, PNG")
    assert reason(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n").startswith("not an image")
    assert "damaged" in reason(raw_png(0, 5, b"")) or "not an image" in reason(raw_png(0, 5, b""))
    jpeg = encoded(Image.fromarray(pixels(2, 200, 200)), "JPEG")
    for data in (jpeg[: len(jpeg) // 2], png(2)[: len(png(2)) // 2], raw_png(4, 4, b"\0" * 5)):
        assert reason(data).startswith("damaged or truncated")


def test_equal_bytes_twice_and_no_metadata() -> None:
    source = encoded(Image.fromarray(pixels(5)).convert("L"), "PNG", dpi=(300, 300))
    assert good(source).data == good(source).data
    assert Image.open(io.BytesIO(good(source).data)).info == {}


FILES = [
    png(7, 12, 9),
    encoded(Image.fromarray(pixels(7, 12, 9)), "JPEG"),
    encoded(Image.fromarray(pixels(7, 12, 9)), "GIF"),
    encoded(Image.fromarray(pixels(7, 12, 9)), "WEBP"),
    encoded(Image.fromarray(pixels(7, 12, 9)), "TIFF", compression="tiff_lzw"),
    encoded(Image.fromarray(pixels(7, 12, 9)).convert("RGBA"), "PNG"),
    encoded(Image.fromarray(np.arange(12, dtype=np.uint16).reshape(3, 4)), "PNG"),
]


def is_sound(image: NormalisedImage | BadImage) -> bool:
    """A reason without addresses, or a picture of the size that it states and within the cap."""
    if isinstance(image, BadImage):
        return bool(image.reason) and "0x" not in image.reason
    found = Image.open(io.BytesIO(image.data))
    return found.mode == "RGB" and found.size == (image.width, image.height) and image.width * image.height <= 10_000


@given(st.binary(max_size=200))
def test_random_bytes_never_raise(data: bytes) -> None:
    assert is_sound(normalise(data, Limits(pixels=10_000)))


@given(st.sampled_from(FILES), st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=8), st.data())
def test_damaged_files_never_raise(file: bytes, changes: list[tuple[int, int]], data: st.DataObject) -> None:
    changed = bytearray(file)
    for place, value in changes:
        changed[place % len(changed)] = value
    end = data.draw(st.integers(0, len(changed)))
    assert is_sound(normalise(bytes(changed[:end]), Limits(pixels=10_000)))
    assert normalise(bytes(changed)) == normalise(bytes(changed))
