"""Files of official data sets below a root folder: paths in options, and JSON documents."""

import os
import re
import string
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Annotated, Any

from pydantic import AfterValidator

from pilot.data.readers.values import FieldError
from pilot.errors import UserError
from pilot.io.text import JsonError, decode, is_blank, json_rows, parse_json

GUIDE = "docs/data-sets.md says where to download it and where to put it."


def _relative(path: str) -> str:
    if not path or "\0" in path or PurePosixPath(path).is_absolute() or PureWindowsPath(path).is_absolute():
        raise ValueError("expected a path relative to the root folder")
    if ".." in PurePosixPath(path).parts:
        raise ValueError("expected a path without '..'")
    return path


RelativePath = Annotated[str, AfterValidator(_relative)]
"""A path below the root folder."""


def template(*names: str, texts: bool = False) -> AfterValidator:
    """Return a validator of relative paths with at least one of `names` as `{name}` or, for numbers, `{name:012d}`."""

    def check(pattern: str) -> str:
        fields = [part[1:] for part in string.Formatter().parse(pattern) if part[1] is not None]
        if not fields:
            raise ValueError(f"expected a path with {' or '.join(f'{{{name}}}' for name in names)} in it")
        for name, spec, conversion in fields:
            if name not in names or conversion or not re.fullmatch("" if texts else r"(0\d{1,2}d)?", spec or ""):
                forms = "" if texts else ", plain or such as {image_id:012d}"
                raise ValueError(f"expected no other fields than {', '.join(names)}{forms}")
        return _relative(pattern)

    return AfterValidator(check)


NumberedImage = Annotated[str, template("image_id")]
"""Path template of images by number, such as `coco/train2014/COCO_train2014_{image_id:012d}.jpg`."""

NamedImage = Annotated[str, template("image_id", texts=True)]
"""Path template of images by name, such as `gqa/images/{image_id}.jpg`."""

FileImage = Annotated[str, template("file_name", texts=True)]
"""Path template of images by file name, such as `coco/train2017/{file_name}`."""

FolderImage = Annotated[str, template("folder", "file_name", texts=True)]
"""Path template of images by folder and file name, such as `coco/{folder}/{file_name}`."""


def matching(root: Path, name: str) -> list[Path]:
    """Return the files or folders that a name below `root` matches, with * and ? as the only wildcards.

    The name of an existing file or folder and an absolute name are taken literally.
    """
    path = root / name
    if not set(name) & set("*?") or os.path.lexists(path) or Path(name).is_absolute():
        return [path]
    return sorted(root.glob(name.replace("[", "[[]")))


def below(path: Path, root: Path) -> str:
    """Return a path as text, relative to `root` if it is below `root`."""
    return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()


def read_bytes(root: Path, name: str, what: str) -> bytes:
    """Read the file `name` below `root`.

    Raises:
        UserError: it cannot be read; names the file, `what` it should be, and the page that says where to download it.
    """
    path = root / name
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else f"cannot be read ({error})"
        raise UserError(f"{path}: {reason}. Expected {what}. {GUIDE}") from error


def read_json(root: Path, name: str, what: str, ignored: Iterable[str] = ()) -> Any:
    """Read the JSON document `name` below `root`.

    Args:
        root: folder of the data sets.
        name: path below it.
        what: what the file should be, for messages.
        ignored: fields that are not needed; if one is a list or an object, it is replaced with null to save memory.

    Raises:
        UserError: a missing file, not JSON, nested too deeply, or an object with the same key twice.
    """
    unread = frozenset(ignored)

    def collect(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = {key: None if key in unread and isinstance(value, list | dict) else value for key, value in pairs}
        if len(found) < len(pairs):
            raise ValueError("a key occurs twice in one object")
        return found

    data = read_bytes(root, name, what)
    try:
        return parse_json(decode(data), collect)
    except ValueError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{root / name}: not a usable JSON file ({reason}). Expected {what}. {GUIDE}") from error


def read_lines(root: Path, name: str, what: str) -> Iterator[tuple[int, str]]:
    """Yield non-blank lines with their numbers from 1; bytes that are not UTF-8 become lone surrogates.

    Only a line feed ends a line, as in the official files.

    Raises:
        UserError: as `read_bytes`.
    """
    data = read_bytes(root, name, what)
    with reading(root / name):
        lines = decode(data, "surrogateescape").split("\n")
    yield from ((number, line) for number, line in enumerate(lines, start=1) if not is_blank(line))


def read_json_rows(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield the rows of `pilot.io.text.json_rows`; convert a line that is not JSON to `FieldError`.

    Raises:
        UserError: the file cannot be read, or is neither a JSON list nor JSON lines.
    """
    with reading(path):
        for number, value in json_rows(path):
            yield number, FieldError("line", f"not valid JSON ({value})") if isinstance(value, JsonError) else value


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Convert errors from reading a file to `UserError`.

    Raises:
        UserError: the file cannot be read, is not text, or is not JSON.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}). Name an existing file.") from error
    except JsonError as error:
        raise UserError(f"{path}: not valid JSON ({error}). Correct the file.") from error
    except UnicodeError as error:
        raise UserError(f"{path}: not a text file ({error}). Save it as UTF-8.") from error


def elements(document: Any, field: str, path: Path, what: str) -> Sequence[Any]:
    """Return the list in `field` of a document, or the document itself if `field` is empty.

    Raises:
        UserError: there is no such list.
    """
    found = document if not field else document.get(field) if isinstance(document, dict) else None
    if not isinstance(found, list):
        where = f"a list in field {field!r}" if field else "a list"
        raise UserError(f"{path}: expected {where}: {what}. {GUIDE}")
    return found


def entries(document: Any, path: Path, what: str) -> dict[str, Any]:
    """Return a document that must be an object of rows by key.

    Raises:
        UserError: it is not an object.
    """
    if not isinstance(document, dict):
        raise UserError(f"{path}: expected an object of rows by key: {what}. {GUIDE}")
    return document
