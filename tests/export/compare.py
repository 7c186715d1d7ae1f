"""Pictures, questions and logits of a run's own model, for comparison with what was exported."""

import io
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from pilot.backbone.backbone import Backbone
from pilot.data.record import read_records
from pilot.evaluation.trained import load_run
from pilot.federation.client import ClientModel

from ..small import Small

SIZES = ((80, 80), (120, 70), (45, 90))


def asked(small: Small) -> list[tuple[Image.Image, str]]:
    """Two test records of each task; the pictures square, wide and tall in turn."""
    pairs = []
    for number, task in enumerate(small.scenario.tasks):
        records = read_records(small.folder / "data" / task.name / "records.parquet")
        for record in [record for record in records if record.split == "test"][:2]:
            image = Image.open(io.BytesIO(record.image)).convert("RGB")
            pairs.append((image.resize(SIZES[number]), record.instruction))
    return pairs


def run_model(small: Small, method: str, client: int) -> tuple[Backbone, ClientModel]:
    """The model that a client of the small run of `method` ended with."""
    backbone, models = load_run(small.run(method))
    return backbone, next(load() for clients, load in models.items() if client in clients)


@torch.no_grad()
def own_logits(backbone: Backbone, model: ClientModel, image: Image.Image, instruction: str) -> Tensor:
    """Logits (L, V) of begin token, prompt and image, as training and evaluation put them together."""
    tokens = model.connector(backbone.image_features([image])).tokens_BNC
    ids = backbone.prompt_ids(instruction)
    if (weigh := getattr(backbone._passes, "_weigh", None)) is not None:  # LoRAs weighted by the question
        weigh([ids])
    inputs = backbone._passes._model.inputs(tokens, torch.tensor([ids]))
    hidden = backbone.language_model(inputs_embeds=inputs, use_cache=False).last_hidden_state
    logits: Tensor = backbone.lm_head(hidden)[0]
    return logits


def own_answers(backbone: Backbone, model: ClientModel, pairs: list[tuple[Image.Image, str]]) -> list[str]:
    """Greedy answers of at most 24 tokens."""
    features = backbone.image_features([image for image, _ in pairs])
    with torch.no_grad():
        return backbone.answer(
            lambda rows: model.connector(features[rows]).tokens_BNC, [text for _, text in pairs], 24
        )  # fmt: skip


def stock_inputs(processor: Any, image: Image.Image, instruction: str) -> Any:
    """What the processor's chat template makes of one picture and instruction."""
    content = [{"type": "image", "image": image}, {"type": "text", "text": instruction}]
    return processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=True, return_dict=True,
        return_tensors="pt",
    )  # fmt: skip


@torch.no_grad()
def stock_logits(model: Any, processor: Any, image: Image.Image, instruction: str) -> Tensor:
    """Logits (L, V) of a stock model."""
    logits: Tensor = model(**stock_inputs(processor, image, instruction)).logits[0]
    return logits


@torch.no_grad()
def stock_answer(model: Any, processor: Any, image: Image.Image, instruction: str) -> str:
    """Greedy answer of at most 24 tokens by transformers' own `generate`."""
    inputs = stock_inputs(processor, image, instruction)
    ids = model.generate(**inputs, max_new_tokens=24, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    return str(processor.decode(ids, skip_special_tokens=True)).strip()
