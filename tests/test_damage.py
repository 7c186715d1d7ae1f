"""Every file of a results folder, damaged: one message that names it and what makes it again, or no effect at all.

A damaged input of training is refused, whatever is wrong with it: a flipped bit would train another model.
"""

import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from pilot.backbone.feature_files import open_features
from pilot.data.partition import partition_data
from pilot.errors import UserError
from pilot.evaluation.audit.run import audit_run
from pilot.evaluation.scoring import score_runs
from pilot.evaluation.tasks.task_functions import load_records
from pilot.evaluation.trained import check_same_data, run_spec
from pilot.federation.nodes import open_node, prepare_nodes, read_register
from pilot.federation.shards import read_part
from pilot.federation.spec import scenario_digests
from pilot.federation.training import client_models, train_run
from pilot.io.atomic import read_jsonl, write_jsonl
from pilot.io.verified import write_noted
from pilot.report.numbers.load import load_runs
from pilot.report.numbers.summary import image_of_example
from pilot.report.plots.samples import read_examples

from .small import Small, contents, quiet

HARMS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "truncated": lambda data: data[: len(data) // 2],
    "wrong type": lambda data: b"[]\n",
    "wrong object": lambda data: b'{"a": 1}\n',
    "garbage": lambda data: bytes(range(256)),
    "zeros": lambda data: bytes(len(data)),
}
INPUTS = (
    "data/manifest.json", "data/scene-caption/records.parquet", "partition/assignment.parquet",
    "partition/heterogeneity.json", "features/index.json", "features/features-00000.npy",
)  # fmt: skip
STAGE = {"data": "data build", "partition": "partition", "features": "backbone features"}
RUN = (
    *("config.json", "manifest.json", "rounds.jsonl", "ledger.json", "timing.json", "participation.json"),
    *(
        f"checkpoint/round-2/{name}"
        for name in ("complete.json", "history.json", "server.safetensors", "server.sha256")
    ),
    *("clients/4/r2p0.safetensors", "clients/4/r2p0.sha256"),
)


@pytest.fixture(scope="module")
def copy(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the scenario's folder with one run, scored; tests that damage a file mend it."""
    folder = tmp_path_factory.mktemp("damage") / "tiny" / "small"
    for name in ("data", "partition", "features"):  # public scenes' features are there if another test has run before
        shutil.copytree(small.folder / name, folder / name, ignore=shutil.ignore_patterns("public-*"))
    shutil.copytree(small.run("pilot"), folder / "runs/pilot/seed0")
    row = {
        "task": "scene-vqa", "kind": "vqa", "protocol": "personalised", "clients": [0, 1], "id": "a",
        "prediction": "red", "references": ["red"], "box": None,
    }  # fmt: skip
    write_jsonl(folder / "runs/pilot/seed0/eval/samples.jsonl", [row])
    score_runs([folder / "runs/pilot/seed0"])
    prepare_nodes(small.scenario, folder, folder / "nodes")
    return folder


@pytest.fixture
def mended(copy: Path) -> Iterator[Path]:
    """The copy; afterwards its files are as before."""
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    yield copy
    for path in copy.rglob("*"):
        if path.is_file() and path not in before:
            path.unlink()
    for path, data in before.items():
        if not path.is_file() or path.read_bytes() != data:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)


@pytest.mark.parametrize("name", INPUTS)
def test_damaged_input_of_training_is_refused(small: Small, mended: Path, name: str) -> None:
    """Also one flipped bit. The message names the command that makes the file again."""
    run = mended / "runs/fedavg/seed0"
    good = (mended / name).read_bytes()
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 1
    for harm, data in {"flipped": bytes(flipped), **{harm: make(good) for harm, make in HARMS.items()}}.items():
        (mended / name).write_bytes(data)
        with pytest.raises(UserError) as refusal:
            train_run(small.spec("fedavg"), mended, run, False, quiet)
        said = str(refusal.value)
        # Where a digest was altered, it is the file that it belongs to which does not fit.
        assert str((mended / name).parent) in said or name == "data/manifest.json", (harm, said)
        assert f"pilot-bench {STAGE[name.split('/')[0]]} --scenario small --profile tiny" in said, (harm, said)
    assert not run.exists()


