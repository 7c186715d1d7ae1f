"""Runs on every family at test size: phases train what they name, kills change nothing, answers and scores exist."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import transformers
from peft import PeftModel

from pilot.backbone.prompts import ChatPrompts
from pilot.backbone.sources import checkpoint_folder
from pilot.evaluation.answers import answer_run
from pilot.evaluation.scoring import score_runs
from pilot.evaluation.trained import load_run
from pilot.export.write import export_model
from pilot.federation.client import PhaseTask, build_client_model
from pilot.federation.phase_run import PhaseRun
from pilot.federation.shards import batches
from pilot.federation.training import train_run
from pilot.io.atomic import read_json

from ..families import QUESTION, images, prompt, stock_inputs
from ..marks import few_of
from ..meteor import leave_out_meteor
from ..small import Small, contents, quiet

PROFILES = ("smolvlm-random", "internvl-random", "llava-onevision-random", "qwen2.5-vl-random")


class Killed(Exception):
    """Ends training where a kill would."""


@pytest.fixture(scope="module", params=PROFILES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Small]:
    """The small scenario for a profile that ships, cut to one client per task."""
    root = tmp_path_factory.mktemp("family")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PILOT_MODELS", str(tmp_path_factory.getbasetemp() / "models"))
        text = Path(f"pipelines/profiles/{request.param}.yaml").read_text(encoding="utf-8")
        made = Small(root, text.replace("local_steps: 4", "local_steps: 2"), clients_per_task=1)
        made.build()
        yield made


@pytest.mark.slow
@pytest.mark.parametrize("method", few_of(["pilot"], ["fedavg", "fedmoe"]))
def test_a_run_survives_a_kill(family: Small, method: str, tmp_path: Path) -> None:
    whole = contents(family.run(method))
    steps = 0

    def die(done: int, total: int) -> None:
        nonlocal steps
        steps += 1
        if steps == 5:
            raise Killed

    with pytest.raises(Killed):
        train_run(family.spec(method), family.folder, tmp_path / "run", True, die)
    train_run(family.spec(method), family.folder, tmp_path / "run", True, quiet)
    assert contents(tmp_path / "run") == whole


@pytest.mark.slow
@pytest.mark.parametrize("method", ["pilot", "fedavg", "fedmoe"])
def test_gradients_reach_the_phases_groups_and_no_others(family: Small, method: str) -> None:
    spec, backbone = family.spec(method), family.backbone
    made = spec.make_method()
    info = spec.clients(made)[0]
    batch = next(batches(family.examples[0], family.features, 4, 0, backbone.eos_id))
    for number, phase in enumerate(made.phases(1)):
        model = build_client_model(backbone, made, phase, info, {}, {}, backbone.projector())
        run = PhaseRun(backbone, made, PhaseTask(info, phase, 1, number, 1, {}), {}, model)
        run.compute_gradients([batch])
        run.require_gradients()
        reached = {name for name, parameter in model.parameters.items() if parameter.grad is not None}
        assert {name.split(".")[0] for name in reached} == {group.split(":")[0] for group in phase.trainable}
        assert all(parameter.grad is None for parameter in backbone.model.parameters() if not parameter.requires_grad)


@pytest.mark.slow
@pytest.mark.parametrize("form", few_of(["merged"], ["adapter"]))
def test_stock_transformers_gives_an_exports_answers(family: Small, form: str, tmp_path: Path) -> None:
    run = family.run("fedavg")
    export_model(run, 0, tmp_path / "model", form)
    backbone, models = load_run(run)
    model = next(loader() for clients, loader in models.items() if 0 in clients)
    loader = getattr(transformers, backbone.family.model_class)
    if form == "merged":
        stock = loader.from_pretrained(tmp_path / "model", local_files_only=True)
    else:
        base = loader.from_pretrained(checkpoint_folder(family.profile), local_files_only=True)
        stock = PeftModel.from_pretrained(base, tmp_path / "model").eval()
    ids, asked = prompt(backbone).expand(2, -1), [backbone.prompt_ids(QUESTION)] * 2
    answer = torch.tensor(backbone.answer_ids("Two cats")).expand(2, -1)
    rest = torch.cat([torch.tensor(asked), answer], dim=1)
    labels = torch.cat([torch.full_like(torch.tensor(asked), -100), answer], dim=1)
    with torch.no_grad():
        tokens = model.connector(backbone.image_features(images())).tokens_BNC
        whole = backbone._whole(tokens)
        answers = backbone._passes.answer(lambda rows: whole[rows], asked, 8)
        logits, _ = backbone.logits(tokens, rest, labels)
        made = stock.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), **stock_inputs(backbone, ids), max_new_tokens=8,
            do_sample=False, eos_token_id=backbone.eos_id, pad_token_id=0,
        )  # fmt: skip
        both = torch.cat([ids, answer], dim=1)
        full = stock(input_ids=both, **stock_inputs(backbone, both)).logits[:, ids.shape[1] - 1 : -1].flatten(0, 1)
    rows = made[:, ids.shape[1] :].tolist()
    assert answers == [[token for token in row if token not in (0, backbone.eos_id)] for row in rows]
    torch.testing.assert_close(logits, full, atol=1e-5, rtol=1e-5)
    assert float(full.std()) > 1e-3
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "model", local_files_only=True)
    token = tokenizer.convert_ids_to_tokens(backbone.model.config.image_token_id)
    again = ChatPrompts(tokenizer, token, backbone.family.opening, backbone.family.closing)
    assert again.first(QUESTION) == backbone.prompt_ids(QUESTION)


@pytest.mark.slow
def test_answers_and_scores_of_pilot(family: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On questions, captions and boxes. METEOR, for which random words take minutes, is no matter of a family."""
    leave_out_meteor(monkeypatch)
    run = Path(shutil.copytree(family.run("pilot"), tmp_path / "small" / "runs" / "pilot" / "seed0"))
    for name in ("data", "partition", "features"):
        (tmp_path / "small" / name).symlink_to(family.folder / name)
    answer_run(run, quiet)
    score_runs([run])
    entries = read_json(run / "eval" / "metrics.json")["entries"]
    found = {entry["metric"]: entry for entry in entries if entry["status"] == "ok"}
    assert f"acc@0.5[{family.profile.frame}]" in found and "CIDEr" in found and "exact_match" in found
