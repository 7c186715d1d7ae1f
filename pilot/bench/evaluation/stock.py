"""A run's models in lm-eval's stock class `hf-multimodal`: the other side of `pilot-bench bench evaluation`.

The model is an unmodified `LlavaForConditionalGeneration` with a client's LoRA merged into its weights and the client's
connector in place of its projector. `hf-multimodal` takes the model as an object and loads the processor from the
folder that the object's `name_or_path` names.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.evaluator import evaluate
from lm_eval.models.hf_vlms import HFMultimodalLM
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration

from pilot.backbone.from_profile import load_backbone
from pilot.backbone.lora import LoraLinear
from pilot.backbone.sources import checkpoint_folder
from pilot.config.profile import Profile
from pilot.connector.base import Connector
from pilot.evaluation.answers import Row, row_order, sample_rows
from pilot.evaluation.sets import EvaluationSet, load_task
from pilot.evaluation.trained import load_run
from pilot.export.processor import stock_processor


class ImageTokens(nn.Module):
    """Connector with a projector's interface: vision features (B, N, D) to image tokens (B, N, C)."""

    def __init__(self, connector: Connector) -> None:
        super().__init__()
        self.connector = connector

    def forward(self, features_BND: Tensor) -> Tensor:
        tokens_BNC: Tensor = self.connector(features_BND).tokens_BNC
        return tokens_BNC


@dataclass(frozen=True)
class StockWeights:
    """Weights of one model that differ from the backbone's: merged layers by path in the LLM, and the projector."""

    clients: tuple[int, ...]
    merged: dict[str, Tensor]
    projector: nn.Module


def stock_weights(run_dir: Path) -> list[StockWeights]:
    """Load the weights of every model of a run into memory."""
    backbone, models = load_run(run_dir)
    layers = [(n, m) for n, m in backbone.language_model.named_modules() if isinstance(m, LoraLinear)]
    weights = []
    for clients, load in models.items():
        connector = load().connector
        with torch.no_grad():
            merged = {name: layer.merged_weight() for name, layer in layers}
        weights.append(StockWeights(clients, merged, ImageTokens(connector).requires_grad_(False)))
    return weights


def write_processor(profile: Profile, folder: Path) -> None:
    """Write the stock processor that produces the same pixels and prompts as the run's backbone."""
    assert profile.prompt_template is not None, "the stock class of lm-eval is run for LLaVA"
    stock_processor(load_backbone(profile), profile.prompt_template).save_pretrained(folder)


class QuietStock(HFMultimodalLM):
    """The stock class without its progress bar."""

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        answers: list[str] = super().generate_until(requests, disable_tqdm=True)
        return answers


class StockModel:
    """One stock model object into which the weights of one model after another are loaded."""

    def __init__(self, profile: Profile, processor: Path, batch_size: int) -> None:
        logging.getLogger("lm_eval").setLevel(logging.ERROR)
        self._llava = LlavaForConditionalGeneration.from_pretrained(checkpoint_folder(profile), local_files_only=True)
        self._llava.name_or_path = str(processor)
        self.lm = QuietStock(self._llava, batch_size=batch_size)

    def load(self, weights: StockWeights) -> None:
        """Load the weights of one model."""
        with torch.no_grad():
            for name, value in weights.merged.items():
                self._llava.model.language_model.get_submodule(name).weight.copy_(value)
        self._llava.model.multi_modal_projector = weights.projector


def stock_rows(
    stock: StockModel,
    models: Sequence[StockWeights],
    sets: Sequence[EvaluationSet],
    data: Path,
) -> list[Row]:
    """Return the same rows as `answer_rows`, through lm-eval's evaluator: all tasks of a model in one call."""
    rows: list[Row] = []
    for weights in models:
        stock.load(weights)
        own = [
            evaluation_set
            for evaluation_set in (evaluation_set.for_clients(weights.clients) for evaluation_set in sets)
            if evaluation_set.parts
        ]
        answers = _evaluate(stock.lm, own, data)
        for evaluation_set in own:
            rows += sample_rows(
                evaluation_set.task.name, evaluation_set.test, evaluation_set.parts, answers[evaluation_set.task.name]
            )
    return sorted(rows, key=row_order)


def _evaluate(lm: HFMultimodalLM, sets: Sequence[EvaluationSet], data: Path) -> dict[str, dict[str, str]]:
    """Generate answers by task and record id; no metrics, as with lm-eval's `--predict_only`."""
    loaded: dict[str, Any] = {evaluation_set.task.name: load_task(evaluation_set, data) for evaluation_set in sets}
    for task in loaded.values():
        task.override_metric(metric_name="bypass")
    results = evaluate(
        lm, {"tasks": loaded, "groups": {}}, bootstrap_iters=0, log_samples=True, apply_chat_template=True
    )
    assert results is not None, "rank 0 gets results"
    return {
        name: {str(sample["doc"]["id"]): str(sample["filtered_resps"][0]) for sample in samples}
        for name, samples in results["samples"].items()
    }
