"""Vision features of requests' images: each computed once, stored ones without looking at the picture."""

import io
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from PIL import Image
from torch import Tensor

from pilot.errors import UserError
from pilot.evaluation.lm import ImageFeatures
from pilot.evaluation.tasks import task_functions


class Counting:
    """In place of a backbone: an image's feature is its first pixel's red; notes how many were asked for."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def image_features(self, images: list[Image.Image]) -> Tensor:
        self.asked.append(len(images))
        pixels: list[Any] = [image.getpixel((0, 0)) for image in images]
        return torch.tensor([float(pixel[0]) for pixel in pixels]).view(-1, 1, 1)


def request(*images: Any) -> Instance:
    return Instance("generate_until", {}, ("What?", {}, {"visual": list(images)}), 0)


def square(red: int) -> Image.Image:
    return Image.new("RGB", (4, 4), (red, 0, 0))


def test_equal_pictures_are_computed_once() -> None:
    backbone: Any = Counting()
    images = ImageFeatures(backbone)
    requests = [request(square(3)), request(square(5)), request(square(3))]
    for _ in range(2):  # as of two models
        names = images.names(requests)
        assert names[0] == names[2] != names[1]
        assert images.features(names).flatten().tolist() == [3, 5, 3]
    assert images.features(images.names([request(square(7)), request(square(5))])).flatten().tolist() == [7, 5]
    assert backbone.asked == [2, 1]


def test_stored_features_are_those_of_their_requests() -> None:
    """By the request itself: an equal request that is not stored has its picture looked at."""
    backbone: Any = Counting()
    images = ImageFeatures(backbone)
    stored = [request("never looked at"), request("nor this")]
    images.preload(stored, torch.tensor([[[20.0]], [[30.0]]]))
    asked = [stored[1], request(square(9)), stored[0]]
    assert images.features(images.names(asked)).flatten().tolist() == [30, 9, 20]
    assert backbone.asked == [1]


def test_features_of_16_bits_are_joined_while_a_processor_computes_in_bfloat16() -> None:
    backbone: Any = Counting()
    images = ImageFeatures(backbone)
    stored = [request("never looked at"), request("nor this")]
    images.preload(stored, torch.tensor([[[20.0]], [[30.0]]], dtype=torch.float16))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        joined = images.features(images.names(stored))
    assert joined.dtype == torch.float16 and joined.flatten().tolist() == [20, 30]


def test_one_picture_is_expected() -> None:
    backbone: Any = Counting()
    with pytest.raises(UserError, match="a request has 2 images, the model `pilot` expects one"):
        ImageFeatures(backbone).names([request(square(1), square(2))])


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA"])
def test_a_document_has_an_rgb_image(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (255, 255, 255)).convert(mode).save(buffer, format="PNG")
    monkeypatch.setitem(task_functions._IMAGES, "it", buffer.getvalue())
    (image,) = task_functions.doc_to_image({"image_sha256": "it"})
    assert image.mode == "RGB" and image.tobytes() == bytes([255] * 48)
