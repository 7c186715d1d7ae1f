"""What the connector of `smol` learns from: the public corpus as conversations, and labels of the vision tower's cells.

Scenes, captions and facts are those of tiny-llava's pre-training: none is a question, an instruction or a box in the
wording of a scenario, and no scene is one of a scenario's.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pilot.backbone.packed.packing import IGNORED
from pilot.backbone.prompts import ChatPrompts
from pilot.data.scenes.scene import SIZE, Scene
from pilot.io.seeding import generator
from pilot.pretraining.captions import caption
from pilot.pretraining.corpus import CLASSES, PublicScene, class_of, public_scene
from pilot.pretraining.fact_captions import MAKERS
from pilot.pretraining.focused_captions import focused_caption

DESCRIPTIONS = ("Describe the image.", "What do you see?", "Tell me about this image.")
CAPTION_SHARE, FOCUSED_SHARE = 0.25, 0.35
"""Shares of conversations with a caption and with a focused caption; the others are about facts."""
NUM_SENTENCES = 3
NUM_FACTS = 3
MIN_COVERAGE = 0.12
"""Share of a cell that an item must cover to be the cell's label."""

Turn = tuple[str, str]
"""What the user says, and the answer."""


def scene_text(seed: int, split: str, index: int, visit: int) -> list[Turn]:
    """Return one conversation about a scene of the public corpus; every visit draws another one."""
    public = public_scene(seed, split, index)
    return conversation(replace(public, rng=generator("smol text", seed, split, index, visit)))


def conversation(public: PublicScene) -> list[Turn]:
    """Draw a caption, a focused caption, or up to `NUM_FACTS` facts in turns."""
    rng = public.rng
    kind, request = float(rng.random()), DESCRIPTIONS[int(rng.integers(len(DESCRIPTIONS)))]
    if kind < CAPTION_SHARE:
        return [(request, caption(public, NUM_SENTENCES))]
    if kind < CAPTION_SHARE + FOCUSED_SHARE:
        return [(request, focused_caption(public))]
    makers = MAKERS[public.kind]
    shares = np.array([share for _, share in makers])
    drawn = rng.choice(len(makers), 2 * NUM_FACTS, p=shares / shares.sum())
    facts = list(dict.fromkeys(fact for i in drawn if (fact := makers[int(i)][0](public.scene, rng))))
    return facts[:NUM_FACTS] or [(request, caption(public, NUM_SENTENCES))]


def tokenise(prompts: ChatPrompts, turns: Sequence[Turn]) -> tuple[list[int], list[int]]:
    """Return the ids after the image, and labels, which are the ids of the answers and `IGNORED` elsewhere."""
    ids: list[int] = []
    labels: list[int] = []
    for number, (said, answer) in enumerate(turns):
        asked = prompts.later(said) if number else prompts.first(said)
        given = prompts.answer(answer)
        ids += [*asked, *given]
        labels += [*[IGNORED] * len(asked), *given]
    return ids, labels


def pad(rows: Sequence[tuple[list[int], list[int]]], filling: int) -> tuple[Tensor, Tensor]:
    """Return right-padded ids and labels (B, L)."""
    length = max(len(ids) for ids, _ in rows)
    ids_BL = torch.tensor([[*ids, *[filling] * (length - len(ids))] for ids, _ in rows])
    labels_BL = torch.tensor([[*labels, *[IGNORED] * (length - len(labels))] for _, labels in rows])
    return ids_BL, labels_BL


@dataclass(frozen=True)
class CellTargets:
    """Labels of the cells of M scenes: a word (M, N), and edges in units of the image's side (M, N, 4).

    Edges are those of the item that covers a cell, x1, y1, x2, y2; `filled` (M, N) is false where there is no item.
    """

    words_MN: Tensor
    edges_MN4: Tensor
    filled_MN: Tensor


WORDS = (*CLASSES, "white", "gray", "pink", "blue", "green", "yellow")
"""Words for cells: those for items, then the colours of grounds, which empty cells show."""


def cell_labels(scene: Scene, side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the index into `WORDS` (N,), the item's edges (N, 4) and whether there is one (N,), row by row."""
    corners = np.arange(side) * SIZE / side
    width = SIZE / side
    ground = WORDS.index(scene.background, len(CLASSES)) if scene.background else 0
    words, edges = np.full(side * side, ground), np.zeros((side * side, 4), dtype=np.float32)
    best = np.full(side * side, MIN_COVERAGE * width * width)
    filled = np.zeros(side * side, dtype=bool)
    for item in scene.items:
        x1, y1, x2, y2 = item.box
        across = np.clip(np.minimum(x2, corners + width) - np.maximum(x1, corners), 0, None)
        down = np.clip(np.minimum(y2, corners + width) - np.maximum(y1, corners), 0, None)
        cover = (down[:, None] * across[None, :]).reshape(-1)
        chosen = cover > best
        best[chosen], words[chosen], filled[chosen] = cover[chosen], class_of(item), True
        edges[chosen] = np.array(item.box, dtype=np.float32) / SIZE
    return words, edges, filled


def cell_targets(scenes: Sequence[Scene], side: int) -> CellTargets:
    """Return the labels of the cells of scenes."""
    rows = [cell_labels(scene, side) for scene in scenes]
    words, edges, filled = (torch.from_numpy(np.stack(part)) for part in zip(*rows, strict=True))
    return CellTargets(words, edges, filled)


def word_directions(tokenizer: Any, embedding_VC: Tensor) -> Tensor:
    """Return the mean embedding (K, C) of the tokens of each of `WORDS` within a sentence."""
    ids = tokenizer([f" {word}" for word in WORDS], add_special_tokens=False)["input_ids"]
    return torch.stack([embedding_VC[torch.tensor(row)].mean(dim=0) for row in ids])
