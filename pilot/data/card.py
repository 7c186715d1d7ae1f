"""Data card of a task: counts, answers, origin and a contact sheet, beside its parquet file."""

import hashlib
import io
import textwrap
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pilot.data.account import format_counts
from pilot.data.frames import image_size
from pilot.data.record import NO_IMAGES, SPLITS, InstructionRecord, image_of
from pilot.io.atomic import write_bytes, write_json, write_text

if TYPE_CHECKING:
    from pilot.matplotlib_import import Axes

NUM_ANSWERS = 20
_ROWS, _COLUMNS = 3, 4
_WRAP, _LINES = 44, 4
_MAX_SIDE = 600
"""Largest side of a drawn image in pixels."""
_CELL, _GAP, _TITLE = (2.6, 3.4), 0.1, 0.35
"""Inches: a cell's width and height, the gap between images, the height of the title."""


def write_card(
    folder: Path,
    task: str,
    origin: str,
    seed: int,
    records: Sequence[InstructionRecord],
    account: Mapping[str, Any] | None = None,
    images: Mapping[str, bytes] = NO_IMAGES,
) -> None:
    """Write card.json, card.md and contact_sheet.png; equal records give equal bytes.

    Args:
        folder: output folder.
        task: the task's name.
        origin: where the data come from.
        seed: seed of the selection.
        records: all records of the task, at least one.
        account: for data read from files: `IntakeResult.to_json`, with `licence` and `options`; the card's `intake`.
        images: image files of records without them, by sha256.
    """
    card = summarise(task, origin, seed, records, images) | ({} if account is None else {"intake": dict(account)})
    write_json(folder / "card.json", card)
    write_text(folder / "card.md", _markdown(card))
    write_bytes(folder / "contact_sheet.png", contact_sheet(task, records, images))


def summarise(
    task: str, origin: str, seed: int, records: Sequence[InstructionRecord], images: Mapping[str, bytes]
) -> dict[str, Any]:
    """Return the card as JSON: counts per split, attribute and answer distributions, word counts, image sizes."""
    splits = {split: [record for record in records if record.split == split] for split in SPLITS}
    sizes = Counter("{}x{}".format(*image_size(image_of(record, images))) for record in records)
    shown = dict(sorted(sizes.items())) if len(sizes) <= NUM_ANSWERS else dict(_ranked(sizes)[:NUM_ANSWERS])
    return {
        "task": task,
        "kind": records[0].task,
        "source": records[0].source,
        "origin": origin,
        "seed": seed,
        "image_sizes": shown,
        **({"num_image_sizes": len(sizes)} if len(sizes) > len(shown) else {}),
        "num_words": {
            "instruction": _min_max(record.instruction for record in records),
            "answer": _min_max(record.answer for record in records),
        },
        "references_per_example": sorted({len(record.references) for record in records}),
        "splits": {split: _describe(members) for split, members in splits.items()},
    }


def contact_sheet(task: str, records: Sequence[InstructionRecord], images: Mapping[str, bytes]) -> bytes:
    """Draw up to twelve training examples, chosen by digest of their id: image, question, answer, true box (PNG)."""
    from pilot.matplotlib_import import matplotlib

    with matplotlib.rc_context(dict(matplotlib.rcParamsDefault)):  # ignore the user's settings
        return _draw_sheet(task, records, images)