def test_zeros_in_a_shard_are_refused(small: Small, mended: Path) -> None:
    """As it was found: 64 KB of zeros trained another model, with exit code 0 and the same config.json."""
    shard = mended / "features/features-00000.npy"
    with shard.open("r+b") as file:
        file.seek(4096)
        file.write(bytes(65536))
    with pytest.raises(UserError, match=r"features-00000\.npy: damaged .*sha256 .*pilot-bench backbone features"):
        train_run(small.spec("fedavg"), mended, mended / "runs/fedavg/seed0", False, quiet)


def stages(small: Small, folder: Path, part: str) -> dict[str, Callable[[], object]]:
    """What reads the files of a part of a scenario's folder, stage by stage, without training or drawing."""
    run, nodes = folder / "runs/pilot/seed0", folder / "nodes"

    def report() -> None:
        (one,) = load_runs([run])
        _ = one.rounds, one.per_example, one.test_examples
        image_of_example.cache_clear()
        image_of_example(folder, "scene-caption")

    inputs = {
        "inputs": lambda: (scenario_digests(folder), open_features(folder / "features")),
        "records": lambda: [
            read_part(small.scenario, folder, task, "train", frame="original") for task in small.scenario.tasks
        ],
        "report": report,
    }
    return {
        "runs": {
            "answers": lambda: (run_spec(run), check_same_data(run, folder)),
            "models": lambda: [load() for load in client_models(small.spec("pilot"), small.backbone, run).values()],
            "score": lambda: score_runs([run]),
            "report": report,
        },
        "nodes": {
            "register": lambda: read_register(small.spec("pilot"), nodes),
            "node": lambda: open_node(nodes / "node-3", small.backbone, "original"),
            "prepare": lambda: prepare_nodes(small.scenario, folder, nodes),
        },
    }.get(part, inputs)


READ = (
    *INPUTS, *(f"runs/pilot/seed0/{name}" for name in RUN),
    *(f"runs/pilot/seed0/eval/{name}" for name in ("samples.jsonl", "metrics.json", "per_example.jsonl")),
    "runs/pilot/seed0/eval/metrics.json.sha256",
    *("nodes/federation.json", "nodes/node-3/node.json", "nodes/node-3/records.parquet", "nodes/node-3/index.json"),
    "nodes/node-3/validation.parquet",
    *("nodes/node-3/features-00000.npy", "nodes/node-3/features-00000.json"),
)  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_damage_is_one_message_or_nothing(small: Small, mended: Path, name: str) -> None:
    good = (mended / name).read_bytes()
    refusals = 0
    for harm, make in HARMS.items():
        for stage, read in stages(small, mended, name.split("/")[0]).items():
            (mended / name).write_bytes(make(good))
            try:
                read()
            except UserError as error:
                refusals += 1
                assert str(mended) in str(error), (harm, stage)
            except Exception as error:
                raise AssertionError(f"{harm} {name} in stage {stage}: {error!r}") from error
    assert refusals or name.endswith(("timing.json", "participation.json", "features-00000.json"))


def test_altered_score_is_refused(mended: Path) -> None:
    """As it was found: one value set by hand was in every table. Runs of older versions have no note."""
    run = mended / "runs/pilot/seed0"
    path = run / "eval/metrics.json"
    path.write_text(path.read_text().replace('"value": 1.0', '"value": 0.987654', 1))
    with pytest.raises(UserError, match=r"eval/metrics\.json: damaged .*sha256 .*evaluate --no-answers .*pilot/seed0"):
        load_runs([run])
    path.with_name("metrics.json.sha256").unlink()
    assert 0.987654 in {entry.value for entry in load_runs([run])[0].entries}


