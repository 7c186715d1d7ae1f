"""Export over LLaVA's own checkpoint layout: bfloat16, shards, LoRA in token space."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from pilot.backbone.features import compute_features
from pilot.backbone.from_profile import load_backbone
from pilot.backbone.sources import checkpoint_folder
from pilot.config.load import load_profile
from pilot.config.profile import Profile
from pilot.data.conditions import scenario_images
from pilot.errors import UserError
from pilot.evaluation.trained import load_run
from pilot.export import load
from pilot.export.write import export_model
from pilot.federation.spec import RunSpec
from pilot.federation.training import train_run

from ..small import Small, quiet
from .compare import asked, own_logits, stock_logits

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Profile:
    """`llava-random` at test size, one round, its checkpoint in a folder of its own."""
    patch = pytest.MonkeyPatch()
    patch.setenv("PILOT_MODELS", str(tmp_path_factory.mktemp("models")))
    shipped = load_profile("llava-random")
    yield shipped.model_copy(update={"rounds": 1, "local_epochs": None, "local_steps": 2, "checkpoint_minutes": None})
    patch.undo()


@pytest.fixture(scope="module")
def runs(small: Small, profile: Profile, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """FedAvg and Pilot, trained on the small scenario's data."""
    scenario_dir = tmp_path_factory.mktemp("results") / "llava-random" / "small"
    scenario_dir.mkdir(parents=True)
    for name in ("data", "partition"):
        (scenario_dir / name).symlink_to(small.folder / name)
    images = scenario_images(small.scenario, scenario_dir)
    compute_features(load_backbone(profile), profile, images, scenario_dir / "features", quiet)
    folders = {method: scenario_dir / "runs" / method / "seed0" for method in ("fedavg", "pilot")}
    for method, folder in folders.items():
        train_run(RunSpec(small.scenario, profile, method, 0), scenario_dir, folder, False, quiet)
    return folders


def own(run: Path, client: int, pairs: list) -> list[torch.Tensor]:  # type: ignore[type-arg]
    """The run's own logits, as it computes them in bfloat16."""
    backbone, models = load_run(run)
    model = next(loader() for clients, loader in models.items() if client in clients)
    with backbone.numerics.autocast():
        return [own_logits(backbone, model, image, text).float() for image, text in pairs]


def test_merged_and_adapter(small: Small, runs: dict[str, Path], profile: Profile, tmp_path: Path) -> None:
    """bfloat16 has eight bits: the largest difference is below a twentieth of the spread of the logits."""
    pairs = asked(small)[::2]
    merged = export_model(runs["fedavg"], 2, tmp_path / "merged")
    model = LlavaForConditionalGeneration.from_pretrained(merged)
    assert model.dtype == torch.bfloat16
    adapter = export_model(runs["fedavg"], 2, tmp_path / "adapter", "adapter")
    base = LlavaForConditionalGeneration.from_pretrained(checkpoint_folder(profile))
    processor = LlavaProcessor.from_pretrained(merged)
    expected = own(runs["fedavg"], 2, pairs)
    for stock in (model, PeftModel.from_pretrained(base, str(adapter)).eval()):
        for ours, (image, text) in zip(expected, pairs, strict=True):
            theirs = stock_logits(stock, processor, image, text).float()
            assert theirs.shape == ours.shape
            assert (ours - theirs).abs().max() < 0.05 * (ours.max() - ours.min())


def test_pilot(small: Small, runs: dict[str, Path], tmp_path: Path) -> None:
    """Bit for bit, through the profile in the folder."""
    pairs = asked(small)[::2]
    loaded = load(export_model(runs["pilot"], 3, tmp_path / "model"))
    with loaded.backbone.numerics.autocast():
        again = [own_logits(loaded.backbone, loaded.model, image, text).float() for image, text in pairs]
    assert all(torch.equal(one, other) for one, other in zip(again, own(runs["pilot"], 3, pairs), strict=True))
    assert len(loaded.answer([image for image, _ in pairs], [text for _, text in pairs], 4)) == len(pairs)


def test_nothing_to_merge_into(runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pilot.export.stock.checkpoint_folder", lambda profile: tmp_path / "nowhere")
    with pytest.raises(UserError, match="no checkpoint of llava-random to merge into. Set materialise: true"):
        export_model(runs["fedavg"], 0, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []
