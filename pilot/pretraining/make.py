"""`pilot-bench backbone pretrain`: pre-training of a checkpoint that ships in the package, from its recipe."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from pilot.io.atomic import write_json
from pilot.io.digest import sha256_file
from pilot.io.seeding import generator
from pilot.pretraining.alignment import Aligner, dense_targets
from pilot.pretraining.architecture import BEGIN, END, image_processor, new_parts
from pilot.pretraining.captions import caption
from pilot.pretraining.consolidation import FactCorpus, consolidate, fact_corpus, plain_text
from pilot.pretraining.corpus import PublicScene, public_scene
from pilot.pretraining.focused_captions import focused_caption
from pilot.pretraining.general_text import TOKENIZER_ONLY, general_sentence
from pilot.pretraining.language import Corpus, tokenise_captions, train_language
from pilot.pretraining.parts import Parts
from pilot.pretraining.quality import measure_held_out, pool_features
from pilot.pretraining.recipe import Recipe
from pilot.pretraining.step import Report, run_phase
from pilot.pretraining.tokenizer import train_tokenizer
from pilot.pretraining.vision import ScenePool, train_vision

NUM_TOKENIZER_SCENES = 4_000
SHARD = "7MB"
"""Largest file of weights: files in the repository stay below 8 MB."""
NO_IMAGE = Image.new("RGB", (1, 1))
PhaseReport = Callable[[str, int, int, dict[str, float]], None]


def make_checkpoint(recipe: Recipe, work: Path, target: Path, report: PhaseReport) -> dict[str, float]:
    """Pre-train with `recipe`, keep phases in `work`, and write checkpoint, tokenizer and quality to `target`.

    Returns the measured quality on held-out public scenes (`measure_quality`). Single-threaded: the bytes of the
    result depend only on the recipe, the code, the library versions and the processor's instruction set.
    """
    torch.set_num_threads(1)
    captions, sentences = _make_texts(recipe, lambda step, total: report("corpus", step, total, {}))
    tokenizer = _make_tokenizer(recipe, captions, sentences)
    parts = new_parts(recipe, len(tokenizer))
    processor = image_processor(recipe)
    statistics = (torch.tensor(processor.image_mean), torch.tensor(processor.image_std))
    pool = ScenePool(
        recipe.seed, "train", recipe.num_train_scenes, recipe.patch_size,
        lambda done: report("scenes", done, recipe.num_train_scenes, {}),
    )  # fmt: skip
    run_phase(
        work / f"vision-{recipe.vision_digest()[:12]}.safetensors",
        parts.tower,
        lambda: train_vision(parts, pool, recipe, statistics, _for_phase(report, "vision")),
    )
    corpus = Corpus(
        tokenise_captions(tokenizer, captions),
        [[*ids, END] for ids in tokenizer([f" {text}" for text in sentences], add_special_tokens=False)["input_ids"]],
        pool_features(parts, pool, statistics),
    )
    for phase in ("text", "connector", "joint"):
        train = _language_phase(parts, corpus, recipe, phase, _for_phase(report, phase))
        run_phase(work / f"{phase}-{recipe.language_digest()[:12]}.safetensors", parts.model, train)
    focused, facts = _make_late_corpora(tokenizer, corpus.features_MND, recipe)
    path = work / f"refine-{recipe.refinement_digest()[:12]}.safetensors"
    run_phase(path, parts.model, lambda: _refine(parts, tokenizer, pool, focused, recipe, report))
    path = work / f"consolidate-{recipe.digest()[:12]}.safetensors"
    run_phase(path, parts.model, lambda: consolidate(parts, focused, facts, recipe, _for_phase(report, "consolidate")))
    quality = measure_held_out(_as_stored(parts, recipe), tokenizer, recipe, processor)
    _export(parts.model, tokenizer, processor, recipe, quality, target)
    return quality


def _make_texts(recipe: Recipe, progress: Callable[[int, int], None]) -> tuple[list[list[str]], list[str]]:
    captions = []
    for index in range(recipe.num_train_scenes):
        public = public_scene(recipe.seed, "train", index)
        captions.append([caption(public, recipe.sentences_per_caption) for _ in range(recipe.captions_per_scene)])
        progress(index + 1, recipe.num_train_scenes)
    rng = generator("general text", recipe.seed)
    return captions, [general_sentence(rng) for _ in range(recipe.num_text_sentences)]


def _make_tokenizer(recipe: Recipe, captions: list[list[str]], sentences: list[str]) -> PreTrainedTokenizerBase:
    texts = [text for group in captions[:NUM_TOKENIZER_SCENES] for text in group]
    whole = [text for text in TOKENIZER_ONLY for _ in range(len(texts))]
    return train_tokenizer([*texts, *sentences, *whole], recipe.vocabulary_size)


def _language_phase(parts: Parts, corpus: Corpus, recipe: Recipe, phase: str, report: Report) -> Callable[[], None]:
    return lambda: train_language(parts, corpus, recipe, phase, report)


def _as_stored(parts: Parts, recipe: Recipe) -> Parts:
    """Round the weights to the type in which the checkpoint stores them; they stay in float32."""
    with torch.no_grad():
        for parameter in parts.model.parameters():
            parameter.copy_(parameter.to(recipe.stored_as))
    return parts


def _export(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    processor: Any,
    recipe: Recipe,
    quality: dict[str, float],
    target: Path,
) -> None:
    target.mkdir(parents=True, exist_ok=True)
    model.requires_grad_(False)
    model.generation_config.bos_token_id, model.generation_config.eos_token_id = BEGIN, END
    model.to(recipe.stored_as).save_pretrained(target, max_shard_size=SHARD)
    tokenizer.save_pretrained(target)
    processor.save_pretrained(target)
    digests = {f.name: sha256_file(f) for f in sorted(target.iterdir()) if f.name != "recipe.json"}
    value = {
        "recipe": json.loads(json.dumps(asdict(recipe))),
        "recipe_digest": recipe.digest(),
        "quality": {name: round(number, 4) for name, number in quality.items()},
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "files": digests,
    }
    write_json(target / "recipe.json", value)


def _make_late_corpora(
    tokenizer: PreTrainedTokenizerBase, features_MND: Tensor, recipe: Recipe
) -> tuple[Corpus, FactCorpus]:
    """Generate the data of phases 6 and 7: focused captions of every training scene and plain text; facts."""
    scenes = [_without_image(public_scene(recipe.seed, "train", index)) for index in range(recipe.num_train_scenes)]
    captions = [[focused_caption(public) for _ in range(recipe.captions_per_scene)] for public in scenes]
    texts = [f" {text}" for text in plain_text(recipe)]
    sentences = [[*ids, END] for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    focused = Corpus(tokenise_captions(tokenizer, captions), sentences, features_MND)
    return focused, fact_corpus(tokenizer, scenes, recipe)


def _without_image(public: PublicScene) -> PublicScene:
    """Drop the scene's image and keep its ground truth: all images together would take 0.8 GB."""
    return replace(public, scene=replace(public.scene, image=NO_IMAGE))


def _refine(
    parts: Parts,
    tokenizer: PreTrainedTokenizerBase,
    pool: ScenePool,
    focused: Corpus,
    recipe: Recipe,
    report: PhaseReport,
) -> None:
    """Run phases 5 and 6, which share the edge head and are therefore kept as one."""
    aligner = Aligner(parts, dense_targets(pool, tokenizer, recipe.patch_size), recipe)
    aligner.align(focused.features_MND, _for_phase(report, "align"))
    aligner.refine(focused, _for_phase(report, "refine"))


def _for_phase(report: PhaseReport, phase: str) -> Report:
    return lambda step, total, measures: report(phase, step, total, measures)
