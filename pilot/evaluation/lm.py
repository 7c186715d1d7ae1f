"""The model of one client of a trained run as an lm-eval model, registered as `pilot`."""

import hashlib
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model
from PIL import Image
from torch import Tensor

from pilot.backbone.backbone import Backbone
from pilot.backbone.prompts import IMAGE_PLACEHOLDER
from pilot.errors import UserError
from pilot.federation.client import ClientModel

CONNECTOR_BATCH = 256
DEFAULT_MAX_NEW_TOKENS = 64


@register_model("pilot")
class PilotLM(LM):
    """lm-eval model that decodes one client's model greedily; one pass of the vision tower per image.

    On lm-eval's command line: `--model pilot --model_args run=results/.../runs/pilot/seed0,client=3`.
    """

    MULTIMODAL = True

    def __init__(self, run: str, client: int | str = 0, batch_size: int | str = 1, **_: object) -> None:
        super().__init__()
        from pilot.evaluation.trained import load_run

        backbone, models = load_run(Path(run))
        chosen = [loader for clients, loader in models.items() if int(client) in clients]
        if not chosen:
            known = ", ".join(str(number) for number in sorted(chain.from_iterable(models)))
            raise UserError(f"{run}: no client {client} in this run. Expected one of: {known}.")
        self._set(backbone, chosen[0](), ImageFeatures(backbone))

    @classmethod
    def from_model(cls, backbone: Backbone, model: ClientModel, images: "ImageFeatures") -> "PilotLM":
        """Create the lm-eval model from a loaded client model; several models may share `images`."""
        instance = cls.__new__(cls)
        LM.__init__(instance)
        instance._set(backbone, model, images)
        return instance

    def _set(self, backbone: Backbone, model: ClientModel, images: "ImageFeatures") -> None:
        self._backbone, self._model, self._images = backbone, model, images

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Generate answers in the order of `requests`, each cut at the first of its stop strings."""
        names = self._images.names(requests)
        prompts = [_instruction(str(request.args[0])) for request in requests]
        limits = [int(request.args[1].get("max_gen_toks", DEFAULT_MAX_NEW_TOKENS)) for request in requests]
        answers = [""] * len(requests)
        for limit in sorted(set(limits)):
            group = [row for row, own in enumerate(limits) if own == limit]
            chosen = self._answer([names[row] for row in group], [prompts[row] for row in group], limit)
            for row, answer in zip(group, chosen, strict=True):
                answers[row] = answer
        return [
            _cut(answer, request.args[1].get("until", [])) for answer, request in zip(answers, requests, strict=True)
        ]

    def loglikelihood(self, requests: list[Instance], **_: Any) -> list[tuple[float, bool]]:
        """Refuse: the suite's tasks generate text."""
        raise NotImplementedError("the model `pilot` answers generate_until tasks only")

    def loglikelihood_rolling(self, requests: list[Instance], **_: Any) -> list[float]:
        """Refuse: the suite's tasks generate text."""
        raise NotImplementedError("the model `pilot` answers generate_until tasks only")

    def _answer(self, names: Sequence[str], prompts: Sequence[str], limit: int) -> list[str]:
        def image_tokens(rows: list[int]) -> Tensor:
            features = self._backbone.numerics.to_device(self._images.features([names[row] for row in rows]))
            return torch.cat([self._model.connector(part).tokens_BNC for part in features.split(CONNECTOR_BATCH)])

        return self._backbone.answer(image_tokens, prompts, limit)


class ImageFeatures:
    """Vision features by image name, computed once for all models that share them."""

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        self._features: dict[str, Tensor] = {}
        self._known: dict[int, tuple[Instance, str]] = {}

    def preload(self, requests: Sequence[Instance], features_MND: Tensor) -> None:
        """Store the features of the requests' images; their pixels are not needed any more."""
        for request, features in zip(requests, features_MND, strict=True):
            name = f"request {len(self._known)}"
            self._features[name] = features
            self._known[id(request)] = request, name  # holding the request keeps its id() from being reused

    def names(self, requests: Sequence[Instance]) -> list[str]:
        """Return the name of each request's image; compute the features of new images.

        Raises:
            UserError: a request has no image, or several.
        """
        new: dict[str, Image.Image] = {}
        names = []
        for request in requests:
            known = self._known.get(id(request))
            if known is None:
                image = request_image(request)
                names.append(image_digest(image))
                if names[-1] not in self._features:
                    new[names[-1]] = image
            else:
                names.append(known[1])
        if new:
            order = sorted(new)
            features_MND = self._backbone.image_features([new[name] for name in order])
            self._features.update(zip(order, features_MND, strict=True))
        return names

    def features(self, names: Sequence[str]) -> Tensor:
        """Return the features (M, N, D) of named images, in host memory."""
        with torch.autocast("cpu", enabled=False):  # which cannot stack float16
            return torch.stack([self._features[name] for name in names])


def image_digest(image: Image.Image) -> str:
    """Digest an RGB image's size and pixels, independently of its file format."""
    return hashlib.sha256(f"{image.size}".encode() + image.tobytes()).hexdigest()


def request_image(request: Instance) -> Image.Image:
    """Return the image of a request, RGB.

    Raises:
        UserError: the request has no image, or several.
    """
    visual = request.args[2]["visual"] if len(request.args) > 2 else []
    if len(visual) != 1:
        raise UserError(f"task {request.task_name}: a request has {len(visual)} images, the model `pilot` expects one.")
    image: Image.Image = visual[0]
    return image if image.mode == "RGB" else image.convert("RGB")


def _instruction(prompt: str) -> str:
    """Remove the image placeholder from a prompt; LLaVA-1.5 puts the image first, wherever a task mentions it."""
    if prompt.startswith(IMAGE_PLACEHOLDER):
        return prompt.removeprefix(IMAGE_PLACEHOLDER).removeprefix("\n")
    return prompt.replace(IMAGE_PLACEHOLDER, "").strip()


def _cut(answer: str, until: str | Sequence[str] | None) -> str:
    for stop in [until] if isinstance(until, str) else until or ():
        answer = answer.split(stop)[0] if stop else answer
    return answer
