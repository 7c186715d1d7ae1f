"""Batched greedy decoding with a key-value cache."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


@torch.no_grad()
def greedy(
    language_model: nn.Module,
    lm_head: nn.Module,
    embed: nn.Module,
    inputs_BLC: Tensor,
    *,
    max_new_tokens: int,
    end: int,
    places: Callable[[int, int, int], Tensor | None] = lambda start, stop, count: None,
) -> list[list[int]]:
    """Continue every row of `inputs_BLC` with the most likely tokens until `end` or `max_new_tokens`.

    All rows have the same length (callers group prompts by length), so no padding or mask is needed and a row's
    answer is computed as if it were alone. Among equally likely tokens the first wins. `end` is not returned. `places`
    returns position ids of tokens from `start` to `stop`; see `pilot.backbone.passes.LanguageModel.places`.
    """
    from transformers import DynamicCache

    cache = DynamicCache()
    answers: list[list[int]] = [[] for _ in range(len(inputs_BLC))]
    open_rows = torch.ones(len(inputs_BLC), dtype=torch.bool)
    step_inputs, done = inputs_BLC, 0
    for _ in range(max_new_tokens):
        until = done + step_inputs.shape[1]
        output = language_model(
            inputs_embeds=step_inputs, position_ids=places(done, until, len(step_inputs)), past_key_values=cache,
            use_cache=True,
        )  # fmt: skip
        done = until
        tokens = lm_head(output.last_hidden_state[:, -1]).argmax(-1)
        chosen = tokens.cpu()
        open_rows &= chosen != end
        if not open_rows.any():
            break
        for row in open_rows.nonzero().flatten().tolist():
            answers[row].append(int(chosen[row]))
        step_inputs = embed(tokens[:, None])
    return answers


def group_by_length(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Group indices of equal length, at most `batch_size` per group, longest first; the order is deterministic."""
    groups: dict[int, list[int]] = {}
    for index, length in enumerate(lengths):
        groups.setdefault(length, []).append(index)
    return [
        rows[start : start + batch_size]
        for _, rows in sorted(groups.items(), reverse=True)
        for start in range(0, len(rows), batch_size)
    ]
