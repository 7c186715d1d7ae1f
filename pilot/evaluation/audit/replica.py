"""A client's model as the server can rebuild it: from the seed, what it sent, and what it received.

Whatever a method keeps on its clients has its initial value here.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from pilot.backbone.backbone import Backbone
from pilot.backbone.packed.packing import IGNORED
from pilot.federation.client import ClientModel, build_client_model
from pilot.methods.base import ClientInfo, Method, Phase, State

BATCH = 64


@dataclass(frozen=True)
class Candidate:
    """An example that an attacker may try.

    Attributes:
        features_ND: the image's features (N, D), which anybody who has the image can compute.
        prompt: token ids between image and answer.
        answer: token ids of the answer with its end token.
        image: digest of the image.
    """

    features_ND: Tensor
    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    image: str


class Replica:
    """A rebuilt model. Building the next one on the same backbone ends this one: they share the LoRA."""

    def __init__(self, backbone: Backbone, model: ClientModel) -> None:
        self._backbone, self._model = backbone, model

    @classmethod
    def build(
        cls, backbone: Backbone, method: Method, phase: Phase, info: ClientInfo, payload: State, known: State
    ) -> "Replica":
        """Build the model of a phase; `known` are later values of its tensors, whose other names are ignored."""
        model = build_client_model(backbone, method, phase, info, {}, payload)
        own = model.parameters
        model.load({name: each for name, each in known.items() if name in own and own[name].shape == each.shape})
        backbone.apply_weights()
        return cls(backbone, model)

    @property
    def parameters(self) -> Mapping[str, Tensor]:
        """The model's tensors by name."""
        return {name: value.detach() for name, value in self._model.parameters.items()}

    @torch.no_grad()
    def losses(self, candidates: Sequence[Candidate]) -> list[float]:
        """Return the mean cross-entropy per answer token of each candidate."""
        found: list[float] = []
        for start in range(0, len(candidates), BATCH):
            ids_BL, labels_BL = self._texts(candidates[start : start + BATCH])
            logits_MV, targets_M = self._logits(candidates[start : start + BATCH], ids_BL, labels_BL)
            terms_M = functional.cross_entropy(logits_MV.float(), targets_M, reduction="none").cpu()
            counts_B = (labels_BL != IGNORED).sum(dim=1)
            found += [float(terms.mean()) for terms in terms_M.split(counts_B.tolist())]
        return found

    def gradient(self, candidate: Candidate, names: Collection[str]) -> State:
        """Return the gradients of the cross-entropy of one candidate, for the tensors in `names` that it reaches."""
        own = self._model.parameters
        for name, parameter in own.items():
            parameter.requires_grad_(name in names)
            parameter.grad = None
        logits_MV, targets_M = self._logits([candidate], *self._texts([candidate]))
        functional.cross_entropy(logits_MV, targets_M).backward()  # type: ignore[no-untyped-call]
        found = {name: own[name].grad for name in names if name in own}
        return {name: value.cpu() for name, value in found.items() if value is not None}

    def _texts(self, candidates: Sequence[Candidate]) -> tuple[Tensor, Tensor]:
        """Return ids and labels (B, L), right-padded."""
        length = max(len(each.prompt) + len(each.answer) for each in candidates)
        ids = torch.full((len(candidates), length), self._backbone.eos_id)
        labels = torch.full((len(candidates), length), IGNORED)
        for row, each in enumerate(candidates):
            stop = len(each.prompt) + len(each.answer)
            ids[row, :stop] = torch.tensor(each.prompt + each.answer)
            labels[row, len(each.prompt) : stop] = torch.tensor(each.answer)
        return ids, labels

    def _logits(self, candidates: Sequence[Candidate], ids_BL: Tensor, labels_BL: Tensor) -> tuple[Tensor, Tensor]:
        numerics = self._backbone.numerics
        with numerics.autocast():
            features = numerics.to_device(torch.stack([each.features_ND for each in candidates]))
            tokens_BNC = self._model.connector(features).tokens_BNC
            return self._backbone.logits(tokens_BNC, numerics.to_device(ids_BL), numerics.to_device(labels_BL))
