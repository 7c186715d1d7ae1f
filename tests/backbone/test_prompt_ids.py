"""The `v1` conversation of LLaVA-1.5, token for token, on a tokenizer with the structure and the ids of Llama's.

Vicuna's tokenizer cannot be shipped. The fixture is a real byte-pair tokenizer of `tokenizers` with Llama's normaliser
(a space before the text, spaces as U+2581) and no pre-tokeniser, whose vocabulary holds just the pieces of these texts
under their ids in Llama's. The expected ids are those that public code and logs quote for these very texts. Covered are
therefore the layout (begin token, both sides of the image with the space of their own that SentencePiece gives each
text, the answer without one, the end token), not Llama's 32,000 pieces.
"""

from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, normalizers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from pilot.backbone.backbone import Backbone
from pilot.backbone.checkpoint import Checkpoint
from pilot.backbone.from_profile import load_backbone
from pilot.backbone.packed.packing import IGNORED
from pilot.backbone.passes import ModulePasses
from pilot.backbone.prompts import TemplatePrompts
from pilot.backbone.random_llava import random_model, random_processor
from pilot.config.load import load_profile
from pilot.data.conversation import conversation_text
from pilot.data.record import InstructionRecord, Turn
from pilot.errors import UserError
from pilot.federation.shards import collate, make_examples, truncation

PIECES = {
    "▁A": 319, "▁chat": 13563, "▁between": 1546, "▁a": 263, "▁curious": 12758, "▁user": 1404, "▁and": 322,
    "▁an": 385, "▁artificial": 23116, "▁intelligence": 21082, "▁assistant": 20255, ".": 29889, "▁The": 450,
    "▁gives": 4076, "▁helpful": 8444, ",": 29892, "▁detailed": 13173, "▁pol": 1248, "ite": 568, "▁answers": 6089,
    "▁to": 304, "▁the": 278, "'": 29915, "s": 29879, "▁questions": 5155, "▁US": 3148, "ER": 1001, ":": 29901,
    "▁": 29871, "\n": 13, "What": 5618, "▁is": 338, "▁content": 2793, "▁of": 310, "▁this": 445, "▁image": 1967,
    "?": 29973, "SS": 1799, "IST": 9047, "ANT": 13566, "▁Sure": 18585, "!": 29991,
}  # fmt: skip
SYSTEM = [
    1, 319, 13563, 1546, 263, 12758, 1404, 322, 385, 23116, 21082, 20255, 29889, 450, 20255, 4076, 8444, 29892, 13173,
    29892, 322, 1248, 568, 6089, 304, 278, 1404, 29915, 29879, 5155, 29889, 3148, 1001, 29901, 29871,
]  # fmt: skip
"""`A chat between ... questions. USER: `, as LLaVA's `tokenizer_image_token` leaves it before the image."""
QUESTION = [29871, 13, 5618, 338, 278, 2793, 310, 445, 1967, 29973, 319, 1799, 9047, 13566, 29901]
"""`\\nWhat is the content of this image? ASSISTANT:`."""


def llama_like() -> PreTrainedTokenizerFast:
    """The fixture: pieces grow from the left, one character at a time, through pieces of ids beyond Llama's."""
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2, **PIECES, "<image>": 32000}
    merges: list[tuple[str, str]] = []
    for piece in PIECES:
        for end in range(1, len(piece)):
            for part in (piece[: end + 1], piece[end]):
                vocabulary.setdefault(part, 32064 + len(vocabulary))
            vocabulary.setdefault(piece[:1], 32064 + len(vocabulary))
            merge = (piece[:end], piece[end])
            merges += [merge] if merge not in merges else []
    tokenizer = Tokenizer(BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text in ("<unk>", "<s>", "</s>", "<image>")])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<unk>"
    )


