"""Greedy decoding on a CPU: prompts of any length in one batch; waiting prompts replace finished ones.

The answers are those of transformers' module, one prompt at a time, with little work besides the matrix products:

- Prompts are packed (`pilot.backbone.packed.packing`): no padding, one prefix, the last layer for last tokens only.
- There is a fixed number of slots, each with room for one sequence's rotated keys and its values. When enough slots are
  free, the next prompts, longest first, are read into them. So the number of rows, and with it the shapes of all
  products, stays the same, which spares oneDNN new kernels. When no prompt waits, the remaining rows move to the first
  slots.
- One product forms queries, keys and values of a step, another gate and up; W + s B A is formed once.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from pilot.backbone.packed.attention import attend, make_attention_indices, rotate
from pilot.backbone.packed.llama import PackedLlama
from pilot.backbone.packed.ops import RmsNorm
from pilot.backbone.packed.packing import IGNORED, MULTIPLE, pack

Layer = Callable[[Tensor], Tensor]
PREFILL_BATCH = 64
"""Prompts per packed pass."""
LENGTH_STEP = 16
"""Slots grow by this many positions. Attention always covers all positions: oneDNN would first copy a part of them."""
SPARE_POSITIONS = 8
"""Positions that a slot gets beyond those it needs."""


@torch.no_grad()
def packed_greedy(
    llama: PackedLlama,
    lm_head: Layer,
    embed: Layer,
    prefix: Tensor,
    image_tokens: Callable[[list[int]], Tensor],
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    end: int,
    num_slots: int,
) -> list[list[int]]:
    """Continue `prefix`, image and prompt with the most likely tokens until `end` or `max_new_tokens`.

    Args:
        llama: the decoder layers.
        lm_head: maps hidden states (M, C) to logits (M, V).
        embed: maps ids to (..., C).
        prefix: ids with which every sequence begins.
        image_tokens: maps rows of `prompts` to image tokens (rows, N, C).
        prompts: ids that follow the image.
        max_new_tokens: maximum number of tokens of an answer.
        end: the id that ends an answer; it is not returned.
        num_slots: number of sequences that are continued at once.

    Returns:
        The new ids of every prompt. Among equally likely tokens the first wins.
    """
    answers: list[list[int]] = [[] for _ in prompts]
    if max_new_tokens < 1 or not prompts:
        return answers
    waiting = sorted(range(len(prompts)), key=lambda row: -len(prompts[row]))
    decoder = _Decoder(llama, lm_head, embed, prefix, min(num_slots, -len(prompts) // MULTIPLE * -MULTIPLE))
    row_of: dict[int, int] = {}  # slot -> row of `prompts`
    while waiting or row_of:
        free = [slot for slot in range(decoder.num_slots) if slot not in row_of]
        wanted = min(PREFILL_BATCH, decoder.num_slots, len(waiting))
        if wanted and len(free) >= wanted:
            rows, waiting, slots = waiting[:wanted], waiting[wanted:], free[:wanted]
            chosen = decoder.prefill(slots, image_tokens(rows), [prompts[row] for row in rows])
            row_of.update(zip(slots, rows, strict=True))
            tokens = dict(zip(slots, chosen, strict=True))
        else:
            slots = sorted(row_of)
            tokens = dict(enumerate(decoder.step()))
        for slot in slots:
            answer = answers[row_of[slot]]
            if tokens[slot] != end:
                answer.append(tokens[slot])
            if tokens[slot] == end or len(answer) == max_new_tokens:
                decoder.clear(slot)
                del row_of[slot]
        if not waiting:
            row_of = decoder.compact(row_of)
    return answers


class _Decoder:
    """Sequences in slots: keys and values of the tokens read so far, and the token to read next.

    Shapes: S slots with P positions each, H heads of width D, KV heads of keys and values.
    """

    def __init__(self, llama: PackedLlama, lm_head: Layer, embed: Layer, prefix: Tensor, num_slots: int) -> None:
        self.llama, self.lm_head, self.embed, self.num_slots = llama, lm_head, embed, num_slots
        self.weights = [own | {"qkv": torch.cat([own["q"], own["kv"]])} for own in llama.weights.merged()]
        self.biases = [torch.cat([own["q"], own["kv"]]) if own else None for own in llama.weights.biases]
        self.prefix_TC = embed(prefix)
        self.width = self.weights[0]["q"].shape[0] // llama.num_heads
        self.length_S = torch.zeros(num_slots, dtype=torch.long)
        self.active_S = torch.zeros(num_slots, dtype=torch.long)  # 1 for occupied slots
        self.token_S = torch.zeros(num_slots, dtype=torch.long)
        self.num_positions = 0
        room = (2, num_slots, llama.num_kv_heads, 0, self.width)
        self.cache = [self.prefix_TC.new_zeros(room) for _ in llama.layers]

    def prefill(self, slots: list[int], image_BNC: Tensor, prompts: Sequence[Sequence[int]]) -> list[int]:
        """Read prompts into slots; return the first new token of each."""
        llama, into = self.llama, torch.tensor(slots)
        packing = pack(*_pad_prompts(prompts), len(self.prefix_TC), image_BNC.shape[1])
        self._grow_slots(packing.length + 1)
        x_TC = torch.cat([self.prefix_TC, image_BNC.flatten(0, 1), self.embed(packing.text_T)])
        rotations_LE = self.rotations_PE[: packing.length]
        every, queries = make_attention_indices(packing, llama.num_heads, llama.num_kv_heads, rotations_LE)
        all_biases = llama.weights.biases
        for index, (own, cache) in enumerate(zip(self.weights, self.cache, strict=True)):
            last = index == len(self.weights) - 1
            n_TC = RmsNorm.apply(x_TC, llama.layers[index].input_layernorm.weight, llama.epsilon)
            biases = all_biases[index]
            kv = functional.linear(n_TC, own["kv"], biases.get("kv"))
            if last:  # its output is used at the queries only
                n_TC, x_TC = n_TC[packing.query_M], x_TC[packing.query_M]
            q = functional.linear(n_TC, own["q"], biases.get("q"))
            mixed, (_, k, v, _) = attend(q, kv, queries if last else every)
            for part, heads in enumerate((k, v)):
                by_head = heads.view(len(slots), llama.num_kv_heads, every.num_groups, -1, self.width)
                cache[part, into, :, : packing.length] = by_head[:, :, 0]
            x_TC = llama.after_attention(x_TC, mixed, index, own)
        num_before = len(self.prefix_TC) + image_BNC.shape[1]
        self.length_S[into] = torch.tensor([num_before + len(prompt) for prompt in prompts])
        self.active_S[into] = 1
        tokens = self._choose(x_TC)[: len(slots)]
        self.token_S[into] = tokens
        first: list[int] = tokens.tolist()
        return first

    def step(self) -> list[int]:
        """Read each slot's token; return the next token of each slot (of empty ones, too)."""
        llama, slots, width, heads = self.llama, self.num_slots, self.width, self.llama.num_heads
        self._grow_slots(int(self.length_S.max()) + 1)
        mask = self._mask()
        rotations = self.rotations_PE[self.length_S][:, None]
        place = self._next_positions()
        x_SC = self.embed(self.token_S)
        for index, (own, cache) in enumerate(zip(self.weights, self.cache, strict=True)):
            n_SC = RmsNorm.apply(x_SC, llama.layers[index].input_layernorm.weight, llama.epsilon)
            qkv = functional.linear(n_SC, own["qkv"], self.biases[index]).view(slots, -1, width)
            rotate(qkv[:, : heads + llama.num_kv_heads], rotations)
            cache.view(-1, width).index_copy_(0, place, qkv[:, heads:].reshape(-1, width))
            k, v = cache.view(2, -1, self.num_positions, width)[:, : len(mask)]
            q = qkv[:, :heads].reshape(len(k), -1, width)
            weights = torch.baddbmm(mask, q, k.transpose(1, 2), alpha=width**-0.5).softmax(dim=-1)
            x_SC = llama.after_attention(x_SC, torch.bmm(weights, v).view(slots, -1), index, own)
        self.length_S += self.active_S
        self.token_S = self._choose(x_SC)
        tokens: list[int] = self.token_S.tolist()
        return tokens

    def clear(self, slot: int) -> None:
        """Free a slot."""
        self.length_S[slot] = self.active_S[slot] = 0

    def compact(self, row_of: dict[int, int]) -> dict[int, int]:
        """Move active sequences to the first slots if fewer slots suffice; return slot -> row."""
        enough = -(-len(row_of) // MULTIPLE) * MULTIPLE
        if enough >= self.num_slots:
            return row_of
        free = [slot for slot in range(enough) if slot not in row_of]
        moves = dict(zip(sorted(slot for slot in row_of if slot >= enough), free, strict=False))
        if moves:
            source, target = torch.tensor(list(moves)), torch.tensor(list(moves.values()))
            for values_S in (self.length_S, self.active_S, self.token_S):
                values_S[target] = values_S[source]
            for cache in self.cache:
                cache[:, target] = cache[:, source]
        self.length_S, self.active_S = self.length_S[:enough], self.active_S[:enough]
        self.token_S, self.num_slots = self.token_S[:enough], enough
        return {moves.get(slot, slot): row for slot, row in row_of.items()}

    def _choose(self, x_MC: Tensor) -> Tensor:
        """Return the most likely next token (M,) of the last layer's states."""
        return self.lm_head(RmsNorm.apply(x_MC, self.llama.norm_C, self.llama.epsilon)).argmax(dim=-1)

    def _mask(self) -> Tensor:
        """Return the mask (S * KV, 1, P): 0 for positions up to that of a slot's token, -inf beyond."""
        unseen = torch.arange(self.num_positions) > self.length_S[:, None]
        mask = torch.zeros(unseen.shape).masked_fill_(unseen, -math.inf)
        return mask.repeat_interleave(self.llama.num_kv_heads, dim=0)[:, None]

    def _next_positions(self) -> Tensor:
        """Return where keys and values (S, 2 KV) of each slot's token go in the cache of 2 * slots * KV * P vectors."""
        num_allocated, num_heads = self.cache[0].shape[1:3]
        slot = torch.arange(self.num_slots)[:, None, None]
        part, head = torch.arange(2)[:, None], torch.arange(num_heads)
        room = (part * num_allocated + slot) * num_heads + head
        return (room * self.num_positions + self.length_S[:, None, None]).flatten()

    def _grow_slots(self, length: int) -> None:
        """Extend every slot to at least `length` positions; drop the positions of slots that are no longer used."""
        if length <= self.num_positions:
            return
        more = -(-(length + SPARE_POSITIONS) // LENGTH_STEP) * LENGTH_STEP - self.num_positions
        self.num_positions += more
        self.cache = [functional.pad(cache[:, : self.num_slots], (0, 0, 0, more)) for cache in self.cache]
        self.rotations_PE = self.llama.rotations(self.prefix_TC, self.num_positions)


def _pad_prompts(prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Return ids (B, L), and labels by which the last token of each prompt, or of its image, is one that predicts."""
    width = max(map(len, prompts)) + 1
    ids_BL = torch.tensor([[*prompt, *[0] * (width - len(prompt))] for prompt in prompts])
    labels_BL = torch.full_like(ids_BL, IGNORED)
    labels_BL[torch.arange(len(prompts)), torch.tensor([len(prompt) for prompt in prompts])] = 0
    return ids_BL, labels_BL
