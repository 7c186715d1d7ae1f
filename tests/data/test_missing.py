"""Training records without a picture or a text: who lacks what, and what is there instead."""

import io
from pathlib import Path

import pytest
from PIL import Image

from pilot.config.load import load_scenario
from pilot.config.scenario import MissingConfig
from pilot.data.conditions import scenario_images
from pilot.data.missing import bare_prompt, lacking, plain_picture
from pilot.data.record import InstructionRecord, read_records
from pilot.federation.node_folder import node_name
from pilot.federation.nodes import prepare_nodes
from pilot.federation.shards import read_part
from pilot.io.atomic import read_jsonl

from .. import small as small_module
from ..small import Small

QUESTION = "Who?\nAnswer the question using a single word or phrase."


def record(number: int, kind: str = "vqa", instruction: str = QUESTION) -> InstructionRecord:
    return InstructionRecord(f"r{number}", kind, "made-up", b"picture", instruction, "Ann", ("Ann",), {}, "train")


def shares(image: float | tuple[float, ...], text: float | tuple[float, ...]) -> list[list[tuple[bool, bool]]]:
    """Of each of a task's clients, with 1000 records, whether each lacks its picture and its text."""
    missing = MissingConfig(image=image, text=text)
    scenario = load_scenario("scenario2").model_copy(update={"missing": missing})
    (task, *_), plain = scenario.tasks, plain_picture()
    made = {client: [record(1000 * client + n) for n in range(1000)] for client in scenario.clients_of(task.name)}
    found = lacking(made, scenario, task, images=True)
    return [[(each.image == plain, "Who" not in each.instruction) for each in found[client]] for client in made]


def test_shares_are_independent_and_the_same_every_time() -> None:
    """0.3 of each: 0.49 have both, 0.21 one of the two, 0.09 neither; three standard errors of 3000 draws are 0.03."""
    found = [each for client in shares(0.3, 0.3) for each in client]
    for lost, share in (((False, False), 0.49), ((True, False), 0.21), ((False, True), 0.21), ((True, True), 0.09)):
        assert found.count(lost) / 3000 == pytest.approx(share, abs=0.03), lost
    assert found == [each for client in shares(0.3, 0.3) for each in client]
    fewer = [each for client in shares(0.1, 0.3) for each in client]
    assert all(more[1] == less[1] and more[0] >= less[0] for more, less in zip(found, fewer, strict=True)), "nested"


def test_shares_by_client() -> None:
    one, two, three = shares((1.0, 0.0), (0.0, 1.0, 0.0))
    assert (set(one), set(two), set(three)) == ({(True, False)}, {(False, True)}, {(True, False)})
    with pytest.raises(ValueError, match="image: expected at least one share"):
        MissingConfig(image=())


@pytest.mark.parametrize(
    ("kind", "instruction", "left"),
    [
        ("vqa", QUESTION, "Answer the question using a single word or phrase."),
        ("vqa", "Who is it, and why?", "Answer the question."),
        ("caption", "Describe the picture.", "Provide a one-sentence caption for the provided image."),
        ("ground", "Please provide the bounding box coordinate of the region this sentence describes: the dog.",
         "Please provide the bounding box coordinate of the region this sentence describes:"),
    ],
)  # fmt: skip
def test_what_is_left_of_an_instruction(kind: str, instruction: str, left: str) -> None:
    assert bare_prompt(record(0, kind, instruction)) == left


def test_the_plain_picture() -> None:
    picture = Image.open(io.BytesIO(plain_picture()))
    assert picture.size == (64, 64) and picture.getcolors() == [(64 * 64, (123, 117, 104))]


@pytest.mark.slow
def test_only_training_records_lack_anything_and_features_know_the_picture(small: Small, tmp_path: Path) -> None:
    """All pictures of the first clients and all texts of the second are gone; validation and tests are complete."""
    missing = MissingConfig(image=(1.0, 0.0), text=(0.0, 1.0))
    scenario = small.scenario.model_copy(update={"missing": missing})
    task = scenario.tasks[0]
    parts = {
        part: read_part(scenario, small.folder, task, part, frame="original", images=True)
        for part in ("train", "validation")
    }
    usual = {part: read_part(small.scenario, small.folder, task, part, frame="original", images=True) for part in parts}
    assert parts["validation"] == usual["validation"]
    first, second = scenario.clients_of(task.name)
    assert {each.image for each in parts["train"][first]} == {plain_picture()}
    assert [each.instruction for each in parts["train"][first]] == [each.instruction for each in usual["train"][first]]
    assert [each.image for each in parts["train"][second]] == [each.image for each in usual["train"][second]]
    assert len({each.instruction for each in parts["train"][second]}) == 1
    digests = read_part(scenario, small.folder, task, "train", frame="original")
    assert [each.image_sha256 for each in digests[first]] == [each.image_sha256 for each in parts["train"][first]]
    assert plain_picture() in scenario_images(scenario, small.folder).values()


@pytest.mark.slow
def test_a_run_with_missing_modalities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small_module, "SCENARIO", f"{small_module.SCENARIO}missing: {{image: 0.5, text: 0.5}}\n")
    made = Small(tmp_path, clients_per_task=1)
    made.build()
    made.train(tmp_path / "run", "fedavg")
    rows = read_jsonl(tmp_path / "run/rounds.jsonl")
    assert len(rows) == 2 and not any(row["excluded"] or row["skipped"] for row in rows)
    prepare_nodes(made.scenario, made.folder, tmp_path / "nodes")  # a node has what its client trains on
    records = read_part(made.scenario, made.folder, made.scenario.tasks[0], "train", frame="original", images=True)
    assert read_records(tmp_path / "nodes" / node_name(0) / "records.parquet") == records[0]
    assert plain_picture() in {each.image for each in records[0]} != {plain_picture()}
