"""Quality of a checkpoint on held-out public scenes, measured in the wording of the public corpus."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from pilot.backbone.generation import greedy, group_by_length
from pilot.data.scenes.scene import Item, Scene
from pilot.pretraining.architecture import BEGIN, END
from pilot.pretraining.captions import extent
from pilot.pretraining.corpus import public_scene
from pilot.pretraining.parts import Parts
from pilot.pretraining.recipe import Recipe
from pilot.pretraining.vision import ScenePool, normalise

_EXTENT = re.compile(r"x(\d\d)-(\d\d) y(\d\d)-(\d\d)")
_LISTED = re.compile(r"\ban? ([a-z]+)")


def pool_features(parts: Parts, pool: ScenePool, statistics: tuple[Tensor, Tensor]) -> Tensor:
    """Compute the features (M, N, D) that the connector reads."""
    found = []
    for pixels in pool.pixels.split(256):
        with torch.no_grad():
            found.append(parts.look(normalise(pixels, *statistics))[0])
    return torch.cat(found)


def measure_held_out(
    parts: Parts, tokenizer: PreTrainedTokenizerBase, recipe: Recipe, processor: Any
) -> dict[str, float]:
    """Run `measure_quality` on the recipe's held-out public scenes; `processor` is the checkpoint's image processor."""
    size = recipe.num_held_out_scenes
    pool = ScenePool(recipe.seed, "held-out", size, recipe.patch_size, lambda done: None)
    scenes = [public_scene(recipe.seed, "held-out", index).scene for index in range(size)]
    statistics = (torch.tensor(processor.image_mean), torch.tensor(processor.image_std))
    return measure_quality(parts, tokenizer, scenes, pool_features(parts, pool, statistics))


def measure_quality(
    parts: Parts,
    tokenizer: PreTrainedTokenizerBase,
    scenes: Sequence[Scene],
    features_MND: Tensor,
) -> dict[str, float]:
    """Measure `object_f1`, `extent_iou` and `sign_exact`.

    `object_f1` is micro-averaged over the multiset of names after `Seen:`; `extent_iou` is a mean in which unreadable
    answers count 0. `scenes` are held-out public scenes, `features_MND` their vision features; shapes and objects whose
    name occurs once are asked for their extents.
    """
    objects = [i for i, scene in enumerate(scenes) if scene.objects and not scene.sign]
    seen = _complete(parts, tokenizer, features_MND[objects], ["\nSeen:"] * len(objects), 40)
    true_positives = false_positives = false_negatives = 0
    for index, text in zip(objects, seen, strict=True):
        listed, true = Counter(_LISTED.findall(text)), Counter(item.name for item in scenes[index].objects)
        common = sum((listed & true).values())
        true_positives += common
        false_positives += sum(listed.values()) - common
        false_negatives += sum(true.values()) - common
    asked = [(i, item) for i, scene in enumerate(scenes) for item in _single(scene)]
    prompts = [f"\nThe {item.name} spans" for _, item in asked]
    stated = _complete(parts, tokenizer, features_MND[[i for i, _ in asked]], prompts, 16)
    overlaps = [_stated_iou(text, item) for text, (_, item) in zip(stated, asked, strict=True)]
    signs = [i for i, scene in enumerate(scenes) if scene.sign]
    read = _complete(parts, tokenizer, features_MND[signs], ["\nWritten:"] * len(signs), 8)
    exact = [text.split(".")[0].strip() == scenes[i].sign for text, i in zip(read, signs, strict=True)]
    return {
        "object_f1": 2 * true_positives / (2 * true_positives + false_positives + false_negatives),
        "extent_iou": sum(overlaps) / len(overlaps),
        "sign_exact": sum(exact) / len(exact),
    }


def _single(scene: Scene) -> list[Item]:
    names = [item.name for item in scene.items]
    return [item for item in scene.items if item.kind != "glyph" and names.count(item.name) == 1]


def _stated_iou(text: str, item: Item) -> float:
    stated, true = _EXTENT.search(text), _EXTENT.search(extent(item))
    assert true is not None, "the corpus states extents in the form that is read here"
    if stated is None:
        return 0.0
    a, b = ([int(value) for value in match.groups()] for match in (stated, true))
    width = max(0, min(a[1], b[1]) - max(a[0], b[0]))
    height = max(0, min(a[3], b[3]) - max(a[2], b[2]))
    union = _area(a) + _area(b) - width * height
    return width * height / union if union > 0 else 0.0


def _area(sides: list[int]) -> int:
    return max(0, sides[1] - sides[0]) * max(0, sides[3] - sides[2])


@torch.no_grad()
def _complete(
    parts: Parts,
    tokenizer: PreTrainedTokenizerBase,
    features_MND: Tensor,
    leads: Sequence[str],
    max_new_tokens: int,
) -> list[str]:
    """Continue each image's lead greedily; return the text up to its first full stop."""
    ids = tokenizer(list(leads), add_special_tokens=False)["input_ids"]
    embed = parts.embedding
    texts = [""] * len(leads)
    for rows in group_by_length([len(row) for row in ids], 128):
        begin = embed(torch.full((len(rows), 1), BEGIN))
        image = parts.connector(features_MND[rows])
        lead = embed(torch.tensor([ids[row] for row in rows]))
        inputs = torch.cat([begin, image, lead], dim=1)
        answers = greedy(parts.language, parts.head, embed, inputs, max_new_tokens=max_new_tokens, end=END)
        for row, answer in zip(rows, answers, strict=True):
            texts[row] = str(tokenizer.decode(answer))
    return [text.split(".")[0] + "." for text in texts]
