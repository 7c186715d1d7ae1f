"""Per-sample files of other evaluation tools, read as answers; the tools' own scores are ignored.

- lm-eval, `samples_<task>_<date>.jsonl` of `--log_samples`: `doc`, `target`, `filtered_resps`. The suite's own tasks
  carry the record's id as `doc.id`.
- lmms-eval, `<date>_samples_<task>.jsonl` of `--log_samples`: the same without `doc`, which it drops on saving; its
  `doc_id` counts the documents of the test split from 0.
- VLMEvalKit, `<model>_<dataset>.xlsx|tsv|json`: `index`, `prediction`, and `answer` if the data set has one. The
  `index` comes from the user's data file: the record's id, or a count from 0.
- jsonl: one object per line with `id`, `prediction`, and `task` if a file holds several tasks.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any
from zipfile import BadZipFile

from pilot.errors import UserError
from pilot.io.text import encoding_of, is_unicode, json_rows

RECORD_FIELDS = ("image_sha256", "instruction", "references", "box", "answer")
"""Fields of the record that a file may also state."""

NUM_SHOWN = 3
_FAILED = "Failed to obtain answer"
_ESCAPED = re.compile(r"_x([0-9A-Fa-f]{4})_")
_HINTS = {
    "lm-eval": "Expected a samples_<task>_<date>.jsonl, which lm-eval writes with --log_samples.",
    "lmms-eval": "Expected a <date>_samples_<task>.jsonl, which lmms-eval writes with --log_samples.",
    "vlmevalkit": "Expected a prediction file of VLMEvalKit: <model>_<dataset> as .xlsx, .tsv or .json.",
    "jsonl": 'Expected one object per line: {"id": "...", "prediction": "..."}, and "task" for several tasks.',
}


@dataclass(frozen=True)
class Answer:
    """One row of another tool's file.

    Attributes:
        row: number of the row, from 1 (in a table, without its header).
        id: the record's id, or its number in the test split from 0.
        prediction: the model's answer.
        record_fields: values of the fields in `RECORD_FIELDS` that the file gives.
        task: the task, if the row names one.
    """

    row: int
    id: str
    prediction: str
    record_fields: Mapping[str, Any] = field(default_factory=dict)
    task: str | None = None


def read_answers(path: Path, format: str) -> list[Answer]:
    """Read the answers from another tool's file.

    Raises:
        UserError: the file is unreadable or empty, or a row lacks a field or an answer; names file, row and field.
    """
    if format not in FORMATS:
        raise UserError(f"--format {format}: unknown. Expected one of: {', '.join(FORMATS)}.")
    try:
        rows = _rows(path)
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise UserError(f"{path}: cannot be read ({error}). {_HINTS[format]}") from error
    if not rows:
        raise UserError(f"{path}: no rows. {_HINTS[format]}")
    answers = []
    for number, row in enumerate(rows, start=1):
        try:
            answers.append(FORMATS[format](number, row))
        except ValueError as error:
            raise UserError(f"{path}, row {number}: {error}. {_HINTS[format]}") from error
    return _checked(path, answers, rows)


def _checked(path: Path, answers: list[Answer], rows: Sequence[Mapping[str, Any]]) -> list[Answer]:
    """Return the answers; refuse files with several answers per example, or with requests that failed."""
    if len(filters := sorted({str(row["filter"]) for row in rows if "filter" in row})) > 1:
        raise UserError(
            f"{path}: answers of {len(filters)} filters ({', '.join(filters)}), expected one. "
            "Write the lines of one filter to a separate file and import that."
        )
    rows_of: dict[tuple[str | None, str], list[int]] = {}
    for answer in answers:
        rows_of.setdefault((answer.task, answer.id), []).append(answer.row)
    if repeated := {id: found for (_, id), found in rows_of.items() if len(found) > 1}:
        shown = [f"{id!r} in rows {', '.join(map(str, found))}" for id, found in repeated.items()][:NUM_SHOWN]
        raise UserError(
            f"{path}: {len(repeated)} ids occur more than once, first: {'; '.join(shown)}. Keep one answer of each."
        )
    if failed := [answer.id for answer in answers if answer.prediction.startswith(_FAILED)]:
        raise UserError(
            f"{path}: {len(failed)} requests failed ({_FAILED!r}), first: {format_ids(failed)}. "
            "Repeat them with the tool (VLMEvalKit: --reuse), then import the file."
        )
    return answers


def format_ids(ids: Sequence[str]) -> str:
    """Format the first ids of a list for a message."""
    more = f" and {len(ids) - NUM_SHOWN} more" if len(ids) > NUM_SHOWN else ""
    return ", ".join(map(repr, ids[:NUM_SHOWN])) + more


def _rows(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a table or of JSON lines; empty cells of a table become empty strings."""
    import pandas

    ending = path.suffix.lower()
    if ending in (".tsv", ".xlsx"):
        options: dict[str, Any] = {"dtype": str, "keep_default_na": False}
        if ending == ".xlsx":
            table = pandas.read_excel(path, **options).rename(columns=_unescape).map(_unescape)
        else:
            table = pandas.read_csv(path, sep="\t", encoding=encoding_of(path), **options)
        return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]
    rows = []
    for number, row in json_rows(path):
        if isinstance(row, ValueError):
            raise ValueError(f"row {number}, {row}")
        rows.append(row)
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("expected JSON objects")
    return rows