def _draw_sheet(task: str, records: Sequence[InstructionRecord], images: Mapping[str, bytes]) -> bytes:
    from pilot.matplotlib_import import Figure

    train = [record for record in records if record.split == "train"]
    chosen = sorted(train, key=lambda r: hashlib.sha256(r.id.encode()).hexdigest())[: _ROWS * _COLUMNS]
    num_rows = -(-len(chosen) // _COLUMNS)
    width, height = _COLUMNS * _CELL[0] + _GAP, num_rows * _CELL[1] + _TITLE
    figure = Figure(figsize=(width, height))
    figure.text(0.5, 1 - 0.5 * _TITLE / height, f"{task}: training examples", ha="center", va="center")
    for place, record in enumerate(chosen):
        row, column = divmod(place, _COLUMNS)
        left, top = column * _CELL[0] + _GAP, height - _TITLE - row * _CELL[1]
        side = _CELL[0] - _GAP
        axes = figure.add_axes((left / width, (top - side) / height, side / width, side / height))
        _draw_example(axes, record, image_of(record, images))
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


def _draw_example(axes: "Axes", record: InstructionRecord, data: bytes) -> None:
    from PIL import Image

    from pilot.matplotlib_import import Rectangle

    image = Image.open(io.BytesIO(data)).convert("RGB")
    axes.axis("off")
    width, height = image.size
    image.thumbnail((_MAX_SIDE, _MAX_SIDE))
    axes.imshow(image, extent=(0, width, height, 0), interpolation="nearest")
    if record.box is not None:
        x1, y1, x2, y2 = record.box
        place, size = (x1 * width, y1 * height), ((x2 - x1) * width, (y2 - y1) * height)
        axes.add_patch(Rectangle(place, *size, fill=False, ec="white", lw=3.2))
        axes.add_patch(Rectangle(place, *size, fill=False, ec="black", lw=1.4))
    instruction, answer = record.instruction.split("\n")[0], f"→ {record.answer}"
    lines = [*_wrapped(instruction), *_wrapped(answer)]
    axes.text(0, height * 1.04, "\n".join(lines), fontsize=7.5, va="top", ha="left", parse_math=False)


def _wrapped(text: str) -> list[str]:
    """Wrap a text to a few lines; end a truncated text in an ellipsis."""
    return textwrap.wrap(text, _WRAP, max_lines=_LINES, placeholder=" …")


def _describe(records: Sequence[InstructionRecord]) -> dict[str, Any]:
    answers = Counter(record.answer for record in records)
    names = sorted({name for record in records for name in record.attributes})
    attributes = {name: Counter(record.attributes.get(name, "") for record in records) for name in names}
    return {
        "num_records": len(records),
        "num_images": len({record.image_sha256 for record in records}),
        "num_distinct_answers": len(answers),
        "most_frequent_answers": _ranked(answers)[:NUM_ANSWERS],
        "attributes": {
            name: {"num_distinct": len(counts), "most_frequent": _ranked(counts)[:NUM_ANSWERS]}
            for name, counts in attributes.items()
        },
    }


def _ranked(counts: Counter[str]) -> list[list[Any]]:
    """Return [value, count] pairs by descending count, then by value."""
    return [[value, count] for value, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]


def _min_max(texts: Iterable[str]) -> dict[str, int]:
    lengths = [len(text.split()) for text in texts]
    return {"min": min(lengths), "max": max(lengths)}


def _markdown(card: dict[str, Any]) -> str:
    words, sizes = card["num_words"], ", ".join(card["image_sizes"])
    sizes += f" and {card['num_image_sizes'] - NUM_ANSWERS} other sizes" if "num_image_sizes" in card else ""
    lines = [
        f"# {card['task']}",
        "",
        f"- kind: {card['kind']}; source: `{card['source']}`; seed: {card['seed']}",
        f"- origin: {card['origin']}",
        f"- images: {sizes} pixels; words per instruction: {words['instruction']['min']} to "
        f"{words['instruction']['max']}, per answer: {words['answer']['min']} to {words['answer']['max']}",
        "",
        "| split | examples | images | distinct answers |",
        "| --- | --- | --- | --- |",
    ]
    for name, split in card["splits"].items():
        counts = (split["num_records"], split["num_images"], split["num_distinct_answers"])
        lines.append(f"| {name} | {' | '.join(map(str, counts))} |")
    train = card["splits"]["train"]
    lines += ["", "## Training split", ""]
    for name, attribute in train["attributes"].items():
        if attribute["num_distinct"] <= NUM_ANSWERS:
            lines.append(f"- {name}: {_list(attribute['most_frequent'])}")
    repeated = [pair for pair in train["most_frequent_answers"] if pair[1] > 1]
    lines += [f"- most frequent answers: {_list(repeated) or 'none occurs twice'}", ""]
    lines += _intake_lines(card["intake"]) if "intake" in card else []
    return "\n".join([*lines, "![examples](contact_sheet.png)", ""])


def _intake_lines(account: Mapping[str, Any]) -> list[str]:
    """Return the Markdown lines on the files' rows, images and boxes."""
    quarantined, near, boxes = account["quarantined"], account["near_duplicates"], account["boxes"]
    names = ("num_read", "num_taken", "num_not_chosen", "num_rejected", "num_unusable", "num_duplicates")
    lines = ["## Intake", "", f"- licence: {account['licence']}"]
    lines.append(f"- quarantined rows: {quarantined['num_rows']}")
    lines += [f"  - {reason} ({count})" for reason, count in quarantined["by_reason"]]
    clipped = f"{boxes['num_clipped']}, by at most {boxes['largest_clip']:.2%} of a side"
    lines.append(f"- boxes clipped to the image: {clipped}")
    lines += [f"- images: {note} ({count})" for note, count in account["image_notes"].items()]
    lines.append(
        f"- test images that resemble a training image: {near['num_test_images']} (perceptual hash; "
        f"{near['num_plain_images']} plain images have none)"
    )
    lines += ["", "| split | read | taken | not chosen | malformed | unusable | image in test | skipped |"]
    lines.append("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for split, counts in account["rows"].items():
        values = [counts[name] for name in names] + [sum(counts["num_skipped"].values())]
        lines.append(f"| {split} | {' | '.join(map(str, values))} |")
    skipped, left_out = account["total"]["skipped"], account["total"]["left_out"]
    lines += ["", f"Skipped: {format_counts(skipped) or 'nothing'}."]
    return [*lines, *([f"No text or number, so no attribute: {format_counts(left_out)}."] if left_out else []), ""]


def _list(ranked: list[list[Any]]) -> str:
    return ", ".join(f"{value} ({count})" for value, count in ranked)
