"""What `pilot-bench export` writes beside the weights, and what it refuses."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from pilot.cli.main import app
from pilot.errors import UserError
from pilot.export.card import loading_code
from pilot.export.licences import backbone_licence, source_note
from pilot.export.source import load_trained_model
from pilot.export.write import export_model
from pilot.io.atomic import read_json, write_json
from pilot.io.digest import sha256_file

from ..small import Small
from .compare import asked

FORMS = [("fedavg", None), ("fedavg", "adapter"), ("pilot", None)]


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def read_card(folder: Path) -> tuple[dict[str, object], str]:
    """Front matter and text."""
    _, front, text = (folder / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(front), text


@pytest.mark.slow
@pytest.mark.parametrize(("method", "form"), FORMS)
def test_equal_bytes(small: Small, method: str, form: str | None, tmp_path: Path) -> None:
    one, two = (export_model(small.run(method), 2, tmp_path / name / "model", form) for name in ("one", "two"))
    assert files_of(one) == files_of(two)
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == ["model"]
    assert one.stat().st_mode & 0o777 == 0o755
    assert {path.stat().st_mode & 0o777 for path in one.iterdir()} == {0o644}


@pytest.mark.parametrize(("method", "form"), FORMS)
def test_card_shows_how_to_load(
    small: Small, method: str, form: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """The card's lines of code are run as they stand, in the folder."""
    folder = export_model(small.run(method), 2, tmp_path / "model", form)
    asked(small)[0][0].resize((120, 90)).save(folder / "photo.jpg")
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert len(code.splitlines()) <= 7 and "trust_remote_code" not in code
    monkeypatch.chdir(folder)
    exec(compile(code, "card", "exec"), {})
    assert len(capsys.readouterr().out.strip()) > 3


def test_card_of_a_scored_run(small: Small, tmp_path: Path) -> None:
    """Counts from data cards and rounds, scores of this client only, digests of config and weights."""
    run = tmp_path / "small" / "runs" / "fedavg" / "seed0"
    shutil.copytree(small.run("fedavg"), run)
    shutil.copytree(small.folder / "data", tmp_path / "small" / "data")
    entry = {"task": "scene-vqa", "protocol": "personalised", "metric": "exact_match", "num_examples": 8}
    good = entry | {"client": 1, "value": 0.125, "status": "ok", "reason": ""}
    other = entry | {"client": 0, "value": 0.875, "status": "ok", "reason": ""}
    missing = entry | {"client": 1, "metric": "SPICE", "value": None, "status": "unavailable", "reason": "no jars"}
    write_json(run / "eval/metrics.json", {"entries": [good, other, missing]})
    folder = export_model(run, 1, tmp_path / "model")
    front, text = read_card(folder)
    assert front == {
        "license": "apache-2.0", "library_name": "transformers", "pipeline_tag": "image-text-to-text",
        "base_model": "tiny-llava", "base_model_relation": "finetune",
        "tags": ["pilot-bench", "federated-learning", "llava", "fedavg", "small"],
    }  # fmt: skip
    assert "| scene-vqa | personalised | exact_match | 8 | 0.1250 |" in text and "0.8750" not in text
    assert "| scene-vqa | personalised | SPICE | 8 | unavailable: no jars |" in text
    assert "| scene-caption | caption | `scene-caption` | 36 | 8 |" in text
    # 40 records over two clients; of 20 each, a tenth for validation and a tenth for local tests.
    assert "client 0: 16, client 1: 16, client 2: 14, client 3: 14, client 4: 18, client 5: 18." in text
    assert "| client | 1 of 6, task scene-vqa; its model is the same as that of clients 0, 2, 3, 4, 5 |" in text
    assert "Twemoji graphics (CC-BY 4.0" in text
    assert f"| model.safetensors | `{sha256_file(folder / 'model.safetensors')}` |" in text
    assert f"| features | `{read_json(run / 'config.json')['digests']['features']}` |" in text


@pytest.mark.slow
def test_card_of_other_runs(small: Small, tmp_path: Path) -> None:
    front, text = read_card(export_model(small.run("untuned"), 0, tmp_path / "untuned"))
    assert "The model was not trained: it is the base model." in text and "Not evaluated." in text
    front, text = read_card(export_model(small.run("pilot"), 3, tmp_path / "pilot"))
    assert (front["library_name"], front["base_model_relation"]) == ("pilot-bench", "adapter")
    assert "task scene-caption; its model is its own" in text
    front, text = read_card(export_model(small.run("central"), 5, tmp_path / "central"))
    assert "This model's client trained on 96;" in text  # 2 * (16 + 14 + 18)


