"""A trained run's client as an lm-eval model, registered as `pilot`."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model
from PIL import Image
from torch import Tensor

from pilot.backbone.backbone import IMAGE_PLACEHOLDER, Backbone
from pilot.errors import UserError
from pilot.federation.client import ClientModel

CONNECTOR_BATCH = 256
DEFAULT_MAX_NEW_TOKENS = 64


@register_model("pilot")
class PilotLM(LM):
    """Greedy generation from one client's model; one pass of the vision tower per image.

    From lm-eval's command line: `--model pilot --model_args run=results/.../runs/pilot/seed0,client=3`.
    """

    MULTIMODAL = True

    def __init__(self, run: str, client: int | str = 0, batch_size: int | str = 1, **_: object) -> None:
        super().__init__()
        from pilot.evaluation.answers import load_run

        backbone, models = load_run(Path(run))
        chosen = [loader for clients, loader in models.items() if int(client) in clients]
        if not chosen:
            raise UserError(f"{run}: no client {client} in this run.")
        self._set(backbone, chosen[0](), {})

    @classmethod
    def of(cls, backbone: Backbone, model: ClientModel, features: dict[str, Tensor]) -> "PilotLM":
        """From a loaded model; `features` is a cache by image digest that several models may share."""
        instance = cls.__new__(cls)
        LM.__init__(instance)
        instance._set(backbone, model, features)
        return instance

    def _set(self, backbone: Backbone, model: ClientModel, features: dict[str, Tensor]) -> None:
        self._backbone, self._model, self._features = backbone, model, features

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Answers in the order of `requests`, each cut at the first of its stop strings."""
        images = [only_image(request) for request in requests]
        digests = self._embed(images)
        prompts = [_instruction(str(request.args[0])) for request in requests]
        limits = [int(request.args[1].get("max_gen_toks", DEFAULT_MAX_NEW_TOKENS)) for request in requests]
        answers = [""] * len(requests)
        for limit in sorted(set(limits)):
            group = [row for row, own in enumerate(limits) if own == limit]
            chosen = self._answer([digests[row] for row in group], [prompts[row] for row in group], limit)
            for row, answer in zip(group, chosen, strict=True):
                answers[row] = answer
        return [
            _cut(answer, request.args[1].get("until", [])) for answer, request in zip(answers, requests, strict=True)
        ]

    def loglikelihood(self, requests: list[Instance], **_: Any) -> list[tuple[float, bool]]:
        """Not offered: the suite's tasks generate."""
        raise NotImplementedError("the model `pilot` answers generate_until tasks only")

    def loglikelihood_rolling(self, requests: list[Instance], **_: Any) -> list[float]:
        """Not offered: the suite's tasks generate."""
        raise NotImplementedError("the model `pilot` answers generate_until tasks only")

    def _answer(self, digests: Sequence[str], prompts: Sequence[str], limit: int) -> list[str]:
        def image_tokens(rows: list[int]) -> Tensor:
            return self._image_tokens([digests[row] for row in rows])

        return self._backbone.answer(image_tokens, prompts, limit)

    def _embed(self, images: Sequence[Image.Image]) -> list[str]:
        """Digest of every image; features of new ones go into the cache."""
        digests = [image_digest(image) for image in images]
        new = {digest: image for digest, image in zip(digests, images, strict=True) if digest not in self._features}
        if new:
            names = sorted(new)
            for name, features in zip(names, self._backbone.image_features([new[n] for n in names]), strict=True):
                self._features[name] = features
        return digests

    def _image_tokens(self, digests: Sequence[str]) -> Tensor:
        place = self._backbone.numerics.place
        features = torch.stack([place(self._features[digest]) for digest in digests])
        parts = [self._model.connector(part).tokens_BNC for part in features.split(CONNECTOR_BATCH)]
        return torch.cat(parts)


def image_digest(image: Image.Image) -> str:
    """Digest of an RGB image's size and pixels, whatever its file looked like."""
    return hashlib.sha256(f"{image.size}".encode() + image.tobytes()).hexdigest()


def only_image(request: Instance) -> Image.Image:
    """The image of a request, RGB.

    Raises:
        UserError: it has none or several.
    """
    visual = request.args[2]["visual"] if len(request.args) > 2 else []
    if len(visual) != 1:
        raise UserError(f"task {request.task_name}: a request has {len(visual)} images, the model `pilot` takes one.")
    image: Image.Image = visual[0]
    return image.convert("RGB")


def _instruction(prompt: str) -> str:
    """The prompt without its image, which LLaVA-1.5 moves to the front wherever a task mentions it."""
    if prompt.startswith(IMAGE_PLACEHOLDER):
        return prompt.removeprefix(IMAGE_PLACEHOLDER).removeprefix("\n")
    return prompt.replace(IMAGE_PLACEHOLDER, "").strip()


def _cut(answer: str, until: str | Sequence[str] | None) -> str:
    for stop in [until] if isinstance(until, str) else until or ():
        answer = answer.split(stop)[0] if stop else answer
    return answer
