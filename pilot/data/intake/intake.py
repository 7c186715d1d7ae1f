"""Conversion of a reader's rows to records: select, open, check, replace bad rows, and account for every row.

The rows are read once to find the candidates (`survey`), and again for the rows that are tried. Images of other rows
are never opened. A row with a bad image or box goes to quarantine and the next one takes its place, so that the result
depends only on the files and the seed. The test split is filled first; a training image that is identical to a test
image, byte by byte, is left out.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from pilot.config.base import Model
from pilot.config.files import validated
from pilot.data.account import SplitCounts, combine_counts
from pilot.data.intake.filling import IntakeResult, RecordBuilder
from pilot.data.intake.reading import ReadOnce
from pilot.data.intake.request import HELD_OUT, Request
from pilot.data.intake.survey import Survey, hold_out, survey, trial_order
from pilot.data.quarantine import Quarantine
from pilot.data.readers.files import below, matching
from pilot.data.rows import Rows
from pilot.errors import UserError
from pilot.io.digest import sha256_file
from pilot.io.seeding import generator
from pilot.io.spool import Spool

Progress = Callable[[int, int], None]
SPLITS = ("test", "train")
"""Splits in the order in which they are filled."""
OFFICIAL_NUM_REFERENCES = 10
"""Same number as in `pilot.evaluation.vqa`, which is a later layer."""


def make_records(request: Request, quarantine: Quarantine, progress: Progress, kept: Spool) -> IntakeResult:
    """Select and make the requested records; sources that stream from a network are read once for each split.

    Args:
        request: the records to take.
        quarantine: receives every row that cannot be used; the caller writes it, also after an error.
        progress: called after every record with the number of records made and the total.
        kept: receives the records' images.

    Raises:
        UserError: wrong options, an unreadable file, too few usable rows, or too many unusable ones.
    """
    options, share = validate_options(request)
    reading = {split: "train" if share else split for split in SPLITS}
    sources: dict[str, Callable[[], Rows]] = {}
    for name in sorted(set(reading.values())):
        source = partial(request.source.read, options, request.root, name)
        sources[name] = ReadOnce(source, kept) if getattr(options, "streaming", False) else source
    read = {split: sources[reading[split]] for split in SPLITS}
    found = {}
    for split in ("train",) if share else SPLITS:
        found[split] = survey(read[split](), request.kind, quarantine)
    _check(request, options, list(found.values()), quarantine)
    surveys = {split: found[reading[split]] for split in SPLITS}
    candidates = {split: surveys[split].candidates for split in SPLITS}
    if share:
        candidates["train"], candidates["test"] = hold_out(found["train"], share, request.seed, request.name)
    numbers = {"train": request.num_train, "test": request.num_test}
    total = sum(len(candidates[split]) if number is None else number for split, number in numbers.items())
    result = IntakeResult(accounts={split: _account(surveys[split], candidates[split]) for split in SPLITS})
    images = request.root / getattr(options, "images", "")
    builder = RecordBuilder(request, images, kept, quarantine, lambda num_made: progress(num_made, total), result)
    records = {}
    for split in SPLITS:
        order = trial_order(candidates[split], generator("intake", request.seed, request.name, split))
        records[split] = builder.build(split, order, numbers[split], read[split])
    result.records = [*records["train"], *records["test"]]
    result.total = combine_counts(list(found.values()), result.accounts, quarantine, result.left_out)
    _check_references(request, result)
    return result


def validate_options(request: Request) -> tuple[Model, float | None]:
    """Return the source's validated options, and the share of images to hold out for testing.

    Raises:
        UserError: a wrong, unknown or missing field; names it.
    """
    values, where = dict(request.options), f"{request.where}, options"
    share = values.pop(HELD_OUT, None)
    if share is not None and not (isinstance(share, float | int) and 0 < share < 1):
        raise UserError(f"{where}: field {HELD_OUT}: expected a share above 0 and below 1, got {share!r}. Correct it.")
    if "kind" in request.source.options_model.model_fields:
        if "kind" in values:
            raise UserError(f"{where}: field kind: set by the task's field `kind`. Remove it from the options.")
        values["kind"] = request.kind
    return validated(request.source.options_model, where, values), share


def digest_source_files(options: Model, root: Path) -> dict[str, str]:
    """Return sha256 by name of every file that the options name: directly, by a wildcard, or as JSON in a folder.

    A property `file_names` of the options may name further files that follow from them. Images are not included; every
    record has its image's digest.
    """
    named = [*_texts(options.model_dump()), *getattr(options, "file_names", ())]
    found: set[Path] = set()
    for name in filter(None, named):
        for path in matching(root, name):
            found.update(path.glob("*.json") if path.is_dir() else [path])
    return {below(path, root): sha256_file(path) for path in sorted(found) if path.is_file()}


def _texts(value: Any) -> Iterator[str]:
    """Yield every text in nested options."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from chain.from_iterable(map(_texts, value.values()))
    elif isinstance(value, list | tuple):
        yield from chain.from_iterable(map(_texts, value))


def _check(request: Request, options: Model, found: Sequence[Survey], quarantine: Quarantine) -> None:
    """Raise an error if there are no rows or too many malformed ones; a row read for both splits counts once."""
    if not any(each.num_read for each in found):
        file = getattr(options, "file", None)
        where = request.root / file if file else f"{request.where}, options"
        raise UserError(f"{where}: no rows. Name a file with at least one row.")
    num_all = len(quarantine) + sum(len(each.candidates) for each in found)
    files = ", ".join(sorted({each.first_file for each in found} - {""})) or "the files"
    quarantine.check(request.where, f"rows of {files}", len(quarantine), num_all, request.max_quarantine)


def _check_references(request: Request, result: IntakeResult) -> None:
    """Refuse VQA records of which only some have the ten answers of the official VQA accuracy."""
    numbers = {len(record.references) for record in result.records} if request.kind == "vqa" else set()
    if OFFICIAL_NUM_REFERENCES in numbers and len(numbers) > 1:
        raise UserError(
            f"{request.where}: some questions have {OFFICIAL_NUM_REFERENCES} answers and others {min(numbers)} to "
            f"{max(numbers)}: no single metric covers both (the official VQA accuracy needs ten, exact match is for "
            "fewer). Give every question ten answers, or none of them."
        )


def _account(found: Survey, candidates: Mapping[int, str]) -> SplitCounts:
    skipped = Counter(found.skipped.values())
    if others := len(found.candidates) - len(candidates):
        skipped["on the other side of held_out"] = others
    return SplitCounts(found.num_read, skipped, len(found.rejected))
