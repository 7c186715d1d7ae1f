"""Conversations of several turns as one text, in LLaVA's `v1` format."""

from collections.abc import Mapping, Sequence
from typing import Any

USER, ASSISTANT, END = "USER: ", " ASSISTANT: ", "</s>"


def conversation_text(earlier: Sequence[Mapping[str, Any]], instruction: str) -> str:
    """Prepend earlier questions and answers to the last question; without earlier turns, return the question.

    The text takes the place of the instruction in a prompt: the prompt's template adds the first and the last role.
    """
    spoken = (f"{turn['instruction']}{ASSISTANT}{turn['answer']}{END}{USER}" for turn in earlier)
    return "".join(spoken) + instruction