def test_altered_answer_is_not_scored(mended: Path) -> None:
    run = mended / "runs/pilot/seed0"
    path = run / "eval/samples.jsonl"
    write_noted(path, partial(write_jsonl, rows=read_jsonl(path)))
    score_runs([run])
    path.write_text(path.read_text().replace('"prediction":"red"', '"prediction":"rod"'))
    with pytest.raises(UserError, match=r"eval/samples\.jsonl: damaged .*sha256 .*pilot-bench evaluate .*pilot/seed0"):
        score_runs([run])


RECORDS: dict[str, Callable[[Path], object]] = {
    "intervals": lambda folder: image_of_example(folder, "scene-vqa"),
    "figures": lambda folder: read_examples(folder, "scene-vqa", ["scene-vqa-test-0"], 1),
    "lm-eval": lambda folder: load_records(task="scene-vqa", data=str(folder / "data")),
    "audit": lambda folder: audit_run(folder / "runs/pilot/seed0"),
}


@pytest.mark.parametrize("stage", RECORDS)
def test_other_records_than_were_built_are_refused(mended: Path, monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    """A readable file of another scenario, for example; without a manifest nothing is compared."""
    image_of_example.cache_clear()
    monkeypatch.setattr("pilot.evaluation.audit.run.read_messages", lambda run: ["a message"])
    records = mended / "data/scene-vqa/records.parquet"
    shutil.copyfile(mended / "data/scene-caption/records.parquet", records)
    with pytest.raises(UserError, match=r"scene-vqa/records\.parquet: damaged .*sha256 .*pilot-bench data build"):
        RECORDS[stage](mended)


def test_files_are_all_read(small: Small, copy: Path) -> None:
    """What no test damages is listed here: what a person reads, and copies of what is damaged."""
    seen = {path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file()}
    rest = {name for name in seen - set(READ) if "round-1/" not in name and not name.startswith("nodes/")}
    kinds = {Path(name).name for name in rest if not name.startswith(("data/", "runs/pilot/seed0/clients/"))}
    assert kinds == {"features-00000.json"}
    assert {Path(name).name for name in rest if name.startswith("data/")} == {
        "card.json", "card.md", "contact_sheet.png", "records.parquet"
    }  # fmt: skip


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", RUN)
def test_training_goes_on_over_a_damaged_file(
    small: Small, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """A round before the damage is used, and what is not needed does not count: the same bytes in the end."""
    run = tmp_path / "seed0"
    for harm, make in HARMS.items():
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(small.run("pilot"), run)
        (run / name).write_bytes(make((run / name).read_bytes()))
        assert small.train(run, "pilot") == contents(small.run("pilot")), harm
    assert (
        "timing.json" not in name or "The run continues; its times are counted from now on" in capsys.readouterr().err
    )


def test_damaged_timing_does_not_block(small: Small, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(small.run("fedavg"), tmp_path / "seed0")
    (tmp_path / "seed0/timing.json").write_text("{")
    assert small.train(tmp_path / "seed0", "fedavg") == contents(small.run("fedavg"))
    assert "timing.json: damaged" in capsys.readouterr().err


def test_damaged_data_are_not_split(small: Small, mended: Path) -> None:
    path = mended / "data/scene-vqa/records.parquet"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"scene-vqa/records\.parquet: damaged .*pilot-bench data build"):
        partition_data(small.scenario, mended)


@pytest.mark.slow
def test_private_state_that_vanishes_is_missed_before_the_manifest(small: Small, tmp_path: Path) -> None:
    """As a second trainer did, before there was a lock; the next call trains the lost round again."""

    def lose(done: int, total: int) -> None:
        if done == total:
            for path in tmp_path.glob("seed0/clients/2/r2p0.*"):
                path.unlink()

    with pytest.raises(UserError, match=r"seed0: incomplete run, .*clients/2/r2p0\.safetensors"):
        small.train(tmp_path / "seed0", "pilot", progress=lose)
    assert not (tmp_path / "seed0/manifest.json").exists()
    assert small.train(tmp_path / "seed0", "pilot") == contents(small.run("pilot"))
