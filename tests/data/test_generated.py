"""The sources against their ground truth, recomputed here from the boxes by rules of the test's own."""

import io
import re
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from pilot.data.catalogue import SOURCES
from pilot.data.generated import easy_vqa, scene_caption, scene_ground, scene_text, scene_vqa
from pilot.data.record import InstructionRecord
from pilot.data.scenes import sprites
from pilot.data.scenes.collect import Draft, scenario_generator
from pilot.data.scenes.scene import Item, Scene, object_scene
from pilot.data.scenes.scene_questions import existence, pick, relation
from pilot.io.digest import sha256_bytes
from pilot.pretraining.captions import caption
from pilot.pretraining.consolidation import plain_text
from pilot.pretraining.corpus import PublicScene, public_scene
from pilot.pretraining.fact_captions import fact_caption
from pilot.pretraining.focused_captions import focused_caption
from pilot.pretraining.general_text import STATEMENTS, general_sentence
from pilot.pretraining.recipe import Recipe
from pilot.pretraining.vocabulary import scenario_words, words_of

SUFFIX = "\nAnswer the question using a single word or phrase."
GROUND = "Please provide the bounding box coordinate of the region this sentence describes: "
AXIS = {"left": (0, 1), "right": (0, -1), "top": (1, 1), "bottom": (1, -1)}
DIRECTION = {"to the left of": (0, -1), "to the right of": (0, 1), "above": (1, -1), "below": (1, 1)}


def make(name: str, num_train: int = 40, num_test: int = 15, seed: int = 5) -> list[InstructionRecord]:
    """A small data set."""
    steps: list[tuple[int, int]] = []
    records = SOURCES[name].make(
        num_train=num_train,
        num_test=num_test,
        seed=seed,
        progress=lambda done, total: steps.append((done, total)),
    )
    assert steps == [(n + 1, num_train + num_test) for n in range(num_train + num_test)]
    return records


def drafts(source: Callable[[np.random.Generator], Draft], name: str, number: int) -> list[Draft]:
    """The drafts behind the first records."""
    return [source(scenario_generator(5, name, "train", index)) for index in range(number)]


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_same_seed_same_records_and_disjoint_splits(name: str) -> None:
    records = make(name)
    assert records == make(name)
    assert [r.image for r in records] != [r.image for r in make(name, seed=6)]
    images = {split: {r.image_sha256 for r in records if r.split == split} for split in ("train", "test")}
    assert (len(images["train"]), len(images["test"])) == (40, 15)
    assert not images["train"] & images["test"]
    assert {r.task for r in records} == {SOURCES[name].kind} and {r.source for r in records} == {name}


def test_more_test_examples_leave_training_examples_alone() -> None:
    assert make("scene-vqa", 10, 5)[:10] == make("scene-vqa", 10, 9)[:10] == make("scene-vqa", 20, 5)[:10]


def test_scene_answers() -> None:
    seen = Counter[str]()
    for draft in drafts(scene_vqa.draft, "scene-vqa", 250):
        assert draft.instruction.endswith(SUFFIX) and draft.references == (draft.answer,)
        question = draft.instruction.removesuffix(SUFFIX)
        assert _answer(question, draft.scene) == draft.answer, question
        seen[draft.attributes["question_type"]] += 1
    assert len(seen) == 7 and min(seen.values()) >= 10


def _answer(question: str, scene: Scene) -> str:
    """The answer to a question about a scene; an ambiguous question is an error."""
    names = [item.name for item in scene.objects]
    families = [sprites.FAMILY_OF[name] for name in names]
    if match := re.fullmatch(r"Is there an? (\w+) in the picture\?", question):
        return "yes" if match[1] in names else "no"
    if match := re.fullmatch(r"How many (\w+) are there\?", question):
        return str(len(names) if match[1] == "objects" else families.count(match[1][:-1]))
    if question == "What color is the background?":
        return scene.background
    if match := re.fullmatch(r"What kind of thing is the (\w+)\?", question):
        return sprites.FAMILY_OF[match[1]]
    if match := re.fullmatch(r"What is in the (\w+) (\w+) corner\?", question):
        return _only(_in_corner(scene.objects, match[1], match[2])).name
    if match := re.fullmatch(r"Which object is closest to the (\w+) edge\?", question):
        return _extreme(list(scene.objects), match[1]).name
    match = re.fullmatch(r"Is the (\w+) (to the left of|to the right of|above|below) the (\w+)\?", question)
    assert match, question
    item, other = (_only([i for i in scene.objects if i.name == name]) for name in (match[1], match[3]))
    return "yes" if _offset(item, match[2], other) > 0 else "no"


def _only(items: list[Item]) -> Item:
    assert len(items) == 1, items
    return items[0]