def _unescape(value: Any) -> Any:
    """Decode a spreadsheet text, in which `_xHHHH_` is a UTF-16 code unit (ECMA-376, ST_Xstring)."""
    if not isinstance(value, str) or not _ESCAPED.search(value):
        return value
    units = _ESCAPED.sub(lambda match: chr(int(match[1], 16)), value)
    return units.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def _parse_harness(number: int, row: Mapping[str, Any]) -> Answer:
    """Parse a line of lm-eval or lmms-eval."""
    doc = row.get("doc", {})
    if not isinstance(doc, dict):
        raise ValueError(f"field 'doc' is {doc!r}, expected an object")
    id = _field(doc, "id") if "id" in doc else _field(row, "doc_id")
    record_fields = {name: doc[name] for name in RECORD_FIELDS if name in doc and name != "answer"}
    return Answer(number, str(id), _one_text(_field(row, "filtered_resps")), record_fields | _answer(row.get("target")))


def _parse_vlmevalkit(number: int, row: Mapping[str, Any]) -> Answer:
    return Answer(number, str(_field(row, "index")), _text(row, "prediction"), _answer(row.get("answer")))


def _parse_jsonl(number: int, row: Mapping[str, Any]) -> Answer:
    return Answer(
        number, _text(row, "id"), _text(row, "prediction"), task=_text(row, "task") if "task" in row else None
    )


FORMATS: Mapping[str, Callable[[int, Mapping[str, Any]], Answer]] = MappingProxyType(
    {"lm-eval": _parse_harness, "lmms-eval": _parse_harness, "vlmevalkit": _parse_vlmevalkit, "jsonl": _parse_jsonl}
)


def _field(row: Mapping[str, Any], name: str) -> Any:
    """Return the value of a field; raise ValueError if it is missing, null, NaN or too large (infinite)."""
    if name not in row:
        raise ValueError(f"field {name!r} is missing (found: {', '.join(sorted(row))})")
    value = row[name]
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError(f"field {name!r} has no value (null, NaN or Infinity)")
    return value


def _text(row: Mapping[str, Any], name: str) -> str:
    return _unicode(_field(row, name), name, "a text")


def _unicode(value: Any, name: str, expected: str) -> str:
    """Return the value; raise ValueError unless it is a string of valid Unicode."""
    if not isinstance(value, str):
        raise ValueError(f"field {name!r} is {value!r}, expected {expected}")
    if not is_unicode(value):
        raise ValueError(f"field {name!r} is {value!r}, expected text that is valid Unicode")
    return value


def _answer(value: Any) -> dict[str, Any]:
    """Return the reference answer as a field; none if it is missing, null (NaN in JSON) or blank."""
    return {} if value is None or not str(value).strip() else {"answer": value}


def _one_text(value: Any) -> str:
    """Return the only generated text of a request; unpack the nested lists that the harnesses store it in."""
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    return _unicode(value, "filtered_resps", "one generated text")
