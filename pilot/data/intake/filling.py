"""Second pass over a source: rows are tried in the given order until a split is full."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pilot.data.account import SourceCounts, SplitCounts
from pilot.data.boxes import BadBox, CheckedBox, check_box
from pilot.data.duplicates import near_duplicates
from pilot.data.images import BadImage, NormalisedImage, load
from pilot.data.intake.reading import keep_image
from pilot.data.intake.request import HELD_OUT, Request
from pilot.data.prompts import box_answer
from pilot.data.quarantine import Quarantine
from pilot.data.record import InstructionRecord, Turn
from pilot.data.rows import KeptImage, RawBox, Rejected, Row, Rows
from pilot.errors import UserError
from pilot.io.spool import Spool

SPARE = 16
"""Number of additional rows that are read to replace bad rows without another pass."""


@dataclass
class IntakeResult:
    """Records with an account of their intake.

    Attributes:
        records: training, then test, each in the order of the files; their images are kept by sha256 elsewhere.
        accounts: row counts by split.
        image_notes: number of records whose image was changed, by kind of change.
        num_clipped: number of boxes clipped to the image.
        largest_clip: largest clipped part, as a share of the image's side.
        fingerprints: perceptual hash by sha256, by split.
        left_out: number of records by column that is not an attribute.
        total: row counts of the source, once the records are complete.
    """

    records: list[InstructionRecord] = field(default_factory=list)
    accounts: dict[str, SplitCounts] = field(default_factory=dict)
    image_notes: Counter[str] = field(default_factory=Counter)
    num_clipped: int = 0
    largest_clip: float = 0.0
    fingerprints: dict[str, dict[str, int | None]] = field(default_factory=lambda: {"train": {}, "test": {}})
    left_out: Counter[str] = field(default_factory=Counter)
    total: SourceCounts | None = None

    def to_json(self, quarantine: Quarantine) -> dict[str, Any]:
        """Return the account for the data card."""
        assert self.total is not None, "the records are not complete"
        near = near_duplicates(self.fingerprints["train"], self.fingerprints["test"])
        plain = sum(list(prints.values()).count(None) for prints in self.fingerprints.values())
        return {
            "rows": {name: account.to_json() for name, account in sorted(self.accounts.items())},
            "total": self.total.to_json(),
            "quarantined": {"num_rows": len(quarantine), "by_reason": [list(pair) for pair in quarantine.reasons()]},
            "image_notes": dict(sorted(self.image_notes.items())),
            "boxes": {"num_clipped": self.num_clipped, "largest_clip": round(self.largest_clip, 4)},
            "near_duplicates": {
                "num_test_images": near.num_test,
                "num_train_images": near.num_train,
                "num_plain_images": plain,
                "examples": [{"bits": bits, "test": test, "train": train} for bits, test, train in near.examples],
            },
        }


@dataclass(frozen=True)
class RecordBuilder:
    """Second pass for one task, which fills its splits with records.

    Attributes:
        request: the records to make.
        images: folder that image references are relative to.
        kept: images of the records, and those of rows that hold them.
        quarantine: receives every unusable row.
        advance: called after every record with the number of records made.
        result: records made so far, and their counts.
    """

    request: Request
    images: Path
    kept: Spool
    quarantine: Quarantine
    advance: Callable[[int], None]
    result: IntakeResult

    def build(
        self, split: str, order: Sequence[int], number: int | None, read: Callable[[], Rows]
    ) -> list[InstructionRecord]:
        """Make the records of a split, in the order of the files.

        Args:
            split: `train` or `test`; its account must exist.
            order: positions of the rows, in the order in which they are tried.
            number: number of records; None for all.
            read: yields all rows, as in the first pass.

        Raises:
            UserError: too few usable rows, too many unusable ones, or files that changed between the passes.
        """
        account = self.result.accounts[split]
        wanted, tried = len(order) if number is None else number, 0
        made: dict[int, InstructionRecord] = {}
        while len(made) < wanted and tried < len(order):
            batch = order[tried : tried + wanted - len(made) + SPARE]
            rows = self._fetch(set(batch), read)
            for position in batch:
                if len(made) == wanted:
                    break
                tried += 1
                if record := self._build_record(split, rows.pop(position)):
                    made[position] = record
                if number is not None:
                    self._check(split, account.num_unusable + number)
        self._check(split, tried)
        account.num_not_chosen = len(order) - tried
        if len(made) < (number or 1):
            raise self._too_few(split, number, account)
        return [made[position] for position in sorted(made)]

    def _check(self, split: str, num_opened: int) -> None:
        """Raise an error if too many of the rows that are, or at least will be, opened are unusable."""
        num_bad = self.result.accounts[split].num_unusable
        what = f"rows that were opened for split {split}"
        self.quarantine.check(self.request.where, what, num_bad, num_opened, self.request.max_quarantine)

    def _fetch(self, positions: set[int], read: Callable[[], Rows]) -> dict[int, Row]:
        rows = {
            place: keep_image(row, self.kept)
            for place, row in enumerate(read())
            if place in positions and isinstance(row, Row)
        }
        if len(rows) < len(positions):
            raise UserError(f"{self.request.where}: the files changed while they were read. Run the command again.")
        return rows

    def _build_record(self, split: str, row: Row) -> InstructionRecord | None:
        """Return the record of a row; count it and return None if it is unusable or its image is in the test data."""
        account = self.result.accounts[split]
        image = load(self.images, self.kept[row.image.sha256] if isinstance(row.image, KeptImage) else row.image)
        if isinstance(image, BadImage):
            self._reject(split, row, "image", image.reason)
            return None
        box = self._box(row.box, image)
        if isinstance(box, BadBox):
            self._reject(split, row, "box", box.reason)
            return None
        earlier = self._earlier(row, image)
        if isinstance(earlier, BadBox):
            self._reject(split, row, "box", f"of an earlier turn: {earlier.reason}")
            return None
        digest = self.kept.add(image.data)
        if split == "train" and digest in self.result.fingerprints["test"]:
            account.num_duplicates += 1
            return None
        self.result.left_out.update(row.left_out)
        self._count(split, digest, image, box)
        self.advance(sum(each.num_taken for each in self.result.accounts.values()))
        return self._record(split, row, digest, box, earlier)

    def _reject(self, split: str, row: Row, name: str, reason: str) -> None:
        self.quarantine.add(Rejected(row.place, name, reason), f"{split} {row.id}")
        self.result.accounts[split].num_unusable += 1

    def _earlier(self, row: Row, image: NormalisedImage) -> tuple[Turn, ...] | BadBox:
        """Return the turns before a row's question, with boxes as fractions of the image."""
        turns = []
        for turn in row.earlier:
            box = self._box(turn.box, image)
            if isinstance(box, BadBox):
                return box
            answer = turn.answer if box is None else box_answer(box.box)
            turns.append(Turn(turn.instruction, answer, None if box is None else box.box))
        return tuple(turns)

    def _box(self, raw: RawBox | None, image: NormalisedImage) -> CheckedBox | BadBox | None:
        if raw is None:
            return None
        if image.rotated:
            return BadBox(
                "the image has an EXIF rotation, and it is unknown whether the box refers to the rotated image. "
                "Save the image upright without the tag"
            )
        return check_box(raw, image.width, image.height)

    def _count(self, split: str, digest: str, image: NormalisedImage, box: CheckedBox | None) -> None:
        self.result.accounts[split].num_taken += 1
        self.result.fingerprints[split][digest] = image.fingerprint
        self.result.image_notes.update(image.notes)
        if box is not None and box.clipped > 0:
            self.result.num_clipped += 1
            self.result.largest_clip = max(self.result.largest_clip, box.clipped)

    def _record(
        self, split: str, row: Row, digest: str, box: CheckedBox | None, earlier: tuple[Turn, ...]
    ) -> InstructionRecord:
        answer = row.answer if box is None else box_answer(box.box)
        return InstructionRecord(
            id=row.id if self.request.source.own_ids else f"{self.request.name}-{split}-{row.id}",
            task=self.request.kind,
            source=self.request.name,
            image=b"",
            instruction=row.instruction,
            answer=answer,
            references=row.references if box is None else (answer,),
            attributes=dict(row.attributes),
            split=split,
            box=None if box is None else box.box,
            earlier=earlier,
            known_sha256=digest,
        )

    def _too_few(self, split: str, number: int | None, account: SplitCounts) -> UserError:
        held_out = HELD_OUT in self.request.options
        expected = "rows were expected" if number is None else f"num_{split} is {number}"
        skipped = "".join(f"; {count} rows: {reason}" for reason, count in account.num_skipped.most_common(3))
        return UserError(
            f"{self.request.where}: {expected}, but the source has {account.num_taken} usable rows for split {split} "
            f"(of {account.num_read} read: {account.num_rejected + account.num_unusable} unusable, "
            f"{account.num_duplicates} with an image of the test split{skipped}). "
            + ("Lower it" if number and account.num_taken else "Check file and options")
            + ("." if held_out else ", or set held_out to test on a share of the training images.")
        )
