"""Reader of data sets on the Hugging Face hub at a pinned revision, or of their downloaded parquet files.

https://huggingface.co/docs/datasets; the licence is that of the data set. Code in a data set's repository never runs.
Images are the encoded bytes in the table.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import model_validator

from pilot.config.base import Model
from pilot.data.readers.captions import TrainRows, rows_per
from pilot.data.readers.files import RelativePath
from pilot.data.readers.hub.rows import NEEDED, convert_row, image_bytes
from pilot.data.readers.hub.sets import HUB_SETS, Columns, HubSet, ImageTable, known_set
from pilot.data.readers.hub.tables import Item, Table, read_items
from pilot.data.readers.values import FieldError, identifier, shown, unique
from pilot.data.rows import Rejected, Rows, Skipped
from pilot.errors import UserError


class Options(Model):
    """Options of a data set on the hub.

    Attributes:
        kind: the task's kind: `vqa`, `caption` or `ground`.
        dataset: `owner/name`; known data sets (`HUB_SETS`) need no columns.
        revision: the 40 hexadecimal digits of a commit; required unless files are given.
        train_name: configuration for training, if there are several.
        test_name: configuration for testing.
        train_split: the data set's split for training.
        test_split: the data set's split for testing.
        train_files: local parquet files for training, relative to the root, with * and ? as wildcards; the hub is then
            not accessed.
        test_files: local parquet files for testing.
        streaming: whether to read from the hub row by row, instead of downloading everything first.
        columns: columns that differ from those of the known data set.
        image_table: location of images that are in a separate configuration.
        train_values: values of the column `split`, if there is one, for training.
        test_values: values of the column `split` for testing.
        train_rows: training rows per image or per caption, for captioning.
    """

    kind: Literal["vqa", "caption", "ground"]
    dataset: str
    revision: str = ""
    train_name: str | None = None
    test_name: str | None = None
    train_split: str | None = None
    test_split: str | None = None
    train_files: tuple[RelativePath, ...] = ()
    test_files: tuple[RelativePath, ...] = ()
    streaming: bool = False
    columns: Columns = Columns()
    image_table: ImageTable | None = None
    train_values: tuple[str, ...] | None = None
    test_values: tuple[str, ...] | None = None
    train_rows: TrainRows = "image"

    @model_validator(mode="after")
    def _pinned(self) -> "Options":
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", self.dataset) or ".." in self.dataset:
            raise ValueError(f"dataset: expected owner/name, got {shown(self.dataset)}")
        if self.revision and not re.fullmatch(r"[0-9a-f]{40}", self.revision):
            raise ValueError(
                f"revision: expected the 40 hexadecimal digits of a commit, got {shown(self.revision)}; branches and "
                "tags can change. Copy the commit from the data set's page, Files and versions, History"
            )
        if not self.revision and not (self.train_files and self.test_files):
            raise ValueError("revision: required unless train_files and test_files are given")
        return self


@dataclass(frozen=True)
class _Plan:
    """Tables, columns and values to read for one split."""

    table: Table
    images: Table | None
    image_table: ImageTable
    columns: Columns
    values: tuple[str, ...]


def read(options: Options, root: Path, split: str) -> Rows:
    """Yield rows of the split's table in its order (if images are in a separate table: in that table's order).

    Raises:
        UserError: an unknown data set without columns, another kind, a missing split, a file that cannot be read, or
            a hub that cannot be reached.
    """
    plan = _plan(options, root, split)
    yield from unique(_rows(options, plan, split), plan.columns.id or "(row number)")


def _plan(options: Options, root: Path, split: str) -> _Plan:
    known = known_set(options.dataset) or HubSet(options.kind, Columns(), "train", "test")
    if known.kind != options.kind:
        raise UserError(
            f"data set {options.dataset}: expected a task of kind {known.kind}, got {options.kind}. Set its kind."
        )
    changes = {name: getattr(options.columns, name) for name in options.columns.model_fields_set}
    columns = known.columns.model_copy(update=changes)
    for group in NEEDED[options.kind]:
        if not any(getattr(columns, name) for name in group):
            raise UserError(
                f"data set {options.dataset}: option columns: {' or '.join(group)} is required for kind "
                f"{options.kind}. Name the column, or use a known data set: {', '.join(HUB_SETS)}."
            )
    ours = options.model_dump()
    files = tuple(ours[f"{split}_files"])
    chosen = ours[f"{split}_split"] or getattr(known, f"{split}_split")
    if chosen is None and not files:
        raise UserError(
            f"data set {options.dataset}: no known split for {split}. Set the option {split}_split or "
            f"{split}_files, or use the official files."
        )
    name = ours[f"{split}_name"] or getattr(known, f"{split}_name")
    table = Table(root, options.dataset, options.revision, name, chosen or split, files, options.streaming)
    of_images = options.image_table or known.image_table
    images = None
    if of_images is not None and columns.image is None:
        image_files, image_name = getattr(of_images, f"{split}_files"), getattr(of_images, f"{split}_name")
        images = Table(root, options.dataset, options.revision, image_name, table.split, image_files, options.streaming)
    elif columns.image is None:
        raise UserError(f"data set {options.dataset}: option columns: image is required. Name the column with images.")
    values = ours[f"{split}_values"] or getattr(known, f"{split}_values")
    return _Plan(table, images, of_images or ImageTable(), columns, tuple(values))


def _rows(options: Options, plan: _Plan, split: str) -> Rows:
    found = _wanted(plan)
    pairs = _with_own_images(plan, found) if plan.images is None else _with_image_table(plan, plan.images, found)
    for pair in pairs:
        if isinstance(pair, Rejected | Skipped):
            yield pair
            continue
        (place, number, item), image = pair
        per = rows_per(options.train_rows, split)
        yield from convert_row(place, number, item, image, plan.columns, options.kind, per)


def _wanted(plan: _Plan) -> Iterator[Item | Rejected | Skipped]:
    """Yield the table's rows; skip those of another split, and reject those with an invalid split column."""
    columns = plan.columns
    named = [columns.id, columns.image, columns.question, columns.answer, columns.answers, columns.captions]
    named += [columns.expressions, columns.box, columns.split, *columns.labels]
    named += [] if plan.images is None else [plan.image_table.reference]
    for place, number, item in read_items(
        plan.table, [name.partition(".")[0] for name in named if name], columns.image
    ):
        if columns.split is not None:
            try:
                if (found := identifier(item, columns.split)) not in plan.values:
                    yield Skipped(place, f"split {found[:80]}")
                    continue
            except FieldError as error:
                yield Rejected(place, error.field, error.reason)
                continue
        yield place, number, item


