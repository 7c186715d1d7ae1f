"""All words of the scenarios' instructions and answers, which a small tokenizer must know."""

import re
from collections.abc import Iterable

from pilot.data import prompts
from pilot.data.generated import easy_vqa, scene_caption
from pilot.data.scenes import referring, relations, scene_questions, sprites, wording

_WORD = re.compile(r"[A-Za-z]+|[0-9]")
_FIELD = re.compile(r"\{\w+\}")


def words_of(text: str) -> list[str]:
    """Return the runs of letters and the single digits of a text; punctuation is left out."""
    return _WORD.findall(text)


def scenario_words() -> list[str]:
    """Return sorted unique words, with their capitals. Signs are not words: they are made of `sprites.GLYPHS`."""
    templates = [_FIELD.sub(" ", template) for template in (*_question_templates(), *_other_templates())]
    texts = [*templates, *_fillers(), *_easy_vqa_texts()]
    return sorted({word for text in texts for word in words_of(text)})


def _question_templates() -> tuple[str, ...]:
    q = scene_questions
    scene = (q.EXISTENCE, q.COUNTING, q.BACKGROUND, q.CORNER, q.EDGE, q.RELATION, q.FAMILY)
    return *scene, q.WRITTEN, q.FIRST, q.LAST, q.LENGTH, prompts.SINGLE_WORD


def _other_templates() -> tuple[str, ...]:
    expressions = (referring.CORNER, referring.EDGE, referring.RELATION, *referring.SIZES)
    return prompts.CAPTION, prompts.GROUND, *expressions, *scene_caption.WORDINGS


def _fillers() -> Iterable[str]:
    """Return the words that fill the templates, and the answers; `A` and `An` begin captions."""
    names = (*sprites.OBJECTS, *sprites.FAMILIES, *wording.FAMILY_PLURALS.values(), *sprites.BACKGROUNDS)
    places = (*relations.SIDES, *relations.DIRECTIONS, *relations.CORNERS)
    return *names, *places, "object", "objects", "yes", "no", "a", "an", "A", "An", "and", "0123456789"


def _easy_vqa_texts() -> Iterable[str]:
    """Return the 107 distinct questions and 13 answers of the public data set's training split."""
    questions, _ = easy_vqa.official("train")
    return {text for question in questions for text in question[:2]}
