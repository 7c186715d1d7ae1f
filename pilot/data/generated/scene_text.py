"""scene-text: questions about signs in composed scenes, one per image, one reference."""

import numpy as np

from pilot.data.prompts import question
from pilot.data.record import InstructionRecord
from pilot.data.scenes.collect import Draft, Progress, collect
from pilot.data.scenes.scene import Scene, sign_scene
from pilot.data.scenes.scene_questions import SIGN_TYPES, draw


def make(*, num_train: int, num_test: int, seed: int, progress: Progress) -> list[InstructionRecord]:
    """Make the task's records, with attribute `question_type`."""
    return collect("scene-text", "vqa", draft, num_train=num_train, num_test=num_test, seed=seed, progress=progress)


def draft(rng: np.random.Generator) -> Draft:
    """Draw one scene with a sign and a question about the sign."""
    scene, kind, text, answer = draw(rng, SIGN_TYPES, _scene)
    return Draft(scene, question(text), answer, (answer,), {"question_type": kind})


def _scene(rng: np.random.Generator, question_type: str) -> Scene:
    return sign_scene(rng)
