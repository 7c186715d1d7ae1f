"""Ids of prompts and answers: from a profile's template, or from the checkpoint's own chat template.

A conversation is `prefix [image tokens] first prompt, answer, later prompt, answer, ...`.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from jinja2 import TemplateError

from pilot.errors import UserError

IMAGE_PLACEHOLDER = "<image>"
_ROLE = re.compile(r"\S+:\s*$")
"""Pattern of the user's role, which ends the template's text before the image."""


class Joined(UserError):
    """Two parts of a conversation that a tokenizer makes one token of: neither has ids of its own."""

    def __init__(self, tokenizer: Any, first: str, second: str) -> None:
        super().__init__(
            f"{tokenizer.name_or_path}: the tokenizer joins {first} with {second}. Expected tokens of their own: "
            "change the text in the data, or prompt_template in the profile."
        )


class Prompts(Protocol):
    """Ids of the parts of a conversation.

    Attributes:
        prefix: ids before the image, the same in every conversation.
        eos_id: id that ends an answer.
    """

    prefix: Sequence[int]
    eos_id: int

    def first(self, instruction: str) -> list[int]:
        """Return the ids between the image and the first answer."""

    def later(self, instruction: str) -> list[int]:
        """Return the ids of a later question, which follow the end token of the previous answer."""

    def answer(self, answer: str) -> list[int]:
        """Return the ids of an answer with its end token, as they are when the answer follows a prompt.

        Raises:
            Joined: the tokenizer joins the prompt's last characters with the answer's first.
        """


class TemplatePrompts:
    """Prompts of a template with `<image>` and `{instruction}`, which the tokenizer's begin token precedes."""

    def __init__(self, tokenizer: Any, template: str) -> None:
        self._tokenizer, self.eos_id = tokenizer, tokenizer.eos_token_id
        before, self._after = template.split(IMAGE_PLACEHOLDER)
        role = _ROLE.search(before)
        self._later = (role[0] if role else "") + self._after.lstrip()
        self._turn = self._after.split("{instruction}")[1].strip()
        self._turn_ids = self._ids(self._turn)
        self.prefix: Sequence[int] = [tokenizer.bos_token_id, *self._ids(before)]

    def first(self, instruction: str) -> list[int]:
        """Return the ids after the image; strip the instruction, as LLaVA's code does."""
        return self._ids(self._after.replace("{instruction}", instruction.strip()))

    def later(self, instruction: str) -> list[int]:
        """Return the ids of a later question."""
        return self._ids(self._later.replace("{instruction}", instruction))

    def answer(self, answer: str) -> list[int]:
        """Return the ids of an answer with its end token; see `Prompts.answer`.

        Prompt and answer are tokenised together: tokenised alone, an answer would start with the space that
        SentencePiece puts before a text.
        """
        both = self._ids(f"{self._turn} {answer}")
        if both[: len(self._turn_ids)] != self._turn_ids:
            raise Joined(self._tokenizer, f"the prompt's end {self._turn!r}", f"the answer {answer!r}")
        return [*both[len(self._turn_ids) :], self.eos_id]

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids


class ChatPrompts:
    """Prompts of a chat template; prompt and answer are tokenised together, in the template's own text.

    Args:
        tokenizer: transformers' tokenizer with a chat template.
        image: the token that the template writes for an image.
        opening: text that the processor writes before an image's tokens.
        closing: text that it writes after them.

    Raises:
        UserError: the tokenizer has no chat template, or one without an image, without a generation prompt that answers
            continue, without an end of answers, or with text before the image that depends on the question.
    """

    def __init__(self, tokenizer: Any, image: str, opening: str = "", closing: str = "") -> None:
        self._tokenizer = tokenizer
        self._image: int = tokenizer.convert_tokens_to_ids(image)
        self._closing = self._tokens(closing)
        probe, other = ([_user(text)] for text in ("a", "b?"))
        before, rest = self._around(probe)
        if self._around(other)[0] != before:
            raise self._unusable("the text before the image depends on the question")
        self.prefix: Sequence[int] = [*before, *self._tokens(opening)]
        if rest == self._around(probe, generate=False)[1]:
            raise self._unusable("it has no generation prompt (add_generation_prompt changes nothing)")
        self._probe = probe
        try:
            one, two = (self._turn(answer) for answer in ("a", "b?"))
        except Joined as error:
            raise self._unusable("an answer does not continue the generation prompt") from error
        same = 0
        while same < min(len(one), len(two)) and one[-1 - same] == two[-1 - same]:
            same += 1
        self._tail = one[len(one) - same :]
        if not self._tail:
            raise self._unusable("no token ends an answer")
        self.eos_id: int = self._tail[0]

    def first(self, instruction: str) -> list[int]:
        """Return the ids between the image's tokens and the first answer; strip the instruction."""
        return [*self._closing, *self._around([_user(instruction.strip())])[1]]

    def later(self, instruction: str) -> list[int]:
        """Return the ids of a later question, from the token after the end token on."""
        talk = [*self._probe, _assistant("a")]
        before = self._render(talk, generate=False)
        after = self._render([*talk, _user(instruction.strip(), image=False)], generate=True)
        if after[: len(before)] != before:
            raise Joined(self._tokenizer, "an answer's end", f"the question {instruction!r}")
        return [*self._tail[1:], *after[len(before) :]]

    def answer(self, answer: str) -> list[int]:
        """Return the ids of an answer with its end token; see `Prompts.answer`."""
        turn = self._turn(answer)
        if turn[len(turn) - len(self._tail) :] != self._tail:
            raise Joined(self._tokenizer, f"the answer {answer!r}", "what ends it")
        return [*turn[: len(turn) - len(self._tail)], self.eos_id]

    def _turn(self, answer: str) -> list[int]:
        """Return the ids after the generation prompt, to the end of the answer's turn."""
        prompt = self._render(self._probe, generate=True)
        both = self._render([*self._probe, _assistant(answer)], generate=False)
        if both[: len(prompt)] != prompt:
            raise Joined(self._tokenizer, "the generation prompt", f"the answer {answer!r}")
        return both[len(prompt) :]

    def _around(self, talk: Sequence[Mapping[str, Any]], *, generate: bool = True) -> tuple[list[int], list[int]]:
        """Return the ids before and after the image's token."""
        ids = self._render(talk, generate=generate)
        if ids.count(self._image) != 1:
            raise self._unusable(f"expected one image token for one image, got {ids.count(self._image)}")
        place = ids.index(self._image)
        return ids[:place], ids[place + 1 :]

    def _render(self, talk: Sequence[Mapping[str, Any]], *, generate: bool) -> list[int]:
        try:
            text = self._tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=generate)
        except ValueError as error:  # transformers': there is no template
            raise self._unusable("there is none") from error
        except TemplateError as error:
            raise self._unusable(f"it does not take a question with an image ({error})") from error
        begin = self._tokenizer.bos_token
        return self._tokens(text, special=not (begin and text.startswith(begin)))

    def _tokens(self, text: str, *, special: bool = False) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=special)["input_ids"]
        return ids

    def _unusable(self, reason: str) -> UserError:
        return UserError(
            f"{self._tokenizer.name_or_path}: chat template: {reason}. Expected a template that writes one image token "
            "per image, ends with a generation prompt and closes every answer with a token; or set prompt_template in "
            "the profile."
        )


def _user(text: str, *, image: bool = True) -> dict[str, Any]:
    parts = [{"type": "image"}] if image else []
    return {"role": "user", "content": [*parts, {"type": "text", "text": text}]}


def _assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}