def llava_backbone(tokenizer: PreTrainedTokenizerFast) -> Backbone:
    """A tiny model whose prompts are made by a tokenizer and the template of the profile `llava`."""
    size = load_profile("llava-random").architecture
    assert size is not None
    model = random_model(size, torch.device("cpu"), torch.float32)
    checkpoint = Checkpoint(model, tokenizer, random_processor(size))
    return Backbone(checkpoint, rank=2, alpha=4, prompt_template=load_profile("llava").prompt_template)


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    """With the fixture."""
    return llava_backbone(llama_like())


def test_both_sides_of_the_image(backbone: Backbone) -> None:
    assert backbone._prefix_ids.tolist() == SYSTEM
    assert backbone.prompt_ids("What is the content of this image?") == QUESTION


def test_answer_follows_without_a_space_of_its_own(backbone: Backbone) -> None:
    """`ASSISTANT: Sure!</s>` is 29901, 18585, 29991, 2: no 29871 in between, which `Sure!` alone would begin with."""
    assert backbone.answer_ids("Sure!") == [18585, 29991, 2]
    assert backbone.tokenizer(" Sure!", add_special_tokens=False)["input_ids"] == [29871, 18585, 29991]
    whole = "\nWhat is the content of this image? ASSISTANT: Sure!"
    in_one = backbone.tokenizer(whole, add_special_tokens=False)["input_ids"]
    assert in_one == QUESTION + [18585, 29991]


class Features:
    """One image."""

    row_of: ClassVar[dict[str, int]] = {}

    def take(self, rows: list[int]) -> torch.Tensor:
        """No features."""
        return torch.zeros(len(rows), 1, 1)


def conversation(*texts: str) -> tuple[InstructionRecord, Any]:
    """A record whose last question and answer are the last two texts, and a cache that knows its image."""
    pairs = list(zip(texts[::2], texts[1::2], strict=True))
    question, answer = pairs[-1]
    earlier = tuple(Turn(*pair) for pair in pairs[:-1])
    record = InstructionRecord("c", "vqa", "own", b"", question, answer, (answer,), {}, "train", earlier=earlier)
    features = Features()
    features.row_of = {record.image_sha256: 0}
    return record, features


LATER = [3148, 1001, 29901, 450, 2793, 29973, 319, 1799, 9047, 13566, 29901]
"""`USER: The content? ASSISTANT:`, which follows an end token."""


def test_every_answer_of_a_conversation_is_learnt(backbone: Backbone) -> None:
    """`...image? ASSISTANT: Sure!</s>USER: The content? ASSISTANT: Sure! Sure!</s>`, labels on the answers."""
    texts = ("What is the content of this image?", "Sure!", "The content?", "Sure! Sure!")
    record, features = conversation(*texts)
    (example,) = make_examples(backbone, features, [record])
    batch = collate([example], features, 0)
    first, last = [18585, 29991, 2], [18585, 29991, 18585, 29991, 2]
    assert batch.ids_BL.tolist() == [[*QUESTION, *first, *LATER, *last]]
    assert batch.labels_BL.tolist() == [[*[IGNORED] * len(QUESTION), *first, *[IGNORED] * len(LATER), *last]]
    asked = conversation_text([turn._asdict() for turn in record.earlier], record.instruction)
    assert backbone.prompt_ids(asked) == [*QUESTION, *first, *LATER]  # as it is asked in an evaluation


def test_an_empty_answer_masks_its_example(backbone: Backbone) -> None:
    for texts in (("What?", ""), ("What?", "", "What is this?", "Sure!"), ("What?", "Sure!", "What?", "")):
        record, features = conversation(*texts)
        batch = collate(make_examples(backbone, features, [record]), features, 0)
        assert batch.labels_BL.unique().tolist() == [IGNORED]


def test_edge_spaces_of_an_instruction_are_dropped(backbone: Backbone) -> None:
    assert backbone.prompt_ids(" \nWhat is the content of this image? ") == QUESTION


