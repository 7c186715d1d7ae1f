"""Scores of trained runs: `eval/samples.jsonl` -> `eval/per_example.jsonl` and `eval/metrics.json`.

Other evaluations of a run (`pilot.evaluation.answers`) have the same files, in folders below `eval/`.

All runs of a scenario are scored together, because the captioning metrics have a fixed start-up cost: one tokeniser
call and one METEOR process serve every run, client and protocol. The corpus metrics (BLEU, METEOR, CIDEr) are
computed per (run, task, protocol, client); CIDEr takes its document frequencies from that set's references.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pilot.config.model import FRAMES, Frame
from pilot.data.frames import image_sizes, to_frame
from pilot.data.manifest import checked_records
from pilot.errors import UserError
from pilot.evaluation import caption, grounding, vqa
from pilot.evaluation.result import MetricResult
from pilot.io import atomic
from pilot.io.digest import digest_json, sha256_file
from pilot.io.layout import (
    CROSS_TASK,
    EVAL,
    LAST,
    METRICS,
    PER_EXAMPLE,
    SAMPLES,
    evaluation_folder,
    evaluations,
    scenario_folder,
)
from pilot.io.verified import check_note, write_noted

DIGITS = 6
KINDS = ("caption", "ground", "vqa")
PROTOCOLS = ("local", "personalised", CROSS_TASK)
# BLEU of a single sentence is noise, and four values of it would double the size of the file.
NOT_PER_EXAMPLE = frozenset(caption.BLEU)
_FIELDS = {
    "task": str, "kind": str, "protocol": str, "clients": list, "id": str, "prediction": str, "references": list
}  # fmt: skip

Row = dict[str, Any]
Results = dict[str, MetricResult]


class Group(NamedTuple):
    """Task, protocol and client of one set of scores."""

    task: str
    kind: str
    protocol: str
    client: int


# The answers of a group: run number, kind, row numbers. Clients that share a model share them.
Answers = tuple[int, str, tuple[int, ...]]


def score_runs(run_dirs: Sequence[Path], frames: Sequence[Frame] = ()) -> None:
    """Write per-example values, then metrics, of each evaluation of each run; the runs must belong to one scenario.

    Args:
        run_dirs: Folders with `eval/samples.jsonl` (see the documentation of the run directory for the format).
        frames: Frames in which to read the boxes in addition to the run's own; all are reported.

    Raises:
        UserError: a file of samples is missing, altered, empty, or holds a row that cannot be scored.
    """
    answered = [
        evaluation_folder(run_dir, name) / SAMPLES
        for run_dir in run_dirs for name in dict.fromkeys([LAST, *evaluations(run_dir, SAMPLES)])
    ]  # fmt: skip
    rows_of = [_read(path) for path in answered]
    groups = [_group(rows, path) for rows, path in zip(rows_of, answered, strict=True)]
    keys: dict[Answers, Path] = {}
    for number, (grouped, path) in enumerate(zip(groups, answered, strict=True)):
        keys |= {(number, group.kind, indices): path for group, indices in grouped.items()}
    results = _score(keys, rows_of, frames)
    for number, (grouped, path) in enumerate(zip(groups, answered, strict=True)):
        scored = {group: results[number, group.kind, indices] for group, indices in grouped.items()}
        counts = {group: len(indices) for group, indices in grouped.items()}
        _write(path.parent, scored, counts, _test_digest(rows_of[number], grouped))


def _read(path: Path) -> list[Row]:
    """Read a samples file and check each row."""
    if not path.is_file():
        raise UserError(f"{path}: no such file. Evaluate the run first (pilot-bench evaluate).")
    check_note(path)
    rows = atomic.read_jsonl(path)
    if not rows:
        raise UserError(f"{path}: no samples. Evaluate the run again.")
    for number, row in enumerate(rows, start=1):
        problem = _problem(row)
        if problem:
            raise UserError(f"{path}, row {number}: {problem}. Evaluate the run again.")
    return rows


def _problem(row: Any) -> str:
    """Describe the first error in a row; empty if it is valid."""
    if not isinstance(row, dict):
        return "expected a JSON object"
    for field, kind in _FIELDS.items():
        if not isinstance(row.get(field), kind):
            return f"field {field!r} is {row.get(field)!r}, expected {kind.__name__}"
    if not all(isinstance(reference, str) for reference in row["references"]):
        return f"field 'references' is {row['references']!r}, expected texts"
    if row["kind"] not in KINDS:
        return f"field 'kind' is {row['kind']!r}, expected one of {', '.join(KINDS)}"
    if row["protocol"] not in PROTOCOLS:
        return f"field 'protocol' is {row['protocol']!r}, expected one of {', '.join(PROTOCOLS)}"
    if not row["clients"] or not all(isinstance(client, int) for client in row["clients"]):
        return f"field 'clients' is {row['clients']!r}, expected at least one client number"
    if row["kind"] == "ground" and (not isinstance(row.get("box"), list) or len(row["box"]) != 4):
        return f"field 'box' is {row.get('box')!r}, expected four numbers"
    if row.get("frame", "original") not in FRAMES:
        return f"field 'frame' is {row['frame']!r}, expected one of {', '.join(FRAMES)}"
    return ""


def _group(rows: Sequence[Row], path: Path) -> dict[Group, tuple[int, ...]]:
    """Collect the row numbers of each group, groups in sorted order."""
    groups: dict[Group, dict[str, int]] = {}
    for number, row in enumerate(rows):
        for client in row["clients"]:
            members = groups.setdefault(Group(row["task"], row["kind"], row["protocol"], client), {})
            if row["id"] in members:
                raise UserError(
                    f"{path}, row {number + 1}: client {client} answers {row['id']!r} of "
                    f"{row['task']} ({row['protocol']}) a second time, first in row {members[row['id']] + 1}"
                )
            members[row["id"]] = number
    return {group: tuple(groups[group].values()) for group in sorted(groups)}


def _score(
    keys: Mapping[Answers, Path], rows_of: Sequence[Sequence[Row]], frames: Sequence[Frame]
) -> dict[Answers, Results]:
    """Score every set of answers once, all caption sets together."""
    captions: dict[Answers, caption.Captions] = {}
    results: dict[Answers, Results] = {}
    for key, path in keys.items():
        number, kind, indices = key
        rows = [rows_of[number][index] for index in indices]
        predictions = {row["id"]: row["prediction"] for row in rows}
        try:
            if kind == "caption":
                captions[key] = predictions, {row["id"]: row["references"] for row in rows}
                caption.check_captions(*captions[key])
            elif kind == "vqa":
                results[key] = vqa.score(predictions, {row["id"]: row["references"] for row in rows})
            else:
                own = rows[0].get("frame", "original")
                for frame in (own, *(other for other in frames if other != own)):
                    scores = grounding.score(predictions, _boxes(rows, frame, path), frame)
                    results[key] = results.get(key, {}) | scores
        except ValueError as error:
            raise UserError(f"{path}, task {rows[0]['task']}: {error}") from error
    return results | caption.score_sets(captions)


def _boxes(rows: Sequence[Row], frame: Frame, path: Path) -> dict[str, Sequence[float]]:
    """Return the reference boxes in a frame, by id; read image sizes from the data if rows lack them."""
    if frame == "original":
        return {row["id"]: row["box"] for row in rows}
    sizes = {row["id"]: row["size"] for row in rows if "size" in row}
    if len(sizes) < len(rows):
        run_dir = next(folder.parent for folder in path.parents if folder.name == EVAL)
        sizes = image_sizes(checked_records(scenario_folder(run_dir) / "data", rows[0]["task"]))
    return {row["id"]: to_frame(row["box"], frame, sizes[row["id"]]) for row in rows}


def _test_digest(rows: Sequence[Row], grouped: Mapping[Group, Sequence[int]]) -> str:
    """Digest the ids, references and boxes of every group, not the answers; equal for runs that can be compared."""
    asked = [
        [*group, sorted([rows[i]["id"], rows[i]["references"], rows[i].get("box")] for i in indices)]
        for group, indices in grouped.items()
    ]
    return digest_json(asked)


def _write(folder: Path, scored: Mapping[Group, Results], counts: Mapping[Group, int], test_digest: str) -> None:
    """Write per-example values first, metrics last: if the metrics exist, so do the values."""
    entries: list[Row] = []
    lines: list[str] = []
    for group, results in scored.items():
        name = {"task": group.task, "protocol": group.protocol, "client": group.client}
        for metric, result in results.items():
            value = None if result.value is None else round(result.value, DIGITS)
            outcome = {"metric": metric, "value": value, "status": result.status, "reason": result.reason}
            entries.append(name | outcome | {"kind": group.kind, "num_examples": counts[group]})
            if result.per_example is not None and metric not in NOT_PER_EXAMPLE:
                lines += _lines(name | {"metric": metric}, result.per_example)
    atomic.write_text(folder / PER_EXAMPLE, "".join(lines))
    digests = {"samples_digest": sha256_file(folder / SAMPLES), "per_example_digest": sha256_file(folder / PER_EXAMPLE)}
    metrics = {**digests, "test_digest": test_digest, "entries": entries}
    write_noted(folder / METRICS, lambda path: atomic.write_json(path, metrics))


def _lines(name: Row, per_example: Mapping[str, float]) -> list[str]:
    """Return JSON lines with sorted keys; the fields that they share are encoded once."""
    dump = json.JSONEncoder(sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
    head, rest = dump({"client": name["client"]})[:-1], {k: v for k, v in name.items() if k != "client"}
    tail = dump(rest)[1:-1]
    return [
        f'{head},"id":{dump(example_id)},{tail},"value":{dump(round(value, DIGITS))}}}\n'
        for example_id, value in sorted(per_example.items())
    ]
