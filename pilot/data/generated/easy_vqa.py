"""easy-vqa: images, questions and official split of the PyPI package `easy-vqa`, unchanged.

Public data, not made by this project: 64x64 images of one plain shape; Victor Zhou, 2019, MIT licence,
https://github.com/vzhou842/easy-VQA. A seeded sample is drawn from each official split, one question per image
until all images are used; the text of questions and answers is unchanged.
"""

from pathlib import Path

import numpy as np

from pilot.data.prompts import question
from pilot.data.record import InstructionRecord
from pilot.data.scenes.collect import Progress
from pilot.errors import UserError
from pilot.io.seeding import generator

Question = tuple[str, str, int]
"""Question, answer, image number."""


def make(*, num_train: int, num_test: int, seed: int, progress: Progress) -> list[InstructionRecord]:
    """Make the task's records, with attributes `question_type` (`yes/no`, `shape`, `color`) and `official_image`.

    Raises:
        UserError: more records are requested than the official split has questions.
    """
    records: list[InstructionRecord] = []
    for split, number in (("train", num_train), ("test", num_test)):
        questions, images = official(split)
        if number > len(questions):
            raise UserError(
                f"easy-vqa: num_{split} is {number}, but the official {split} split has {len(questions)} "
                f"questions. Set num_{split} to at most that in the scenario file."
            )
        for index in sample(questions, number, generator("scenario", seed, "easy-vqa", split)):
            records.append(_record(split, index, questions[index], images))
            progress(len(records), num_train + num_test)
    return records


def official(split: str) -> tuple[list[Question], dict[int, str]]:
    """Return all questions of an official split in the package's order, and its image files by number."""
    import easy_vqa

    if split == "train":
        texts, images = easy_vqa.get_train_questions(), easy_vqa.get_train_image_paths()
    else:
        texts, images = easy_vqa.get_test_questions(), easy_vqa.get_test_image_paths()
    return list(zip(*texts, strict=True)), images


def sample(questions: list[Question], number: int, rng: np.random.Generator) -> list[int]:
    """Sample positions of `number` questions; no image occurs twice before every image occurs once."""
    turn: dict[int, int] = {}
    ranked = []
    for place, index in enumerate(int(i) for i in rng.permutation(len(questions))):
        image = questions[index][2]
        turn[image] = turn.get(image, -1) + 1
        ranked.append((turn[image], place, index))
    return sorted(index for _, _, index in sorted(ranked)[:number])


def question_type(text: str, answer: str) -> str:
    """Classify a question as `yes/no`, `shape` (which shape it is) or `color`."""
    if answer in ("yes", "no"):
        return "yes/no"
    return "color" if "color" in text else "shape"


def _record(split: str, index: int, item: Question, images: dict[int, str]) -> InstructionRecord:
    text, answer, image = item
    return InstructionRecord(
        id=f"easy-vqa-{split}-{index:05d}",
        task="vqa",
        source="easy-vqa",
        image=Path(images[image]).read_bytes(),
        instruction=question(text),
        answer=answer,
        references=(answer,),
        attributes={"question_type": question_type(text, answer), "official_image": f"{split}/{image}"},
        split=split,
    )
