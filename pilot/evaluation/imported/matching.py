"""Another tool's answers matched to the records of the test sets, example by example."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pilot.data.record import InstructionRecord
from pilot.errors import UserError
from pilot.evaluation.imported.formats import Answer, format_ids


def match_answers(
    file: Path, answers: Sequence[Answer], tests: Mapping[str, Sequence[InstructionRecord]], task: str | None
) -> dict[str, dict[str, str]]:
    """Match answers to the test sets; return predictions by task and record id, complete for each task.

    Args:
        file: source of the answers, for error messages.
        answers: `formats.read_answers(file, ...)`.
        tests: the test records of every task.
        task: the task to take; by default all that the file names, or else the one whose test set has its ids.

    Raises:
        UserError: the task is unknown or ambiguous, or the examples are not those of its test set: the message gives
            their number and the first ids, or the first field in which the file contradicts the record.
    """
    if task is not None and task not in tests:
        raise UserError(f"--task {task}: not a task of this scenario. Expected one of: {', '.join(tests)}.")
    if any(answer.task is not None for answer in answers):
        by_task = _group_by_task(file, answers, tests)
        if task is not None and task not in by_task:
            raise UserError(f"{file}: no rows of task {task}, only of {', '.join(by_task)}. Choose another --task.")
        by_task = {name: rows for name, rows in by_task.items() if task in (None, name)}
    else:
        by_task = {task or _find_task(file, answers, tests): list(answers)}
    return {name: _checked(rows, tests[name], f"{file}: not the test set of {name}") for name, rows in by_task.items()}


def _group_by_task(
    file: Path, answers: Sequence[Answer], tests: Mapping[str, Sequence[InstructionRecord]]
) -> dict[str, list[Answer]]:
    """Group the answers by the task that their rows name."""
    by_task: dict[str, list[Answer]] = {}
    for answer in answers:
        if answer.task is None or answer.task not in tests:
            raise UserError(
                f"{file}, row {answer.row}: field 'task' is {answer.task!r}, expected one of: {', '.join(tests)}. "
                "Correct it, or leave the field out of all rows and name the task with --task."
            )
        by_task.setdefault(answer.task, []).append(answer)
    return by_task


def _find_task(file: Path, answers: Sequence[Answer], tests: Mapping[str, Sequence[InstructionRecord]]) -> str:
    """Return the only task whose test set has any of the ids."""
    ids = {answer.id for answer in answers}
    fitting = [name for name, records in tests.items() if any(record.id in ids for record in records)]
    if len(fitting) != 1:
        raise UserError(
            f"{file}: its ids belong to {' and '.join(fitting) or 'no task of the scenario'}, first id: "
            f"{answers[0].id!r}. Name the task with --task, one of: {', '.join(tests)}."
        )
    return fitting[0]


def _checked(answers: Sequence[Answer], test: Sequence[InstructionRecord], place: str) -> dict[str, str]:
    """Check that the examples are those of the test set; return predictions by record id."""
    by_id = {record.id: record for record in test}
    given = {answer.id: answer for answer in answers}
    if not given.keys() & by_id.keys() and all(id.isdecimal() for id in given):
        if silent := [id for id, answer in given.items() if "answer" not in answer.record_fields]:
            raise UserError(
                f"{place}: its ids are row numbers, and {len(silent)} rows have no reference answer (target, answer) "
                f"to check them by, first: {format_ids(silent)}. Add the records' ids, or the answers, to the file."
            )
        given = {test[int(id)].id if int(id) < len(test) else id: answer for id, answer in given.items()}
    unknown = [id for id in given if id not in by_id]
    missing = [id for id in by_id if id not in given]
    if unknown or missing:
        parts = [f"{len(unknown)} of its ids are unknown, first: {format_ids(unknown)}"] if unknown else []
        parts += [f"{len(missing)} ids have no answer, first: {format_ids(missing)}"] if missing else []
        raise UserError(f"{place}: {'; '.join(parts)}. Answer exactly the test split.")
    odd = [(id, name) for id, answer in given.items() if (name := _contradiction(answer, by_id[id]))]
    if odd:
        id, name = odd[0]
        raise UserError(
            f"{place}: {len(odd)} examples differ, first: {format_ids([id for id, _ in odd])}. For {id!r}, the file "
            f"has {name} {given[id].record_fields[name]!r}, the test set {getattr(by_id[id], name)!r}. Answer this "
            "test set."
        )
    return {id: answer.prediction for id, answer in given.items()}


def _contradiction(answer: Answer, record: InstructionRecord) -> str:
    """Return the first field in which the file contradicts the record; empty if none does."""
    for name, value in answer.record_fields.items():
        own = getattr(record, name)
        if name == "answer":
            references = list(record.references)
            accepted = {_collapse(text) for text in (own, *references, references)}
            agrees = _collapse(value) in accepted
        else:
            agrees = (tuple(value) if isinstance(value, list) else value) == own
        if not agrees:
            return name
    return ""


def _collapse(value: object) -> str:
    """Convert a value to text and collapse its whitespace."""
    return " ".join(str(value).split())
