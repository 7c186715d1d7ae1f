"""`llava-random` at test size, with the settings of the profile `llava`: it trains, answers, is killed and goes on."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pilot.backbone.sources import MODELS_VARIABLE
from pilot.evaluation.answers import answer_run
from pilot.federation.client import PhaseTask
from pilot.federation.phase_run import PhaseRun
from pilot.federation.training import train_run
from pilot.io.atomic import read_json, read_jsonl
from pilot.io.checkpoint import load_state

from ..marks import few_of
from ..small import Small, contents, quiet

METHODS = ["pilot", "fedavg", "fedprox", "fedmoe", "local", "central", "scaffold", "feddat", "fedex_lora"]
PROFILE = """\
name: random
backbone: llava-random
architecture: {text_layers: 2, text_hidden: 32, text_intermediate: 48, text_heads: 2, text_kv_heads: 2,
  vocabulary: 1304, max_positions: 256, vision_layers: 2, vision_hidden: 16, vision_intermediate: 32,
  vision_heads: 2, image_size: 28}
precision: bfloat16
attention: sdpa
gradient_checkpointing: true
generation_batch: 32
feature_dtype: bfloat16
rounds: 2
local_epochs: 0.5
batch_size: 2
accumulation: 2
max_length: 40
checkpoint_minutes: 0
warmup_fraction: 0.03
weight_decay: 0.0
max_grad_norm: 1.0
lora: {rank: 4, alpha: 8, space: token}
learning_rates:
  default: {text_adapter: 0.003, connector: 0.003}
  pilot: {text_adapter: 0.003, connector: 0.003, phases: {stage2: {text_adapter: 0.006}}}
prompt_template: "USER: <image>\\n{instruction} ASSISTANT:"
"""


class Killed(Exception):
    """Stands for whatever ends a process."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Small]:
    """The small scenario with a random LLaVA."""
    root = tmp_path_factory.mktemp("random")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MODELS_VARIABLE, str(root / "models"))
        made = Small(root, PROFILE)
        made.build()
        yield made


@pytest.mark.slow
def test_settings_reach_the_model(tiny: Small) -> None:
    """Frozen weights and features in bfloat16, LoRA in float32; what leaves a client is float32."""
    backbone, run = tiny.backbone, tiny.run("pilot")
    assert backbone.embed.weight.dtype == torch.bfloat16 and tiny.features.take([0]).dtype == torch.bfloat16
    assert {parameter.dtype for parameter in backbone.text_adapter.values()} == {torch.float32}
    assert backbone.model.config._attn_implementation == "sdpa"
    server = load_state(run / "checkpoint/round-2/server.safetensors")
    assert {value.dtype for value in server.values()} == {torch.float32}
    assert read_json(tiny.folder / "features/index.json")["dtype"] == "bfloat16"


