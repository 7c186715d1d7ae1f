"""scene-vqa: questions about composed scenes, one per image, one reference."""

import numpy as np

from pilot.data.prompts import question
from pilot.data.record import InstructionRecord
from pilot.data.scenes.collect import Draft, Progress, collect
from pilot.data.scenes.scene import Scene, object_scene
from pilot.data.scenes.scene_questions import SCENE_TYPES, draw


def make(*, num_train: int, num_test: int, seed: int, progress: Progress) -> list[InstructionRecord]:
    """Make the task's records, with attribute `question_type`."""
    return collect("scene-vqa", "vqa", draft, num_train=num_train, num_test=num_test, seed=seed, progress=progress)


def draft(rng: np.random.Generator) -> Draft:
    """Draw one scene with a question about it."""
    scene, kind, text, answer = draw(rng, SCENE_TYPES, _scene)
    return Draft(scene, question(text), answer, (answer,), {"question_type": kind})


def _scene(rng: np.random.Generator, question_type: str) -> Scene:
    """Draw a scene; only counting needs repeated objects, elsewhere `the dog` must be unambiguous."""
    return object_scene(rng, duplicates=0.3 if question_type == "counting" else 0.0)
