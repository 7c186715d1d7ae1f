"""Build of a scenario's data: records, data card and contact sheet per task, manifest last."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from pilot.config.scenario import Scenario, TaskConfig
from pilot.data import quarantine
from pilot.data.account import SourceCounts
from pilot.data.card import write_card
from pilot.data.catalogue import Source, datasets_folder, get_source
from pilot.data.intake import intake
from pilot.data.intake.request import HELD_OUT, Request
from pilot.data.quarantine import Quarantine
from pilot.data.readers.file_source import FileSource
from pilot.data.record import InstructionRecord, write_records
from pilot.errors import UserError
from pilot.io.atomic import check_folder, existing_folder, remove, write_json
from pilot.io.digest import sha256_file
from pilot.io.spool import Spool

Progress = Callable[[str, int, int], None]
"""Called after every record with the task, the number of records made, and the total."""


def build_data(scenario: Scenario, scenario_dir: Path, progress: Progress) -> dict[str, str]:
    """Write `data/<task>/{records.parquet, card.json, card.md, contact_sheet.png}` and `data/manifest.json`.

    Tasks that read source files also get `quarantine.jsonl`, and the manifest holds the digests of the source files.
    The manifest is removed first and written last, so that an interrupted build never looks complete.

    Returns:
        a one-line summary of the rows, by task.

    Raises:
        UserError: an unknown source, a source of a kind other than the task's, wrong options, unreadable files, too
            many unusable rows, or an unwritable folder.
    """
    folder = scenario_dir / "data"
    sources = [_checked(f"scenario {scenario.name}, field tasks.{n}", task) for n, task in enumerate(scenario.tasks)]
    manifest = folder / "manifest.json"
    remove(manifest)
    digests, files, closing = {}, {}, {}
    for task, source in zip(scenario.tasks, sources, strict=True):
        advance = partial(progress, task.name)
        if isinstance(source, FileSource):
            where = f"scenario {scenario.name}, task {task.name}"
            request = Request(
                where, task.source, source, task.options, datasets_folder(), task.kind, task.num_train, task.num_test,
                scenario.data_seed, task.max_quarantine,
            )  # fmt: skip
            files[task.name], total = write_intake(folder / task.name, task.name, request, advance)
            closing[task.name] = str(total)
        else:
            _write_generated(folder / task.name, scenario, task, source, advance)
            closing[task.name] = f"{task.num_train} records for training and {task.num_test} for testing made."
        digests[task.name] = sha256_file(folder / task.name / "records.parquet")
    write_json(manifest, {"digests": digests} | ({"source_files": files} if files else {}))
    return closing


def write_intake(
    folder: Path, task: str, request: Request, progress: Callable[[int, int], None]
) -> tuple[dict[str, str], SourceCounts]:
    """Take records from files; write them with their card and quarantine to `folder`.

    Args:
        folder: the task's folder. A failed intake changes nothing in it, except that it lists unusable rows in
            `quarantine.failed.jsonl`, which the next successful intake removes.
        task: name on the card.
        request: the records to take.
        progress: called after every record.

    Returns:
        sha256 of every file that the options name, and the row counts.

    Raises:
        UserError: see `intake.make_records`; also if `folder` or a parent of it is not a folder.
    """
    check_folder(folder)
    options, share = intake.validate_options(request)
    rejected = Quarantine()
    failed = folder / quarantine.FAILED
    with Spool(existing_folder(folder)) as images:
        try:
            taken = intake.make_records(request, rejected, progress, images)
        except UserError as error:
            if not rejected:
                raise
            rejected.write(failed)
            raise UserError(f"{error} {failed} lists the rows that cannot be used.") from error
        write_records(folder / "records.parquet", taken.records, images)
        rejected.write(folder / quarantine.FILE)
        remove(failed)
        stated = options.model_dump(mode="json") | ({} if share is None else {HELD_OUT: share})
        assert taken.total is not None
        account = taken.to_json(rejected) | {"licence": request.source.licence, "options": stated}
        write_card(folder, task, request.source.origin, request.seed, taken.records, account, images)
    return intake.digest_source_files(options, request.root), taken.total


def _write_generated(
    folder: Path, scenario: Scenario, task: TaskConfig, source: Source, progress: Callable[[int, int], None]
) -> None:
    records: list[InstructionRecord] = source.make(
        num_train=task.num_train, num_test=task.num_test, seed=scenario.data_seed, progress=progress
    )
    write_records(folder / "records.parquet", records)
    write_card(folder, task.name, source.origin, scenario.data_seed, records)
    for listed in (quarantine.FILE, quarantine.FAILED):
        remove(folder / listed)


def _checked(where: str, task: TaskConfig) -> Source | FileSource:
    """Return the task's source after checking the task's kind and options against it."""
    source = get_source(task.source, f"{where}.source")
    if source.kind not in (None, task.kind):
        raise UserError(
            f"{where}.kind: source {task.source!r} makes examples of kind {source.kind!r}, got {task.kind!r}. "
            f"Set kind: {source.kind}."
        )
    if isinstance(source, Source) and task.options:
        names = ", ".join(sorted(task.options))
        raise UserError(f"{where}.options: source {task.source!r} takes no options, got {names}. Remove them.")
    return source