def test_base_of_the_real_model(small: Small) -> None:
    """The hub's name and the pinned revision, as PEFT and transformers take them."""
    source = load_trained_model(small.run("fedavg"), 0)
    profile = small.profile.model_copy(update={"backbone": "llava-1.5-7b", "revision": "a" * 40})
    real = replace(source, spec=replace(source.spec, profile=profile))
    assert real.base_name == "llava-hf/llava-1.5-7b-hf" and source.base_name == "tiny-llava"
    where = f"'llava-hf/llava-1.5-7b-hf', revision='{'a' * 40}'"
    assert (
        f"base = LlavaForConditionalGeneration.from_pretrained({where})" in loading_code(real, "adapter").splitlines()
    )


def test_licences() -> None:
    assert backbone_licence("llava-1.5-7b")[0] == "llama2"
    assert backbone_licence("somebody-elses") == ("other", "licence unknown. Ask the publisher.")
    assert source_note({"origin": "a file"}) == "a file"
    assert source_note({"origin": "a file", "intake": {"licence": "CC-BY 4.0"}}) == "a file; licence: CC-BY 4.0"


def test_nothing_is_overwritten(small: Small, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"full: --to: exists and is not an empty folder"):
        export_model(small.run("fedavg"), 0, tmp_path / "full")
    with pytest.raises(UserError, match="not an empty folder"):
        export_model(small.run("fedavg"), 0, tmp_path / "full/notes.txt")
    assert files_of(tmp_path) == {"full/notes.txt": b"mine"}
    (tmp_path / "empty").mkdir()
    assert (export_model(small.run("fedavg"), 0, tmp_path / "empty") / "README.md").is_file()


def test_a_failure_leaves_nothing(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pilot.export.write.write_adapter", full)
    with pytest.raises(UserError, match=r"model: writing failed \(No space left on device\)\. The partial export"):
        export_model(small.run("fedavg"), 0, tmp_path / "model", "adapter")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/model: cannot be written"):
        export_model(small.run("fedavg"), 0, tmp_path / "file" / "model")


def test_refusals(small: Small, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no client 6 in this run\. Expected --client in 0\.\.5 \(0: scene-vqa, 1: "):
        export_model(small.run("fedavg"), 6, tmp_path / "model")
    with pytest.raises(UserError, match=r"not a finished run \(manifest.json is missing\)\. Train it first"):
        export_model(small.folder, 0, tmp_path / "model")
    with pytest.raises(UserError, match=r"--adapter: method pilot has several connectors or LoRAs"):
        export_model(small.run("pilot"), 0, tmp_path / "model", "adapter")
    assert list(tmp_path.iterdir()) == []


def test_runs_without_a_model(small: Small, tmp_path: Path) -> None:
    from pilot.federation.blind import write_blind_run
    from pilot.federation.spec import scenario_digests

    write_blind_run(small.spec("majority"), scenario_digests(small.folder), tmp_path / "majority")
    with pytest.raises(UserError, match="method majority has no model to export"):
        export_model(tmp_path / "majority", 0, tmp_path / "model")
    (tmp_path / "theirs/imported").mkdir(parents=True)
    with pytest.raises(UserError, match="this run was imported and has no model"):
        export_model(tmp_path / "theirs", 0, tmp_path / "model")


def test_a_lost_private_state_is_named(small: Small, tmp_path: Path) -> None:
    """After a deployment it lies on the client's node."""
    run = tmp_path / "runs" / "pilot" / "seed0"
    shutil.copytree(small.run("pilot"), run)
    shutil.rmtree(run / "clients/3")
    with pytest.raises(UserError, match=r"clients/3/r2p0.safetensors: checkpoint is incomplete"):
        export_model(run, 3, tmp_path / "model")


def test_command(small: Small, tmp_path: Path) -> None:
    arguments = ["export", str(small.run("fedavg")), "--client", "0", "--to", str(tmp_path / "model"), "--adapter"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "model/adapter_model.safetensors").is_file()
    again = CliRunner().invoke(app, arguments)
    assert isinstance(again.exception, UserError)
