"""Untrusted images: found only below their root, limited in size, and normalised so that all programs read them alike.

References: `resolve` follows a reference only to a regular file below the image root.

Pixels: `normalise` checks the size in the header before decoding, decodes the whole image (so that a truncated file is
found here and not during training), and keeps the file's original bytes if every program decodes the same image from
them: 8-bit RGB in JPEG or PNG, one frame, no transparency, no rotation in its EXIF data. All other images become RGB
PNGs: the first frame of animations, CMYK and other colour spaces converted, palettes applied, transparency blended with
white, 16 bits scaled to 8, EXIF rotation applied. Colour profiles are not applied, as in the image loaders of the
models here.
"""

import io
import re
import stat
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pilot.data.duplicates import perceptual_hash

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_ORIENTATION = 0x0112
_UPRIGHT = 1
_PNG_BIT_DEPTH = 24
"""Offset of the bit depth in a PNG file: signature (8), length and name of IHDR (8), width and height (8)."""


@dataclass(frozen=True)
class Limits:
    """Limits on an image: pixels according to its header, and bytes of its file."""

    pixels: int = 50_000_000
    num_bytes: int = 64 * 2**20


@dataclass(frozen=True)
class NormalisedImage:
    """An image that every later stage can read.

    Attributes:
        data: a JPEG or PNG file, 8-bit RGB, upright.
        width: in pixels.
        height: in pixels.
        notes: changes to the image, for the data card; empty if the file's original bytes are kept.
        rotated: whether the EXIF rotation was applied; a box's frame is then unknown.
        fingerprint: `duplicates.perceptual_hash`; None for a plain image.
    """

    data: bytes
    width: int
    height: int
    notes: tuple[str, ...]
    rotated: bool
    fingerprint: int | None


@dataclass(frozen=True)
class BadImage:
    """Reason why an image cannot be used."""

    reason: str


def resolve(root: Path, reference: str) -> Path | BadImage:
    """Resolve a reference to a regular file below `root`, or return why it is refused.

    Refused: empty references, absolute paths, `..`, backslashes (Windows drives and shares), control characters,
    anything with a scheme (`https:`, `file:`, `c:`), links that lead out of the root, missing files, folders, devices.
    """
    if not reference.strip():
        return BadImage("the reference is empty")
    if not reference.isprintable() or "\\" in reference:
        return BadImage("the reference holds a backslash or a control character")
    if _SCHEME.match(reference):
        return BadImage("the reference is a URL or names a drive; expected a path relative to the image folder")
    if reference.startswith("/"):
        return BadImage("the reference is absolute; expected a path relative to the image folder")
    if ".." in reference.split("/"):
        return BadImage("the reference contains '..'; expected a path below the image folder")
    try:
        folder = root.resolve(strict=True)
        path = (folder / reference).resolve(strict=True)
        if not path.is_relative_to(folder):
            return BadImage("the reference is a link out of the image folder")
        if not stat.S_ISREG(path.stat().st_mode):
            return BadImage("the reference is not a file")
    except (OSError, ValueError, RuntimeError):  # missing file, loop of links, name too long or not encodable
        return BadImage("no such file below the image folder")
    return path


def load(root: Path, image: str | bytes, limits: Limits = Limits()) -> NormalisedImage | BadImage:  # noqa: B008
    """Load the image that a row names or holds, or return why it cannot be used; see `resolve` and `normalise`."""
    if isinstance(image, bytes):
        return normalise(image, limits)
    path = resolve(root, image)
    if isinstance(path, BadImage):
        return path
    try:
        with path.open("rb") as file:
            data = file.read(limits.num_bytes + 1)
    except OSError as error:
        return BadImage(f"the file cannot be read ({type(error).__name__})")
    return normalise(data, limits)


def normalise(data: bytes, limits: Limits = Limits()) -> NormalisedImage | BadImage:  # noqa: B008
    """Normalise an image (see the module), or return why it cannot be used; equal bytes give equal results."""
    from PIL import Image, UnidentifiedImageError

    if not data:
        return BadImage("the file is empty")
    if len(data) > limits.num_bytes:
        return BadImage(f"the file is larger than {limits.num_bytes} bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                return _normalised(image, data, limits)
    except UnidentifiedImageError:
        return BadImage(f"not an image in a supported format ({', '.join(FORMATS)})")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return BadImage(f"more than {limits.pixels} pixels")
    except Exception as error:  # noqa: BLE001 - Pillow's decoders raise many types of errors for damaged files
        return BadImage(f"damaged or truncated ({type(error).__name__})")


def _normalised(image: "Image", data: bytes, limits: Limits) -> NormalisedImage | BadImage:
    width, height = image.size
    if width < 1 or height < 1:
        return BadImage("the image has no pixels")
    if width * height > limits.pixels:
        return BadImage(f"more than {limits.pixels} pixels")
    if image.mode in ("I", "F"):
        return BadImage(f"mode {image.mode} has no fixed range of values; save the image with 8 bits")
    notes = _conversions(image, data)
    rotated = _orientation(image) != _UPRIGHT
    notes += ("EXIF rotation carried out",) if rotated else ()
    image.load()
    upright = _rotate(image, _rgb(image)) if rotated else _rgb(image)
    if notes:
        buffer = io.BytesIO()
        upright.save(buffer, format="PNG")
        data = buffer.getvalue()
    return NormalisedImage(data, *upright.size, notes, rotated, perceptual_hash(upright))


def _conversions(image: "Image", data: bytes) -> tuple[str, ...]:
    """List the reasons, apart from rotation, why an image's original bytes cannot be kept."""
    found = []
    if getattr(image, "is_animated", False):
        image.seek(0)
        found.append("first frame of several")
    if image.has_transparency_data:
        found.append("transparency laid on white")
    if image.mode.startswith("I;16") or (image.format == "PNG" and data[_PNG_BIT_DEPTH] == 16):
        found.append("16 bits scaled to 8")
    elif image.mode not in ("RGB", "RGBA"):
        found.append(f"mode {image.mode} converted to RGB")
    if image.format not in ("JPEG", "PNG", "MPO"):
        found.append(f"{image.format} re-encoded as PNG")
    return tuple(found)


def _rgb(image: "Image") -> "Image":
    """Convert a decoded image to RGB without metadata."""
    from PIL import Image

    if image.mode.startswith("I;16"):
        # Scale 0..65535 to 0..255 with rounding; Pillow's conversion clips at 255.
        values = np.asarray(image).astype(np.uint32)
        if isinstance(clear := image.info.get("transparency"), int):
            values[values == clear] = 65535
        image = Image.fromarray(((values + 128) // 257).astype(np.uint8))
    elif image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return Image.fromarray(np.asarray(image.convert("RGB")))


def _orientation(image: "Image") -> int:
    """Return the EXIF orientation 1..8; upright if it is missing or unreadable."""
    try:
        value = image.getexif().get(_ORIENTATION, _UPRIGHT)
    except Exception:  # noqa: BLE001 - ignore broken EXIF data, on which the pixels do not depend
        return _UPRIGHT
    return value if value in range(1, 9) else _UPRIGHT


def _rotate(tagged: "Image", plain: "Image") -> "Image":
    """Rotate `plain` by the orientation of `tagged`; a TIFF's decoder has already rotated it and dropped the tag."""
    from PIL import Image, ImageOps

    exif = Image.Exif()
    exif[_ORIENTATION] = _orientation(tagged)
    plain.info["exif"] = exif.tobytes()
    return Image.fromarray(np.asarray(ImageOps.exif_transpose(plain)))