def _in_corner(items: tuple[Item, ...] | list[Item], vertical: str, horizontal: str) -> list[Item]:
    """Items whose centre is in a quadrant, by at least three pixels."""
    found = []
    for item in items:
        x, y = (item.box[0] + item.box[2]) / 2, (item.box[1] + item.box[3]) / 2
        inside = (x < 40) == (horizontal == "left") and (y < 40) == (vertical == "top")
        assert not inside or min(abs(x - 40), abs(y - 40)) >= 3
        found += [item] if inside else []
    return found


def _extreme(items: list[Item], side: str) -> Item:
    """The item closest to a side by its centre, at least six pixels ahead of the next."""
    axis, sign = AXIS[side]
    ordered = sorted(items, key=lambda item: sign * (item.box[axis] + item.box[axis + 2]))
    first, second = (sign * (item.box[axis] + item.box[axis + 2]) / 2 for item in ordered[:2])
    assert second - first >= 6
    return ordered[0]


def _offset(item: Item, direction: str, other: Item) -> float:
    """Signed pixels between the centres in a direction; at least ten either way, or at most two."""
    axis, sign = DIRECTION[direction]
    return sign * ((item.box[axis] + item.box[axis + 2]) - (other.box[axis] + other.box[axis + 2])) / 2


def test_balance() -> None:
    """An answer is drawn before a question to it, so 47 ways to say no weigh as much as one yes."""
    rng = np.random.default_rng(0)
    options = [("a", "yes"), *((f"b{n}", "no") for n in range(47))]
    counts = Counter(pick(rng, options)[1] for _ in range(2000))
    assert 900 < counts["yes"] < 1100  # the standard deviation is 22
    for index in range(50):
        scene = object_scene(np.random.default_rng(index), num_objects=3)
        assert {answer for _, answer in existence(scene)} == {"yes", "no"}
        answers = Counter(answer for _, answer in relation(scene))
        assert answers["yes"] == answers["no"]
    made = drafts(scene_vqa.draft, "scene-vqa", 500)
    counts = Counter(d.answer for d in made if d.attributes["question_type"] == "counting")
    assert max(counts.values()) / counts.total() < 0.5 and set("01234") <= set(counts)


def test_sign_answers() -> None:
    for draft in drafts(scene_text.draft, "scene-text", 120):
        sign = "".join(
            i.name for i in sorted((i for i in draft.scene.items if i.kind == "glyph"), key=lambda i: i.box[0])
        )
        question = draft.instruction.removesuffix(SUFFIX)
        expected = {
            "What is written on the sign?": sign,
            "What is the first character on the sign?": sign[0],
            "What is the last character on the sign?": sign[-1],
            "How many characters are on the sign?": str(len(sign)),
        }
        # "A" alone is an article, which the official normalisation removes.
        assert draft.answer == expected[question] and draft.answer != "A"


def test_captions() -> None:
    for draft in drafts(scene_caption.draft, "scene-caption", 60):
        items = sorted(draft.scene.objects, key=lambda item: item.box[0] + item.box[2])
        names = [item.name for item in items]
        assert len(names) == len(set(names)) and draft.answer in draft.references
        assert draft.attributes["family"] == sprites.FAMILY_OF[names[0]]
        plain = {tuple(re.findall(r"\w+", text.lower())) for text in draft.references}
        assert len(draft.references) == len(plain) == 5
        for text in plain:
            assert [word for word in text if word in sprites.OBJECTS] == names
            assert draft.scene.background in text
    wordings = Counter(r.references.index(r.answer) for r in make("scene-caption", 200, 1))
    assert len(wordings) == 5 and min(wordings.values()) > 20


def test_expressions_mean_one_object() -> None:
    seen = Counter[str]()
    for draft in drafts(scene_ground.draft, "scene-ground", 250):
        assert draft.instruction.startswith(GROUND) and draft.instruction.endswith(".")
        expression = draft.instruction.removeprefix(GROUND)[:-1]
        item = _refer(expression, draft.scene)
        assert item.box == draft.box and item.family == draft.attributes["family"], expression
        assert draft.references == (draft.answer,)
        assert re.fullmatch(r"\[0\.\d\d, 0\.\d\d, 0\.\d\d, 0\.\d\d\]", draft.answer)
        stated = [float(number) for number in draft.answer[1:-1].split(",")]
        assert np.allclose(stated, np.array(item.box) / 80, atol=0.0101)
        seen[draft.attributes["expression_type"]] += 1
    assert len(seen) == 6 and min(seen.values()) >= 10


