"""Packed greedy decoding beside transformers' own module: the same logits and tokens, whatever else is in the batch."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaModel

from pilot.backbone.backbone import Backbone
from pilot.backbone.lora import initial_lora_state
from pilot.backbone.packed import generation
from pilot.backbone.packed.generation import packed_greedy
from pilot.backbone.packed.llama import PackedLlama
from pilot.backbone.passes import ModulePasses
from pilot.data.record import read_records

from ..small import Small
from .test_packed import IMAGE, LEAD, VOCABULARY, WIDTH, make_model

NEVER = -1
"""An end that no model says."""
LEAD_IDS = torch.tensor([1, 2])
# lengths 1 to 7 and none at all; the third and the last are the same prompt, about different images
PROMPTS = [[5, 6], [4, 4, 4, 9, 8, 7, 1], [3, 2, 9], [8], [], [6, 6, 1, 2, 3], [10, 9, 8, 7], [3, 2, 9]]


class Model:
    """A random Llama with LoRA whose answers vary, and an image for every prompt."""

    def __init__(self, num_kv_heads: int) -> None:
        self.llama: LlamaModel = make_model(num_kv_heads)[0]
        self.llama.embed_tokens.weight.normal_()
        self.packed = PackedLlama(self.llama)
        self.head = torch.randn(VOCABULARY, WIDTH)
        self.images = torch.randn(len(PROMPTS), IMAGE, WIDTH)
        self.logits: list[Tensor] = []

    def lm_head(self, hidden: Tensor) -> Tensor:
        self.logits.append(hidden @ self.head.T)
        return self.logits[-1]

    def answers(self, rows: Sequence[int], max_new_tokens: int, end: int = NEVER, slots: int = 96) -> list[list[int]]:
        """By the packed path."""
        self.logits.clear()
        return packed_greedy(
            self.packed, self.lm_head, self.llama.embed_tokens, LEAD_IDS,
            lambda chosen: self.images[[rows[index] for index in chosen]], [PROMPTS[row] for row in rows],
            max_new_tokens=max_new_tokens, end=end, num_slots=slots,
        )  # fmt: skip

    @torch.no_grad()
    def plain_logits(self, row: int, answer: Sequence[int]) -> Tensor:
        """Logits (len(answer) + 1, V) after the prompt and after each of the answer's tokens, without a cache."""
        text = self.llama.embed_tokens(torch.tensor([*PROMPTS[row], *answer], dtype=torch.long))
        inputs = torch.cat([self.llama.embed_tokens(LEAD_IDS), self.images[row], text])[None]
        hidden: Tensor = self.llama(inputs_embeds=inputs, use_cache=False).last_hidden_state[0]
        return (hidden @ self.head.T)[LEAD + IMAGE + len(PROMPTS[row]) - 1 :]

    def plain_answer(self, row: int, max_new_tokens: int, end: int = NEVER) -> list[int]:
        """Token by token, every time from the start."""
        answer: list[int] = []
        for _ in range(max_new_tokens):
            token = int(self.plain_logits(row, answer)[-1].argmax())
            if token == end:
                break
            answer.append(token)
        return answer


ROWS = range(len(PROMPTS))
WAITING = ((3, 1), (2, 32), (1, 1))


@pytest.mark.parametrize("num_kv_heads", [4, 2, 1])
def test_logits_are_those_of_transformers(num_kv_heads: int) -> None:
    """At every step, 30 of them: the cache grows twice on the way."""
    model = Model(num_kv_heads)
    answers = model.answers(ROWS, 30)
    order = sorted(ROWS, key=lambda row: -len(PROMPTS[row]))  # as they are read
    assert len(model.logits) == 30 and len({token for answer in answers for token in answer}) > 5
    mine = torch.stack([logits[: len(PROMPTS)] for logits in model.logits], dim=1)
    for place, row in enumerate(order):
        assert torch.allclose(mine[place], model.plain_logits(row, answers[row][:-1]), atol=1e-4)


@pytest.mark.parametrize(
    ("slots", "at_once"), [(96, 32), (3, 2), *(pytest.param(*each, marks=pytest.mark.exhaustive) for each in WAITING)]
)
@pytest.mark.slow
def test_tokens_are_those_of_each_prompt_alone(slots: int, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With fewer slots than prompts, prompts wait, and take the place of those that ended."""
    monkeypatch.setattr(generation, "PREFILL_BATCH", at_once)
    model = Model(2)
    long = [model.plain_answer(row, 12) for row in ROWS]
    for end in range(VOCABULARY):
        expected = [answer[: answer.index(end)] if end in answer else answer for answer in long]
        assert model.answers(ROWS, 12, end, slots) == expected
        assert [model.answers([row], 12, end)[0] for row in ROWS] == expected


def test_rows_move_when_few_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slots in steps of two: the logits of a pass get fewer rows, and what is left goes on as before."""
    monkeypatch.setattr(generation, "MULTIPLE", 2)
    model = Model(2)
    long = [model.plain_answer(row, 12) for row in ROWS]
    sizes = set()
    for end in range(VOCABULARY):
        expected = [answer[: answer.index(end)] if end in answer else answer for answer in long]
        assert model.answers(ROWS, 12, end) == expected
        sizes |= {len(logits) for logits in model.logits[1:]}
    assert sizes >= {8, 6, 4}


def test_all_end_at_once() -> None:
    """At the first token, which is the end; at the limit; before anything was asked."""
    model = Model(4)
    (first, *_) = model.plain_answer(0, 1)
    assert model.answers([0, 0, 0], 5, end=first) == [[], [], []]
    assert model.answers(ROWS, 1) == [model.plain_answer(row, 1) for row in ROWS]
    assert model.answers(ROWS, 0) == [[] for _ in ROWS]
    assert model.answers([], 5) == []


def test_the_first_of_equally_likely_tokens_wins() -> None:
    model = Model(4)
    expected = model.plain_answer(0, 1)[0]
    model.head = torch.cat([torch.zeros(1, WIDTH), model.head[[expected, expected]]])
    assert model.answers([0], 1) == [[1]]


@pytest.mark.slow
def test_shipped_weights_answer_as_by_transformers(small: Small) -> None:
    """All prompts of the small scenario, of three tasks and many lengths, with an adapter that does something."""
    backbone: Backbone = small.backbone
    prompts, shas = [], []
    for task in ("scene-vqa", "scene-caption", "scene-ground"):
        for record in read_records(small.folder / "data" / task / "records.parquet"):
            prompts.append(record.instruction)
            shas.append(record.image_sha256)
    tokens = backbone.projector()(small.features.take([small.features.row_of[sha] for sha in shas]))
    generator = torch.Generator().manual_seed(0)
    state: dict[str, Any] = {
        name: 0.02 * torch.randn(parameter.shape, generator=generator)
        for name, parameter in backbone.text_adapter.items()
    }
    backbone.load_text_adapter(state)
    try:
        ids = backbone._all_prompt_ids(prompts)
        with torch.no_grad():
            plain = ModulePasses(backbone._passes._model).answer(lambda rows: tokens[rows], ids, 24)
        decoded = [str(backbone.tokenizer.decode(answer, skip_special_tokens=True)).strip() for answer in plain]
        assert backbone.answer(lambda rows: tokens[rows], prompts, 24) == decoded
        assert len(prompts) > 96 and len({len(row) for row in ids}) > 5 and len(set(decoded)) > 20
    finally:
        backbone.load_text_adapter(initial_lora_state(backbone.text_adapter, 0))