def test_a_conversation_is_cut_at_its_end(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ("What is the content of this image?", "Sure!", "The content?", "Sure! Sure!")
    record, features = conversation(*texts)
    for room, cut, labelled in ((34, (0, 0), 8), (31, (3, 3), 5), (20, (14, 5), 3), (16, (18, 7), 1), (9, (25, 8), 0)):
        monkeypatch.setattr(backbone, "max_ids", room)
        (example,) = make_examples(backbone, features, [record])
        assert (example.num_cut, example.num_ids) == (cut, room)
        assert int((collate([example], features, 0).labels_BL != IGNORED).sum()) == labelled
        assert truncation([example]).get("without_answer", 0) == (labelled == 0)


@pytest.mark.parametrize("packed", [True, False])
def test_both_passes_learn_every_answer(small_tokenizer: PreTrainedTokenizerFast, packed: bool) -> None:
    """The loss is the mean over the tokens of both answers, each predicted from what stands before it."""
    profile = load_profile("embedded")
    own = load_backbone(profile, lean=packed)
    if not packed:
        own._passes = ModulePasses(own._passes._model)  # type: ignore[attr-defined]
    record, features = conversation("What is it?", "red", "And that?", "a dog and an apple")
    (example,) = make_examples(own, features, [record])
    batch = collate([example], features, own.eos_id)
    tokens = own.projector()(torch.randn(1, *own.feature_shape, generator=torch.Generator().manual_seed(0)))
    with torch.no_grad():
        logits, targets = own.logits(tokens, batch.ids_BL, batch.labels_BL)
        loss = own.cross_entropy(tokens, batch.ids_BL, batch.labels_BL)
    assert targets[: len(logits)].tolist() == [i for _, answer in example.turns for i in answer]
    one_by_one = []
    with torch.no_grad():
        for place in (batch.labels_BL[0] != IGNORED).nonzero().flatten().tolist():
            labels = torch.full((1, place + 1), IGNORED)
            labels[0, place] = batch.ids_BL[0, place]
            one_by_one.append(own.cross_entropy(tokens, batch.ids_BL[:, : place + 1], labels))
    assert len(one_by_one) == len(example.earlier[0][1]) + len(example.answer)
    torch.testing.assert_close(loss, torch.stack(one_by_one).mean(), rtol=1e-4, atol=1e-5)


def test_answers_of_the_shipped_tokenizer_are_those_it_had_alone(small_tokenizer: PreTrainedTokenizerFast) -> None:
    """Its pre-tokeniser sets `ASSISTANT:` apart, so both ways agree, and the embedded runs keep their ids."""
    for answer in ("red", "3", "[0.12, 0.34, 0.56, 0.99]", "A dog and two apples on a green background.", "USER: x"):
        alone = small_tokenizer(f" {answer}", add_special_tokens=False)["input_ids"]
        lead = small_tokenizer("ASSISTANT:", add_special_tokens=False)["input_ids"]
        both = small_tokenizer(f"ASSISTANT: {answer}", add_special_tokens=False)["input_ids"]
        assert both == lead + alone


@pytest.fixture(scope="module")
def small_tokenizer() -> PreTrainedTokenizerFast:
    """Tiny-llava's."""
    from pilot.backbone.random_llava import random_tokenizer

    return random_tokenizer()


def test_the_profiles_share_the_template() -> None:
    texts = {name: Path(f"pipelines/profiles/{name}.yaml").name for name in ("llava", "llava-random")}
    assert len({load_profile(name).prompt_template for name in texts}) == 1
    assert load_profile("llava").prompt_template == (
        "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
        "detailed, and polite answers to the user's questions. USER: <image>\n{instruction} ASSISTANT:"
    )


class OneToken:
    """A tokenizer that makes one token of every text."""

    name_or_path, eos_token_id, bos_token_id = "one", 0, None

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        """The text's length as its id."""
        return {"input_ids": [len(text)] if text else []}


def test_an_answer_without_ids_is_one_message() -> None:
    prompts = TemplatePrompts(OneToken(), "USER: <image>\n{instruction} ASSISTANT:")
    with pytest.raises(UserError, match="one: the tokenizer joins the prompt's end .* with the answer 'red'. Expected"):
        prompts.answer("red")
