"""The packed pass beside transformers' own module: same loss, same gradients, nothing crosses between sequences."""

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlamaConfig, LlamaModel, Qwen2Config, Qwen2Model

from pilot.backbone.from_profile import load_backbone
from pilot.backbone.language import LanguageParameters
from pilot.backbone.lora import attach_lora
from pilot.backbone.packed.llama import PackedLlama
from pilot.backbone.packed.ops import RmsNorm, SwiGlu
from pilot.backbone.packed.packing import IGNORED, MULTIPLE, pack
from pilot.backbone.packed.weights import StackedWeights, _stacked
from pilot.backbone.sources import TINY_LLAVA
from pilot.config.load import load_profile
from pilot.federation.optimisation import Optimiser

LEAD, IMAGE, WIDTH, VOCABULARY = 2, 3, 16, 11
# text after the image: (prompt, answer), of different lengths; the fourth has no answer at all
TEXTS = [([5, 6], [7, 1]), ([4], [3, 2, 9, 1]), ([8, 8, 8, 4, 5], [1]), ([5, 5], []), ([], [6, 1])]


def make_model(num_kv_heads: int, kind: str = "llama", **changes: Any) -> tuple[Any, dict[str, torch.nn.Parameter]]:
    torch.manual_seed(0)
    config_class, model_class = {"llama": (LlamaConfig, LlamaModel), "qwen2": (Qwen2Config, Qwen2Model)}[kind]
    config = config_class(
        hidden_size=WIDTH, intermediate_size=24, num_hidden_layers=3, num_attention_heads=4, vocab_size=VOCABULARY,
        num_key_value_heads=num_kv_heads, attn_implementation="eager", **changes,
    )  # fmt: skip
    model = model_class(config).requires_grad_(False).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.normal_(std=0.5)
    for layer in model.layers:  # all ones would hide a norm that ignores its weight
        layer.input_layernorm.weight.uniform_(0.5, 1.5)
        layer.post_attention_layernorm.weight.uniform_(0.5, 1.5)
    adapter = attach_lora(model, 4, 8.0)
    with torch.no_grad():
        for parameter in adapter.values():
            parameter.normal_(std=0.3)
    return model, adapter


def collated(texts: list[tuple[list[int], list[int]]]) -> tuple[Tensor, Tensor]:
    width = max(len(prompt) + len(answer) for prompt, answer in texts)
    ids, labels = torch.zeros(len(texts), width, dtype=torch.long), torch.full((len(texts), width), IGNORED)
    for row, (prompt, answer) in enumerate(texts):
        ids[row, : len(prompt) + len(answer)] = torch.tensor(prompt + answer)
        labels[row, len(prompt) : len(prompt) + len(answer)] = torch.tensor(answer)
    return ids, labels


def packed_loss(model: LlamaModel, lead: Tensor, images: Tensor, ids: Tensor, labels: Tensor) -> Tensor:
    packing = pack(ids, labels, LEAD, IMAGE)
    inputs = torch.cat([lead, images.flatten(0, 1), model.embed_tokens(packing.text_T)])
    hidden = PackedLlama(model).prediction_states(inputs, packing)
    return functional.cross_entropy(hidden @ model.embed_tokens.weight.T, packing.targets_M)


