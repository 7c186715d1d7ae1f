"""The family of docs/add-a-backbone.md, installed as another package: found, and equal to transformers' forward."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import CLIPVisionConfig, LlamaConfig, VipLlavaConfig, VipLlavaForConditionalGeneration

from pilot import provenance
from pilot.backbone.families import table
from pilot.backbone.from_profile import load_backbone
from pilot.backbone.random_llava import random_processor, random_tokenizer
from pilot.backbone.server_backbone import ServerBackbone, load_server_backbone
from pilot.config.model import RandomModel
from pilot.config.profile import Profile
from pilot.errors import UserError
from pilot.plan.architecture import architecture_of
from pilot.provenance import stage_digest

from ..families import images
from .test_server_backbone import assert_equal

PAGE = Path(__file__).resolve().parents[2] / "docs" / "add-a-backbone.md"
SIZE = RandomModel(
    text_layers=2, text_hidden=32, text_intermediate=48, text_heads=4, text_kv_heads=2, vocabulary=1304,
    max_positions=256, vision_layers=3, vision_hidden=16, vision_intermediate=32, vision_heads=2, image_size=28,
)  # fmt: skip


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The page's package on the path, and a checkpoint of its family."""
    code, entry = (re.search(rf"```{kind}\n(.*?)```", PAGE.read_text(), re.DOTALL) for kind in ("python", "toml"))
    assert code is not None and entry is not None and code[1].count("\n") < 150
    (tmp_path / "site" / "vip-0.dist-info").mkdir(parents=True)
    (tmp_path / "site" / "vip_family.py").write_text(code[1])
    (tmp_path / "site" / "vip-0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: vip\nVersion: 0\n")
    group, line = re.fullmatch(r'\[project\.entry-points\."(.*)"\]\n(.*)\n', entry[1]).groups()  # type: ignore[union-attr]
    (tmp_path / "site" / "vip-0.dist-info" / "entry_points.txt").write_text(f"[{group}]\n{line.replace(chr(34), '')}\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.delitem(sys.modules, "vip_family", raising=False)  # another test's
    for found in (table._others, provenance._other_families, stage_digest):
        found.cache_clear()
    _write(tmp_path / "model")
    yield tmp_path / "model"
    for found in (table._others, provenance._other_families, stage_digest):
        found.cache_clear()


def _write(folder: Path) -> None:
    tokenizer = random_tokenizer()
    config = VipLlavaConfig(
        vision_config=CLIPVisionConfig(**SIZE.vision()).to_dict(),
        text_config=LlamaConfig(**SIZE.text(tokenizer)).to_dict(),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"), vision_feature_layer=[-1, -2],
    )  # fmt: skip
    torch.manual_seed(0)
    model = VipLlavaForConditionalGeneration(config)
    for name, parameter in model.named_parameters():
        parameter.data.normal_(std=0.05) if "layernorm" not in name else parameter.data.uniform_(0.5, 1.5)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    random_processor(SIZE).save_pretrained(folder)


def profile(folder: Path) -> Profile:
    """A profile that names the checkpoint's folder."""
    return Profile.model_validate({
        "name": "vip", "backbone": str(folder), "rounds": 1, "local_steps": 1, "batch_size": 1, "warmup_fraction": 0,
        "weight_decay": 0, "max_grad_norm": 1, "lora": {"rank": 2, "alpha": 4},
        "learning_rates": {"default": {"text_adapter": 0.1, "connector": 0.1}},
        "prompt_template": "USER: <image>\n{instruction} A:", "box_frame": "padded_square",
    })  # fmt: skip


def test_the_page_gives_a_working_family(installed: Path) -> None:
    made = load_backbone(profile(installed))
    assert made.family.model_type == "vipllava" and "vipllava" in table.known_families()
    assert architecture_of(profile(installed)).parameters == sum(p.numel() for p in made.model.parameters()) - sum(
        p.numel() for p in made.text_adapter.values()
    )
    pictures = [image.resize((28, 28), Image.Resampling.BICUBIC) for image in images()]
    rest = torch.tensor([*made.prompt_ids("What is it?"), *made.answer_ids("a dog")])
    ids = torch.tensor(
        [*made.prompts.prefix, *[made.model.config.image_token_id] * made.num_image_tokens, *rest.tolist()]
    )
    with torch.no_grad():
        pixels = made.processor(pictures, return_tensors="pt")["pixel_values"]
        full = made.model(input_ids=ids.expand(2, -1), pixel_values=pixels).logits
        tokens = made.projector()(made.image_features(pictures))
        labels = torch.where(torch.arange(len(rest)) >= len(rest) - 2, rest, -100).expand(2, -1)
        logits, _ = made.logits(tokens, rest.expand(2, -1), labels)
    torch.testing.assert_close(logits, full[:, -3:-1].flatten(0, 1), atol=1e-5, rtol=1e-5)


def test_a_server_reads_the_connector_alone(installed: Path) -> None:
    server = load_server_backbone(profile(installed), weights=False)
    assert isinstance(server, ServerBackbone)
    assert_equal(server, load_backbone(profile(installed)))


def test_runs_depend_on_the_family(installed: Path) -> None:
    stages = ("features", "train", "answers", "tables")
    before = [stage_digest(stage) for stage in stages]
    module = installed.parent / "site" / "vip_family.py"
    module.write_text(module.read_text() + "# changed\n")
    stage_digest.cache_clear()
    changed = [old != stage_digest(stage) for stage, old in zip(stages, before, strict=True)]
    assert changed == [True, True, True, False]


def test_the_frame_of_boxes_is_stated(installed: Path) -> None:
    with pytest.raises(UserError, match="profile vip: field box_frame: expected one of original, .*vipllava models"):
        load_backbone(profile(installed).model_copy(update={"box_frame": None}))


def test_an_unknown_type_is_one_message(installed: Path) -> None:
    config = json.loads((installed / "config.json").read_text())
    (installed / "config.json").write_text(json.dumps(config | {"model_type": "paligemma"}))
    with pytest.raises(
        UserError, match=r"config\.json: field model_type: expected one of .*vipllava.*, got 'paligemma'"
    ):
        load_backbone(profile(installed))