def _refer(expression: str, scene: Scene) -> Item:
    """What an expression means; anything but exactly one certain object is an error."""

    def called(noun: str) -> list[Item]:
        return [i for i in scene.objects if noun in ("object", i.name, sprites.FAMILY_OF[i.name])]

    if match := re.fullmatch(r"the (\w+) in the (\w+) (\w+) corner", expression):
        return _only(_in_corner(called(match[1]), match[2], match[3]))
    if match := re.fullmatch(r"the (\w+) closest to the (\w+) edge", expression):
        return _extreme(called(match[1]), match[2])
    if match := re.fullmatch(r"the (largest|smallest) (\w+)", expression):
        areas = sorted(
            ((i.box[2] - i.box[0]) * (i.box[3] - i.box[1]), place) for place, i in enumerate(called(match[2]))
        )
        (area, place), (other, _) = areas[::-1][:2] if match[1] == "largest" else areas[:2]
        assert max(area, other) / min(area, other) >= 1.3
        return called(match[2])[place]
    if match := re.fullmatch(r"the (\w+) (to the left of|to the right of|above|below) the (\w+)", expression):
        anchor = _only(called(match[3]))
        offsets = [(_offset(i, match[2], anchor), i) for i in called(match[1]) if i is not anchor]
        assert all(offset >= 10 or offset <= 2 for offset, _ in offsets)
        return _only([item for offset, item in offsets if offset > 2])
    return _only(called(expression.removeprefix("the ")))


def test_boxes_hold_the_sprites() -> None:
    """Inside its box an object differs from the ground on every side; the record's box is the draft's."""
    records = make("scene-ground", 12, 1)
    for record, draft in zip(records, drafts(scene_ground.draft, "scene-ground", 12), strict=False):
        assert record.box is not None and draft.box is not None
        assert record.box == tuple(edge / 80 for edge in draft.box)
        image = np.asarray(Image.open(io.BytesIO(record.image)).convert("RGB"), dtype=int)
        x1, y1, x2, y2 = draft.box
        inside = image[y1:y2, x1:x2]
        assert np.ptp(inside, axis=(0, 1)).max() > 60


def test_easy_vqa_is_the_official_data() -> None:
    import easy_vqa as package

    records = make("easy-vqa", 60, 30)
    for split, questions, images in (
        ("train", package.get_train_questions(), package.get_train_image_paths()),
        ("test", package.get_test_questions(), package.get_test_image_paths()),
    ):
        members = [record for record in records if record.split == split]
        for record in members:
            index = int(record.id.rsplit("-", 1)[1])
            text, answer, image = (column[index] for column in questions)
            assert record.instruction == text + SUFFIX and record.answer == answer
            with open(images[image], "rb") as file:
                assert record.image == file.read()
        assert len({record.image_sha256 for record in members}) == len(members)


def test_easy_vqa_sample() -> None:
    questions = [("q", "yes", image) for image in (0, 0, 0, 0, 1, 2)]
    rng = np.random.default_rng(0)
    assert {questions[i][2] for i in easy_vqa.sample(questions, 3, rng)} == {0, 1, 2}
    assert easy_vqa.sample(questions, 6, rng) == [0, 1, 2, 3, 4, 5]
    assert easy_vqa.question_type("what is the color of the shape?", "red") == "color"
    assert easy_vqa.question_type("what shape is present?", "circle") == "shape"
    assert easy_vqa.question_type("is no red shape present?", "yes") == "yes/no"
    records = make("easy-vqa", 600, 1)
    share = np.mean([record.attributes["question_type"] == "yes/no" for record in records])
    assert 0.68 < share < 0.80  # officially 28,407 of 38,575, which is 0.736


def _facts(public: PublicScene) -> str:
    return " ".join(f"{lead} {ending}" for lead, ending in fact_caption(public))


@pytest.mark.slow
def test_disjoint_from_the_public_corpus() -> None:
    """Neither an image nor an instruction, caption or box format of the scenarios is in the public corpus."""
    records = [record for name in SOURCES for record in make(name, 60, 20, seed=0)]
    scenes = [public_scene(0, split, index) for split in ("train", "held-out") for index in range(400)]
    images = {sha256_bytes(public.scene.png()) for public in scenes}
    assert not images & {record.image_sha256 for record in records}
    rng = np.random.default_rng(0)
    makers = (lambda public: caption(public, 12), focused_caption, _facts, _facts)
    texts = [make_text(public) for public in scenes for make_text in makers]
    lists = [text for text in plain_text(Recipe(num_text_sentences=4000)) if text.startswith("Numbers [")]
    assert 400 < len(lists) and not any(text.count("0.") == 4 for text in lists)  # a box has four
    plain = [*STATEMENTS, *(general_sentence(rng) for _ in range(2000))]
    sentences = {line for record in records for line in record.instruction.split("\n")}
    sentences |= {text for record in records if record.task == "caption" for text in record.references}
    for text in (*texts, *plain):
        assert not any(sentence in text for sentence in sentences), text
        assert not re.search(r"\[\s*0?\.\d", text)
    for text in texts:
        assert not re.search(r"\[|\]|\?|\b0\.\d", text)


def test_vocabulary_covers_everything() -> None:
    words = scenario_words()
    assert words == sorted(set(words)) and len(words) < 200
    known = set(words)
    for name in SOURCES:
        for record in make(name, 80, 5):
            texts = [
                record.instruction,
                *([] if name == "scene-text" else [record.answer, *record.references]),
            ]
            assert {word for text in texts for word in words_of(text)} <= known
