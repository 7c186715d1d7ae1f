"""`llava-json`: instruction files in LLaVA's format, such as `llava_v1_5_mix665k.json`.

https://github.com/haotian-liu/LLaVA/blob/main/docs/Finetune_Custom_Data.md: a list of `{id, image, conversations}`,
where `conversations` is a list of alternating `{from: human|gpt, value}`. In the LLaVA-1.5 mix, the image's folder
gives the data set of a row, and the wording of the question gives the form of the answer: a short answer (GQA, VQAv2,
OCR-VQA), an option's letter (A-OKVQA), a caption (TextCaps), a box or a region's description (RefCOCO, Visual Genome;
boxes are fractions of the square that the image is padded to), or any other (`open`). Only the first question of a
conversation has the answer-format line; it applies to the questions after it, which get it when a conversation is
split.

A row without an image, of another folder or of another form is skipped and counted. So are region descriptions, whose
question holds a box as text, and rows with an empty answer (LLaVA's code masks an example that ends with one).

A list is read as a whole (its lines cannot be parsed separately): about 1 GB for the mix, several GB of memory during
reading. A file with one element per line is streamed.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

from pilot.config.base import Model
from pilot.data.prompts import SINGLE_WORD
from pilot.data.readers.files import read_json_rows
from pilot.data.readers.values import FieldError
from pilot.data.rows import Place, RawBox, RawTurn, Rejected, Row, Rows, Skipped
from pilot.errors import UserError

IMAGE = "<image>"
LETTER = "Answer with the option's letter from the given choices directly."
FORM_LINES = (SINGLE_WORD, LETTER)
NO_ANSWER = "no answer"
_CAPTION = re.compile(r"provide a (one-sentence|brief|short) caption|describe the image concisely", re.IGNORECASE)
_REGION = re.compile(r"short description (for|of) this region", re.IGNORECASE)
_GROUND = re.compile(r"bounding box coordinates? of the region", re.IGNORECASE)
_NUMBER = r"\s*(-?\d+(?:\.\d+)?)\s*"
_BOX = re.compile(rf"\s*\[{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}\]\.?\s*")

Form = Literal["short_answer", "multiple_choice", "open", "caption", "box", "region"]
VqaForm = Literal["short_answer", "multiple_choice", "open"]
Turns = list[tuple[str, str]]
_INCLUDED_BY = {form: f" (--form {form} takes it, in a scenario forms: [{form}])" for form in get_args(VqaForm)}
_INCLUDED_BY |= {"caption": " (of a task of kind caption)", "box": " (of a task of kind ground)"}


class Options(Model):
    """Options of `llava-json`.

    Attributes:
        file: file with the training rows.
        test_file: file with the test rows; without it, test rows are held out (`held_out`).
        images: folder that the rows' image paths are relative to.
        prefixes: select rows whose image path begins with one of these; all rows by default.
        forms: forms of questions to select, for kind `vqa`.
        turns: `split` makes one row per question; `keep` makes one row per conversation and trains on all its answers,
            as LLaVA's code does; for scoring, the last question is asked after the earlier turns.
        kind: the task's kind.
    """

    file: str
    test_file: str = ""
    images: str = ""
    prefixes: tuple[str, ...] = ()
    forms: tuple[VqaForm, ...] = ("short_answer",)
    turns: Literal["split", "keep"] = "split"
    kind: str


def read(options: Options, root: Path, split: str) -> Rows:
    """Yield the rows of the training or the test file.

    Raises:
        UserError: a missing file, neither a JSON list nor JSON lines, or the test split without a test file.
    """
    name = options.file if split == "train" else options.test_file
    if not name:
        raise UserError(
            f"{options.file}: no test rows. Set the option test_file, or held_out to test on a share of the training "
            "images."
        )
    for row, element in read_json_rows(root / name):
        place = Place(name, row)
        if isinstance(element, FieldError):
            yield Rejected(place, element.field, element.reason)
        else:
            yield from _rows(options, place, element)


def form_of(question: str) -> Form:
    """Return the form that a question asks for, judged by its wording."""
    if SINGLE_WORD in question:
        return "short_answer"
    if LETTER in question:
        return "multiple_choice"
    for pattern, form in ((_REGION, "region"), (_GROUND, "box"), (_CAPTION, "caption")):
        if pattern.search(question):
            return form  # type: ignore[return-value]
    return "region" if _BOX.fullmatch(question) else "open"


def _rows(options: Options, place: Place, element: Any) -> Rows:
    """Yield the rows of one element: rejected or skipped as a whole, or one row per question or conversation."""
    if not isinstance(element, dict):
        yield Rejected(place, "row", "expected an object with id, image and conversations")
        return
    image = element.get("image")
    if image is None:
        yield Skipped(place, "no image")
        return
    if not isinstance(image, str):
        yield Rejected(place, "image", "expected one path as text")
        return
    if options.prefixes and not image.startswith(options.prefixes):
        yield Skipped(place, "another image folder")
        return
    turns = _turns(element.get("conversations"))
    if isinstance(turns, str):
        yield Rejected(place, "conversations", turns)
        return
    name = f"{'' if element.get('id') is None else element['id']}-{place.row}"
    if options.turns == "keep":
        yield _conversation_row(options, place, name, image, turns)
        return
    for number, (question, answer) in enumerate(_with_format_line([(q.strip(), a.strip()) for q, a in turns])):
        yield _row(options, place, f"{name}-{number}", image, question, answer)


def _turns(value: Any) -> Turns | str:
    """Return questions with their answers, unchanged except for the image token; or a description of the error."""
    if not isinstance(value, list) or not value or len(value) % 2:
        return "expected a list of pairs: human, gpt, human, gpt, ..."
    texts = []
    for number, turn in enumerate(value):
        speaker = ("human", "gpt")[number % 2]
        if not isinstance(turn, Mapping) or turn.get("from") != speaker or not isinstance(turn.get("value"), str):
            return f"turn {number}: expected from {speaker!r} and a value that is text"
        text = turn["value"]
        texts.append(text.replace(IMAGE, "").strip() if IMAGE in text else text)  # as LLaVA's code does
    return list(zip(texts[::2], texts[1::2], strict=True))


def _with_format_line(turns: Turns) -> Turns:
    """Make questions self-contained: apply the first question's answer-format line, or its request, to the others."""
    first = turns[0][0]
    line = next((line for line in FORM_LINES if line in first), None)
    asked = first.split("[")[0] if form_of(first) == "region" else None
    found = turns[:1]
    for question, answer in turns[1:]:
        form = form_of(question)
        if line and form == "open":
            question = f"{question}\n{line}"
        elif asked and _BOX.fullmatch(question):
            question = f"{asked}{question}"
        found.append((question, answer))
    return found