def plain_loss(model: LlamaModel, lead: Tensor, images: Tensor, ids: Tensor, labels: Tensor) -> Tensor:
    inputs = torch.cat([lead.expand(len(ids), -1, -1), images, model.embed_tokens(ids)], dim=1)
    hidden = model(inputs_embeds=inputs, use_cache=False).last_hidden_state[:, LEAD + IMAGE - 1 : -1]
    return functional.cross_entropy((hidden @ model.embed_tokens.weight.T).flatten(0, 1), labels.flatten())


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
@pytest.mark.parametrize("num_kv_heads", [4, 2, 1])
def test_loss_and_gradients_are_those_of_transformers(num_kv_heads: int, kind: str) -> None:
    model, adapter = make_model(num_kv_heads, kind)
    ids, labels = collated(TEXTS)
    results = []
    for loss_of in (packed_loss, plain_loss):
        torch.manual_seed(1)
        lead = torch.randn(LEAD, WIDTH, requires_grad=True)
        images = torch.randn(len(TEXTS), IMAGE, WIDTH, requires_grad=True)
        for parameter in adapter.values():
            parameter.grad = None
        loss = loss_of(model, lead, images, ids, labels)
        loss.backward()  # type: ignore[no-untyped-call]
        results.append((loss.detach(), [lead.grad, images.grad, *(p.grad for p in adapter.values())]))
    (packed, of_packed), (plain, of_plain) = results
    assert packed == pytest.approx(plain.item(), abs=1e-6)
    for mine, theirs in zip(of_packed, of_plain, strict=True):
        assert mine is not None and theirs is not None and theirs.abs().max() > 1e-6
        assert torch.allclose(mine, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("with_lora", [True, False])
@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_gradients_of_the_llm_itself_are_those_of_transformers(kind: str, with_lora: bool) -> None:
    """Every weight, bias, norm and embedding, of which the head's are the same; W + s B A with all of them trained."""
    model, adapter = make_model(2, kind)
    ids, labels = collated(TEXTS)
    lead, images = torch.randn(LEAD, WIDTH), torch.randn(len(TEXTS), IMAGE, WIDTH)
    frozen = packed_loss(model, lead, images, ids, labels)
    own = LanguageParameters(model, nn.Identity(), adapter.values()).parameters()
    shared = {"norm.weight", "embed_tokens.weight"}
    assert {name.removeprefix("language.") for name in own} >= shared and not any("lora" in name for name in own)
    assert len(own) == len(shared) + 3 * (7 + 2 + (3 if kind == "qwen2" else 0))
    for parameter in own.values():
        parameter.requires_grad_(True)
    trained = {**own, **(adapter if with_lora else {})}
    for parameter in adapter.values():
        parameter.requires_grad_(with_lora)
    results = []
    for loss_of in (packed_loss, plain_loss):
        for parameter in trained.values():
            parameter.grad = None
        loss = loss_of(model, lead, images, ids, labels)
        loss.backward()  # type: ignore[no-untyped-call]
        results.append((loss.detach(), [p.grad for p in trained.values()]))
    (packed, of_packed), (plain, of_plain) = results
    assert packed == frozen.detach() and packed == pytest.approx(plain.item(), abs=1e-6)
    for mine, theirs in zip(of_packed, of_plain, strict=True):
        assert mine is not None and theirs is not None
        assert torch.allclose(mine, theirs, rtol=1e-4, atol=1e-6)
    zero = {name for name, value in zip(trained, of_plain, strict=True) if value is not None and not value.any()}
    assert zero == set()


def test_a_sequence_does_not_see_the_others() -> None:
    """The loss of all is the mean of the losses alone, by labelled tokens; order does not matter."""
    model, _ = make_model(4)
    lead, images = torch.randn(LEAD, WIDTH), torch.randn(len(TEXTS), IMAGE, WIDTH)
    counts = [len(answer) for _, answer in TEXTS]
    alone = [
        packed_loss(model, lead, images[row : row + 1], *collated([text])).item() * counts[row] if counts[row] else 0.0
        for row, text in enumerate(TEXTS)
    ]
    expected = sum(alone) / sum(counts)
    for order in itertools.islice(itertools.permutations(range(len(TEXTS))), 0, 120, 17):
        batch = collated([TEXTS[row] for row in order])
        assert packed_loss(model, lead, images[list(order)], *batch).item() == pytest.approx(expected, abs=1e-5)


def test_places_of_a_packing() -> None:
    # two sequences, one lead token (0), one image token each (1 and 2), texts "10 11" (11 labelled) and "20" (labelled)
    ids, labels = torch.tensor([[10, 11], [20, 0]]), torch.tensor([[IGNORED, 11], [20, IGNORED]])
    packing = pack(ids, labels, 1, 1)
    assert (packing.num_rows, packing.length, packing.num_tokens) == (2, 3, 4)
    # the last label's own token is predicted and not read, so only 10 is among the text: token 3
    assert packing.text_T[:1].tolist() == [10]
    assert packing.gather_BL.view(2, 3).tolist() == [[0, 1, 3], [0, 2, 0]]
    assert packing.positions_T[:4].tolist() == [0, 1, 1, 2]
    assert packing.scatter_T[:4].tolist() == [0, 1, 4, 2]
    # 11 is predicted at 10 (token 3), 20 at the second image (token 2)
    assert packing.num_predictions == 2 and packing.query_M[:2].tolist() == [3, 2]
    assert packing.targets_M[:2].tolist() == [11, 20] and set(packing.targets_M[2:].tolist()) == {IGNORED}
    assert len(packing.positions_T) == MULTIPLE and len(packing.targets_M) == MULTIPLE


def test_what_stands_after_the_last_label_is_not_read() -> None:
    ids, labels = collated(TEXTS)
    model, _ = make_model(4)
    lead, images = torch.randn(LEAD, WIDTH), torch.randn(len(TEXTS), IMAGE, WIDTH)
    wider = functional.pad(ids, (0, 4), value=9), functional.pad(labels, (0, 4), value=IGNORED)
    assert packed_loss(model, lead, images, *wider) == packed_loss(model, lead, images, ids, labels)


def test_backward_of_norm_and_swiglu() -> None:
    torch.manual_seed(0)
    x = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    gain = torch.linspace(0.5, 2, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: RmsNorm.apply(x, gain.detach(), 1e-6), x)
    assert torch.autograd.gradcheck(lambda x, gain: RmsNorm.apply(x, gain, 1e-6), (x, gain))
    assert torch.autograd.gradcheck(SwiGlu.apply, x)
    weight = torch.linspace(0.5, 2, 6)
    assert torch.allclose(RmsNorm.apply(x.float(), weight, 1e-6), functional.rms_norm(x.float(), (6,), weight, 1e-6))


@pytest.mark.parametrize("change", [{"hidden_act": "gelu"}, {"attention_bias": True}, {"mlp_bias": True}])
def test_another_architecture_is_refused(change: dict[str, Any]) -> None:
    config = LlamaConfig(
        hidden_size=WIDTH, intermediate_size=24, num_hidden_layers=1, num_attention_heads=4, vocab_size=VOCABULARY,
        **change,
    )  # fmt: skip
    with pytest.raises(ValueError, match=next(iter(change))):
        PackedLlama(LlamaModel(config))


def test_weights_are_those_of_the_layers_wherever_the_adapter_lies() -> None:
    """Also after an optimiser has put parameters of one shape one after the other."""
    model, adapter = make_model(2)
    weights, layer = StackedWeights(list(model.layers), 4), model.layers[1]
    rates = {"text_adapter": 0.1, "connector": 0.1}
    separate = weights.merged()
    stack = weights._stacks[0].parameters()[: len(model.layers)]
    assert _stacked(stack).data_ptr() != stack[0].data_ptr()
    Optimiser(adapter, adapter.keys(), rates, 1, 0.0, 0.0, 1.0)
    together = weights.merged()
    assert _stacked(stack).data_ptr() == stack[0].data_ptr()
    for own in (separate[1], together[1]):
        projections = layer.self_attn
        by_pairs = [0, 2, 1, 3]  # of a head of four rows
        queries = projections.q_proj.merged_weight().view(4, 4, WIDTH)[:, by_pairs].flatten(0, 1)
        assert torch.allclose(own["q"], queries, atol=1e-6)
        keys = projections.k_proj.merged_weight().view(2, 4, WIDTH)[:, by_pairs].flatten(0, 1)
        keys_and_values = [keys, projections.v_proj.merged_weight()]
        assert torch.allclose(own["kv"], torch.cat(keys_and_values), atol=1e-6)
        gate_and_up = [layer.mlp.gate_proj.merged_weight(), layer.mlp.up_proj.merged_weight()]
        assert torch.allclose(own["gate_up"], torch.cat(gate_and_up), atol=1e-6)
        assert torch.allclose(own["down"], layer.mlp.down_proj.merged_weight(), atol=1e-6)


def test_a_backbone_that_the_packed_passes_do_not_compute_is_left_to_transformers(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(TINY_LLAVA, folder)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["hidden_act"] = "gelu"
    (folder / "config.json").write_text(json.dumps(config))
    backbone = load_backbone(load_profile("embedded").model_copy(update={"backbone_path": str(folder)}), lean=True)
    tokens = torch.randn(2, 25, 128, requires_grad=True)
    ids = torch.tensor([backbone.prompt_ids("What is it?") + backbone.answer_ids("Dog")] * 2)
    loss = backbone.cross_entropy(tokens, ids, torch.where(torch.arange(ids.shape[1]) > ids.shape[1] - 3, ids, IGNORED))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss > 0 and tokens.grad is not None and tokens.grad.abs().max() > 0
    assert len(backbone.answer(lambda rows: tokens.detach()[rows], ["What is it?"] * 2, 2)) == 2