Pair = tuple[Item, bytes]


def _with_own_images(plan: _Plan, found: Iterator[Item | Rejected | Skipped]) -> Iterator[Pair | Rejected | Skipped]:
    for one in found:
        if isinstance(one, Rejected | Skipped):
            yield one
            continue
        try:
            yield one, image_bytes(one[2], str(plan.columns.image))
        except FieldError as error:
            yield Rejected(one[0], error.field, error.reason)


def _with_image_table(
    plan: _Plan, images: Table, found: Iterator[Item | Rejected | Skipped]
) -> Iterator[Pair | Rejected | Skipped]:
    """Join rows to their images; keep the rows in memory and read the images once."""
    names, waiting = plan.image_table, dict[str, list[Item]]()
    for one in found:
        if isinstance(one, Rejected | Skipped):
            yield one
            continue
        try:
            waiting.setdefault(identifier(one[2], names.reference), []).append(one)
        except FieldError as error:
            yield Rejected(one[0], error.field, error.reason)
    for place, _, item in read_items(images, [names.id, names.image], names.image):
        try:
            key, image = identifier(item, names.id), image_bytes(item, names.image)
        except FieldError as error:
            yield Rejected(place, error.field, error.reason)
            continue
        yield from ((one, image) for one in waiting.pop(key, []))
    for key, rows in waiting.items():
        yield from (Rejected(place, names.reference, f"no usable image {key[:80]}") for place, _, _ in rows)