def _conversation_row(options: Options, place: Place, name: str, image: str, turns: Turns) -> Row | Rejected | Skipped:
    """Return a conversation as one row; its form is that of the last question with the first one's format line."""
    form = form_of(_with_format_line(turns)[-1][0])
    *earlier, (question, answer) = turns
    row = _row(options, place, name, image, question, answer, form)
    if not isinstance(row, Row):
        return row
    before = []
    for asked, said in earlier:
        if not said:
            return Skipped(place, NO_ANSWER)
        box = _box(said) if options.kind == "ground" else None
        if options.kind == "ground" and (box is None or form_of(asked) != "box"):
            return Skipped(place, "a conversation not only about boxes")
        before.append(RawTurn(asked, said, box))
    return replace(row, earlier=tuple(before))


def _row(
    options: Options, place: Place, name: str, image: str, question: str, answer: str, form: Form | None = None
) -> Row | Rejected | Skipped:
    form = form or form_of(question)
    wanted = {"vqa": options.forms, "caption": ("caption",), "ground": ("box",)}[options.kind]
    if form not in wanted:
        return Skipped(place, f"form {form}{_INCLUDED_BY.get(form, '')}")
    if not answer:
        return Skipped(place, NO_ANSWER)
    attributes = {"data": image.split("/")[0], "form": form}
    if options.kind != "ground":
        return Row(place, name, image, question, answer, (answer.strip(),), attributes)
    box = _box(answer)
    if box is None:
        return Rejected(place, "conversations", "expected a box as answer: [x1, y1, x2, y2]")
    return Row(place, name, image, question, "", (), attributes, box)


def _box(answer: str) -> RawBox | None:
    found = _BOX.fullmatch(answer)
    if found is None:
        return None
    x1, y1, x2, y2 = map(float, found.groups())
    return RawBox((x1, y1, x2, y2), "padded_square_xyxy")
