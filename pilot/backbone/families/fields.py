"""Typed access to the fields of a checkpoint's configuration files, which anyone may have written."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import NoneType
from typing import Any

import torch

from pilot.errors import UserError

_KINDS = {int: "an integer", str: "a text", dict: "an object", list: "a list", NoneType: "null"}


class FieldError(ValueError):
    """Error for a field of another type; the message has the field, what was expected and what was found."""


def read_field(config: Mapping[str, Any], path: str, *kinds: type, default: Any = None) -> Any:
    """Return the field at a path such as `vision_config.image_size`.

    Args:
        config: content of a configuration file.
        path: names of the field and of the objects around it, with dots between them.
        kinds: its possible types: int, str, dict, list or NoneType.
        default: value of a missing field, or of one in an object that is missing or null.

    Raises:
        FieldError: the field has another type, or something around it is no object.
    """
    *around, name = path.split(".")
    for depth, outer in enumerate(around, start=1):
        inside = config.get(outer)
        if inside is None:
            return default
        if not isinstance(inside, dict):
            raise FieldError(_other(".".join(around[:depth]), (dict,), inside))
        config = inside
    value = config.get(name, default)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise FieldError(_other(path, kinds, value))
    return value


def _other(path: str, kinds: tuple[type, ...], value: Any) -> str:
    return f"field {path}: expected {' or '.join(_KINDS[kind] for kind in kinds)}, got {json.dumps(value)[:60]}"


@contextmanager
def loading(what: str) -> Iterator[None]:
    """Turn what libraries raise for a damaged file, which may be any exception, into one message; `what` begins it.

    Raises:
        UserError: anything was raised but a lack of memory.
    """
    try:
        yield
    except (UserError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        said = " ".join(str(error).split())
        raise UserError(
            f"{what} cannot be loaded ({type(error).__name__}: {said[:300]}). Copy the checkpoint's files from their "
            "source again."
        ) from error