@pytest.mark.slow
def test_half_an_epoch_in_steps(tiny: Small) -> None:
    """ceil(0.5 n / (2 x 2)) steps per client and round, whatever its phases."""
    rows = read_jsonl(tiny.run("pilot") / "rounds.jsonl")
    counts = {client: len(examples) for client, examples in tiny.examples.items()}
    assert len(counts) == 6 and min(counts.values()) >= 10
    for number in (1, 2):
        taken = dict.fromkeys(counts, 0)
        for client in (client for row in rows if row["round"] == number for client in row["clients"]):
            taken[client["client"]] += client["steps"]
        assert taken == {client: -(-count // 8) for client, count in counts.items()}
    budget = read_json(tiny.run("pilot") / "config.json")["budget"]
    assert budget == {"rounds": 2, "local_epochs": 0.5, "batch_size": 4, "num_clients": 6}


def test_what_was_cut_off_is_counted(tiny: Small) -> None:
    """40 tokens less begin, `USER: ` and four image tokens; questions with 30 or more tokens lose their answers."""
    limit = tiny.backbone.max_ids
    assert limit == 40 - tiny.backbone.num_prefix_tokens - 4
    first = {c["client"]: c.get("truncated") for c in read_jsonl(tiny.run("pilot") / "rounds.jsonl")[0]["clients"]}
    for client, examples in tiny.examples.items():
        assert all(len(example.prompt) + len(example.answer) <= limit for example in examples)
        cut = [example for example in examples if example.num_cut[0]]
        assert first[client] == (None if not cut else {
            "examples": len(cut),
            "answer_tokens": sum(example.num_cut[1] for example in cut),
            "without_answer": sum(not example.answer for example in cut),
        })  # fmt: skip
    assert any(first.values()), "the test is about those that are cut"


@pytest.mark.slow
@pytest.mark.parametrize("method", few_of(["pilot", "scaffold"], METHODS))
def test_every_method_trains_and_answers(tiny: Small, method: str) -> None:
    run = tiny.run(method)
    losses = [c["losses"]["cross_entropy"] for row in read_jsonl(run / "rounds.jsonl") for c in row["clients"]]
    assert losses and all(loss is not None and 0 <= loss < 20 for each in losses for loss in each)
    assert not any(row["excluded"] or row["skipped"] for row in read_jsonl(run / "rounds.jsonl"))
    assert not list(run.rglob("unfinished-*"))
    answer_run(run, quiet)
    rows = read_jsonl(run / "eval/samples.jsonl")
    assert {row["task"] for row in rows} == {"scene-vqa", "scene-caption", "scene-ground"}
    assert all(isinstance(row["prediction"], str) for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "moment"),
    few_of([("pilot", 45), ("scaffold", 11)], [("pilot", 9), *((method, 11) for method in METHODS)]),
)
def test_killed_inside_a_phase_goes_on_there(
    tiny: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, moment: int
) -> None:
    """A step is two losses: 9 is in the fifth step. No step that was finished is taken again."""
    losses, count = PhaseRun._loss, [0]
    total = sum(c["steps"] for row in read_jsonl(tiny.run(method) / "rounds.jsonl") for c in row["clients"])

    def counting(*arguments: object) -> object:
        count[0] += 1
        if count[0] == moment:
            raise Killed
        return losses(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(PhaseRun, "_loss", counting)
    with pytest.raises(Killed):
        train_run(tiny.spec(method), tiny.folder, tmp_path, True, quiet)
    assert list(tmp_path.rglob("unfinished-*.json"))
    count[0], finished = moment, (moment - 1) // 2
    train_run(tiny.spec(method), tiny.folder, tmp_path, True, quiet)
    assert count[0] - moment == 2 * (total - finished)
    assert contents(tmp_path) == contents(tiny.run(method))


@pytest.mark.parametrize("harm", ["flipped", "gone", "note"])
def test_damaged_state_of_a_phase_is_not_used(tiny: Small, tmp_path: Path, harm: str) -> None:
    """The phase is trained from its start, to the same result."""
    spec = tiny.spec("fedavg")
    from pilot.federation.assemble import make_participants

    participants = make_participants(spec, tiny.backbone, tiny.features, tiny.examples, lambda k: tmp_path / str(k))
    method = spec.make_method()
    task = PhaseTask(spec.clients(method)[1], method.phases(1)[0], 1, 0, 2, {})
    first = participants(1).run(task).update.state
    (file,) = tmp_path.glob("1/unfinished-*.safetensors")
    if harm == "flipped":
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)
    elif harm == "gone":
        file.unlink()
    else:
        next(tmp_path.glob("1/unfinished-*.json")).write_text("{")
    again = participants(1).run(task).update.state
    assert first.keys() == again.keys() and all(torch.equal(first[name], again[name]) for name in first)


def test_rates_of_unknown_phases_are_refused(tiny: Small, tmp_path: Path) -> None:
    from dataclasses import replace

    from pilot.config.model import LearningRates, PhaseRates
    from pilot.errors import UserError

    rates = LearningRates(text_adapter=0.1, connector=0.1, phases={"stage3": PhaseRates(connector=0.2)})
    with pytest.raises(UserError, match=r"learning_rates.phases: unknown name 'stage3'. Did you mean 'stage\d'"):
        train_run(replace(tiny.spec("pilot"), learning_rates=rates), tiny.folder, tmp_path, False, quiet)
