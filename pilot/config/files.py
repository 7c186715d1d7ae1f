"""Loading of files in `pipelines/` as typed models, with error messages that name file, field and remedy."""

import difflib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from pilot.config.base import Model
from pilot.errors import UserError
from pilot.io.digest import REPOSITORY
from pilot.io.text import decode

PACKAGED = REPOSITORY / "pipelines"
"""Beside `pilot`, in a repository and where the package is installed."""
SINGULAR = {"studies": "study"}
YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Reads a profile in 3 ms with libyaml, in 30 ms without."""
_M = TypeVar("_M", bound=Model)


def known_names(kind: str) -> list[str]:
    """Return the names of the files of a kind (`scenarios`, `profiles`, `faults`, ...), sorted."""
    return sorted(_files(kind))


def load_file(model: type[_M], kind: str, name_or_path: str) -> _M:
    """Load a file of a kind as its model, by name or by path; raises as `load_scenario`.

    A name's file is in `pipelines/<kind>/` of the current folder, or else of the package.
    """
    if name_or_path.endswith((".yaml", ".yml")):
        path = Path(name_or_path)
    else:
        files = _files(kind)
        if name_or_path not in files:
            singular = SINGULAR.get(kind, kind.removesuffix("s"))
            raise UserError(f"{singular}: {_unknown(name_or_path, files)}")
        path = files[name_or_path]
    return validated(model, str(path), _read_yaml(path))


def validated(model: type[_M], where: str, values: Mapping[str, Any]) -> _M:
    """Validate values as their model; messages begin with `where` (a file, or a field of one).

    Raises:
        UserError: a field is wrong, unknown or missing; one line for each.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise UserError("\n".join(f"{where}: {_explain(model, item)}" for item in error.errors())) from error


def restored(model: type[_M], where: str, values: Any) -> _M:
    """Validate values that the suite itself has written; `where` names file and field.

    Raises:
        UserError: another version wrote them, with other fields.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, (where, *first["loc"])))
        raise UserError(
            f"{place}: {first['msg']}. Another version of pilot-bench wrote it: use that version, or repeat with this "
            "one what wrote it (`pilot-bench train ... --no-resume` for a run)."
        ) from error


def check_known(where: str, field: str, names: Collection[str], known: Collection[str]) -> None:
    """Reject names that are not in `known`; `where` is the file or other place that contains them.

    Raises:
        UserError: a name is unknown; the message has the field, the name and the known ones.
    """
    for name in names:
        if name not in known:
            raise UserError(f"{where}: field {field}: {_unknown(name, known)}")


def _unknown(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"unknown name {name!r}.{hint} Expected one of: {', '.join(sorted(known))}."


def _files(kind: str) -> dict[str, Path]:
    """Return the files of a kind by name; those of the current folder replace those of the package."""
    folders = (PACKAGED / kind, Path.cwd() / "pipelines" / kind)
    return {path.stem: path for folder in folders for path in folder.glob("*.yaml")}


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.load(decode(path.read_bytes()), YAML_LOADER)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}). Give an existing YAML file.") from error
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError) as error:  # PyYAML's constructors
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}. Correct the file.") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected a mapping of fields, got {type(values).__name__}. See pipelines/.")
    return values


def _explain(model: type[BaseModel], error: Mapping[str, Any]) -> str:
    """Describe one pydantic error by its field, what was expected and what to do."""
    place = ".".join(str(part) for part in error["loc"]) or "(whole file)"
    if error["type"] == "extra_forbidden":
        *inside, field = error["loc"]
        return f"field {place}: {_unknown(str(field), _fields(model, inside))} Rename or remove it."
    if error["type"] == "missing":
        return f"field {place}: missing. Add it."
    message = error["msg"].removeprefix("Value error, ")
    got = "" if error["type"] == "value_error" else f", got {error['input']!r}"
    return f"field {place}: {message[0].lower()}{message[1:]}{got}. Correct this field."


def _fields(model: type[BaseModel], place: Sequence[str | int]) -> list[str]:
    """Return the field names of the model at `place` inside `model`."""
    for part in place:
        if part in model.model_fields:
            annotation = model.model_fields[str(part)].annotation
            models = [a for a in (annotation, *getattr(annotation, "__args__", ())) if _is_model(a)]
            model = models[0] if models else model
    return list(model.model_fields)


def _is_model(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, BaseModel)
