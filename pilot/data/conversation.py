"""Several turns in one text, as LLaVA's `v1` conversation writes them."""

from collections.abc import Mapping, Sequence
from typing import Any

USER, ASSISTANT, END = "USER: ", " ASSISTANT: ", "</s>"


def conversation_text(earlier: Sequence[Mapping[str, Any]], instruction: str) -> str:
    """Write earlier questions with their answers before the last question; without any, the question alone.

    The text stands in a prompt where an instruction does: the prompt's template adds the first role and the last.
    """
    spoken = (f"{turn['instruction']}{ASSISTANT}{turn['answer']}{END}{USER}" for turn in earlier)
    return "".join(spoken) + instruction
