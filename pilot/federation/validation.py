"""Measure a client's model on the validation part of its shard, which is used for neither training nor testing."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pilot.backbone.backbone import Backbone
from pilot.backbone.feature_files import FeatureCache
from pilot.backbone.packed.packing import IGNORED
from pilot.connector.base import Connector
from pilot.federation.shards import Example, collate


@dataclass(frozen=True)
class Validation:
    """Measurements of one model.

    Attributes:
        loss: cross-entropy per answer token; NaN where `max_length` has cut off all of them.
        diagnostics: the connector's, averaged over examples, in host memory.
        num_tokens: number of tokens that went through the LLM.
    """

    loss: float
    diagnostics: dict[str, Tensor]
    num_tokens: int


@torch.no_grad()
def validate(
    backbone: Backbone, connector: Connector, features: FeatureCache, examples: Sequence[Example], batch_size: int
) -> Validation:
    """Measure the loaded LoRA with `connector` on `examples` (at least one)."""
    total, num_labelled, num_tokens, place = 0.0, 0, 0, backbone.numerics.to_device
    sums: dict[str, Tensor] = {}
    for start in range(0, len(examples), batch_size):
        batch = collate(examples[start : start + batch_size], features, backbone.eos_id)
        count, size = int((batch.labels_BL != IGNORED).sum()), len(batch.ids_BL)
        with backbone.numerics.autocast():
            output = connector(place(batch.features_BND))
            loss = backbone.cross_entropy(output.tokens_BNC, place(batch.ids_BL), place(batch.labels_BL))
        total, num_labelled = total + (float(loss) * count if count else 0.0), num_labelled + count
        num_tokens += batch.ids_BL.numel() + size * output.tokens_BNC.shape[1]
        for name, value in output.diagnostics.items():
            part = value.detach().cpu() * (size / len(examples))
            sums[name] = sums[name] + part if name in sums else part
    return Validation(total / num_labelled if num_labelled else math.nan, sums, num_tokens)
