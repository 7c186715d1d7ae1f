"""Imaging conditions: pixels change, geometry does not; clients see their own, evaluation all of them."""

import io
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from pilot.config.load import load_scenario
from pilot.config.scenario import Condition, Scenario
from pilot.data.conditions import TRANSFORMS, render, scenario_images, seen_images_file
from pilot.data.partition import partition_data
from pilot.data.record import read_records
from pilot.data.tables import read_table
from pilot.errors import UserError
from pilot.evaluation.answers import answer_run
from pilot.evaluation.sets import build_requests, read_evaluation_sets
from pilot.evaluation.tasks.task_functions import load_records
from pilot.federation.node_folder import FILES
from pilot.federation.nodes import prepare_nodes
from pilot.federation.shards import read_part
from pilot.federation.spec import scenario_digests
from pilot.federation.training import train_run
from pilot.io.atomic import read_json, read_jsonl
from pilot.io.digest import sha256_bytes
from pilot.io.layout import evaluations

from ..small import Small, quiet

CONDITIONS = (("low-light",), ("blur", "noise"))


def png(width: int, height: int) -> bytes:
    """A picture with a dark square on a light ground."""
    pixels = np.full((height, width, 3), 220, dtype=np.uint8)
    pixels[height // 4 : height // 2, width // 4 : width // 2] = (200, 40, 60)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def pixels_of(image: bytes) -> np.ndarray:
    """RGB values."""
    return np.asarray(Image.open(io.BytesIO(image)).convert("RGB")).astype(int)


def test_every_condition_has_a_transform() -> None:
    assert set(TRANSFORMS) == set(get_args(Condition))


@pytest.mark.parametrize("name", get_args(Condition))
@pytest.mark.parametrize("size", [(80, 80), (61, 33), (1, 1), (3, 200)])
def test_a_condition_changes_pixels_only(name: Condition, size: tuple[int, int]) -> None:
    """Same size, same bytes for the same seed; the dark square stays the darkest place."""
    image = png(*size)
    seen = render(image, [name], np.random.default_rng(3))
    assert seen == render(image, [name], np.random.default_rng(3)) and seen.startswith(b"\x89PNG")
    assert Image.open(io.BytesIO(seen)).size == size
    if min(size) < 30:
        return
    assert seen != image
    width, height = size
    grey = pixels_of(seen)[:, :, 1]
    square = grey[height // 4 + 2 : height // 2 - 2, width // 4 + 2 : width // 2 - 2]
    assert square.mean() < grey[height // 2 + 2 :].mean() - 20


def test_values_by_hand() -> None:
    """Light of 220 and of the square's colours, in integers rounded down."""
    light = pixels_of(render(png(80, 80), ["low-light"], np.random.default_rng(0)))
    assert light[0, 0].tolist() == [187] * 3 and light[25, 25].tolist() == [170, 34, 51]
    cast = pixels_of(render(png(80, 80), ["colour-cast"], np.random.default_rng(0)))
    assert cast[0, 0].tolist() == [246, 211, 158] and cast[25, 25].tolist() == [224, 38, 43]
    woven = pixels_of(render(png(80, 80), ["texture"], np.random.default_rng(0)))[60:, :, 0]
    assert set(np.unique(woven)) == {172, 255}, "220 - 48 and 220 + 48, which is cut at 255"


def test_no_condition_keeps_the_file() -> None:
    assert render(png(8, 8), [], np.random.default_rng(0)) == png(8, 8)


def test_order_and_seed_matter() -> None:
    image, first = png(80, 80), np.random.default_rng(0)
    assert render(image, ["noise"], first) != render(image, ["noise"], first)
    both = [render(image, names, np.random.default_rng(1)) for names in (["blur", "noise"], ["noise", "blur"])]
    assert both[0] != both[1]


@pytest.mark.parametrize(
    ("conditions", "said"),
    [
        ([["fog"], []], "conditions"),
        ([["blur"]], "at least 2"),
        ([["blur"], ["blur"]], "expected distinct conditions"),
    ],
)
def test_bad_conditions(conditions: list[list[str]], said: str) -> None:
    values = load_scenario("smoke").model_dump(mode="json")
    with pytest.raises(ValueError, match=said):
        Scenario.model_validate(values | {"conditions": conditions})


def test_the_shipped_scenario_differs_from_scenario2_by_conditions_alone() -> None:
    """Same records and the same split, so differences between the two come from what clients see."""
    second, third = load_scenario("scenario2"), load_scenario("scenario3")
    assert third.tasks == second.tasks and third.conditions is not None and second.conditions is None
    assert (third.data_seed, third.partition_seed) == (second.data_seed, second.partition_seed)
    assert [third.condition_of(client) for client in range(9)] == [0, 1, 2] * 3
    public = load_scenario("llava-scenario3")
    assert public.tasks == load_scenario("llava-scenario2").tasks and public.conditions == third.conditions
    with pytest.raises(ValueError, match="no conditions"):
        second.condition_of(0)


def test_unseen_clients_and_more_clients_have_conditions() -> None:
    values = load_scenario("scenario3").model_dump(mode="json")
    for task in values["tasks"]:
        task["num_clients"] = 4
    loaded = Scenario.model_validate(values | {"unseen": {"clients_per_task": 1}})
    assert loaded.unseen_clients_of("scene-caption") == (10,)
    assert [loaded.condition_of(client) for client in (3, 4, 5, 10)] == [0, 1, 2, 0]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """The small scenario whose two clients per task see differently."""
    return build(tmp_path_factory.mktemp("conditions"))


def build(root: Path) -> Small:
    """Build it without features of the images as they are: clients never see those."""
    plain = Small(root)
    plain.build()
    plain.scenario_file.write_text(
        plain.scenario_file.read_text() + f"conditions: {[list(each) for each in CONDITIONS]}\n"
    )
    small = Small(root)
    partition_data(small.scenario, small.folder)
    small.compute_features()
    return small


@pytest.mark.slow
def test_clients_see_through_their_own_cameras(small: Small) -> None:
    task = small.scenario.tasks[0]
    original = {r.id: r for r in read_records(small.folder / "data" / task.name / "records.parquet")}
    for part in ("train", "validation", "local_test"):
        shards = read_part(small.scenario, small.folder, task, part, frame="original", images=True)
        digests = read_part(small.scenario, small.folder, task, part, frame="original")
        for client, records in shards.items():
            assert [record.image_sha256 for record in digests[client]] == [sha256_bytes(r.image) for r in records]
            for record in records:
                before = original[record.id]
                assert record.image != before.image and record.answer == before.answer and record.box == before.box
                if client == 0:
                    expected = pixels_of(before.image) * 85 // 100
                    assert (pixels_of(record.image) == expected).all()


@pytest.mark.slow
def test_features_of_every_image_that_is_seen(small: Small) -> None:
    """120 training images under one condition each, 24 test images as they are and under both."""
    assert len(small.features.row_of) == 120 + 3 * 24


@pytest.mark.slow
def test_the_same_twice_and_tampering_is_refused(small: Small, tmp_path: Path) -> None:
    before = seen_images_file(small.folder).read_bytes()
    digests = scenario_digests(small.folder)
    partition_data(small.scenario, small.folder)
    assert seen_images_file(small.folder).read_bytes() == before and scenario_digests(small.folder) == digests
    report = read_json(small.folder / "partition/heterogeneity.json")
    assert [client["conditions"] for client in report["clients"]] == [list(each) for each in CONDITIONS] * 3
    try:
        seen_images_file(small.folder).write_bytes(before + b"x")
        with pytest.raises(UserError, match=r"images\.parquet"):
            scenario_digests(small.folder)
        seen_images_file(small.folder).unlink()
        with pytest.raises(UserError, match="pilot-bench partition"):
            scenario_images(small.scenario, small.folder)
    finally:
        seen_images_file(small.folder).write_bytes(before)


@pytest.mark.slow
def test_images_under_other_conditions_are_refused(small: Small) -> None:
    """Somebody edits the scenario's file and forgets to partition again."""
    edited = small.scenario.model_copy(update={"conditions": (("blur",), CONDITIONS[1])})
    with pytest.raises(UserError, match=r"client 0, field conditions: expected \['blur'\] .* got \['low-light'\]"):
        read_part(edited, small.folder, edited.tasks[0], "train", frame="original")


@pytest.mark.slow
def test_without_conditions_the_file_is_gone(tmp_path: Path) -> None:
    """Another split of the same folder must not leave the images of the last one."""
    small = Small(tmp_path)
    small.build()
    plain = scenario_digests(small.folder)
    seen_images_file(small.folder).write_bytes(b"of an earlier scenario")
    partition_data(small.scenario, small.folder)
    assert not seen_images_file(small.folder).exists() and scenario_digests(small.folder) == plain


@pytest.mark.slow
def test_nodes_hold_what_their_clients_see(small: Small, tmp_path: Path) -> None:
    prepare_nodes(small.scenario, small.folder, tmp_path)
    shards = read_part(small.scenario, small.folder, small.scenario.tasks[0], "train", frame="original", images=True)
    for client in (0, 1):
        assert [r.image for r in read_records(tmp_path / f"node-{client}" / FILES[0])] == [
            record.image for record in shards[client]
        ]


@pytest.mark.slow
def test_requests_show_what_is_asked_for(small: Small) -> None:
    """Held-out parts as their client sees them; test images as they are, or under one condition."""
    spec = small.spec("fedavg")
    columns = ["task", "id", "condition", "image_sha256"]
    rows = read_table(seen_images_file(small.folder), columns).to_pylist()
    seen = {(row["task"], row["id"], row["condition"]): row["image_sha256"] for row in rows}
    for each in read_evaluation_sets(spec, small.folder):
        name = each.task.name
        shown = {
            key: request.doc["image_sha256"] for key, request in build_requests(each, small.folder / "data").items()
        }
        assert all(shown[record.id] == record.image_sha256 for record in each.test)
        for client, records in each.parts.items():
            place = small.scenario.condition_of(client)
            assert records and all(shown[record.id] == seen[name, record.id, place] for record in records)
        for place in range(len(CONDITIONS)):
            under = each.of(f"condition-{place + 1}")
            requests = build_requests(under, small.folder / "data")
            assert list(requests) == [record.id for record in each.test]
            for id, request in requests.items():
                assert request.doc["image_sha256"] == seen[name, id, place]
                (image,) = request.args[2]["visual"]
                assert (np.asarray(image) == pixels_of(read_image(small, name, id, place))).all()


@pytest.mark.slow
@pytest.mark.parametrize("condition", ["2", "blur"])
def test_an_unknown_condition_is_one_message(small: Small, condition: str) -> None:
    data, seen = str(small.folder / "data"), str(seen_images_file(small.folder))
    with pytest.raises(UserError, match="metadata keys seen and condition: .* Expected a place"):
        load_records(record_task="scene-vqa", data=data, seen=seen, condition=condition)


def read_image(small: Small, task: str, id: str, place: int) -> bytes:
    """A rendered image."""
    table = read_table(seen_images_file(small.folder), ["id", "condition", "image"], task=task).to_pylist()
    return next(row["image"] for row in table if row["id"] == id and row["condition"] == place)


@pytest.mark.slow
def test_every_model_answers_under_every_condition(small: Small, tmp_path: Path) -> None:
    """Answers from stored features equal those from pixels; a client's condition changes some answer."""
    answers = {}
    for method in ("pilot", "untuned", "majority"):
        run = small.folder / "runs" / method / "seed0"
        train_run(small.spec(method), small.folder, run, False, quiet)
        answer_run(run, quiet)
        named = ["condition-1", "condition-2"] if method != "majority" else []
        assert evaluations(run, "samples.jsonl") == ["", *named]
        answers[method] = {name: read_jsonl(run / "eval" / name / "samples.jsonl") for name in ("", *named)}
    for method in ("pilot", "untuned"):
        asked = [
            [(row["task"], row["id"], row["clients"]) for row in rows if row["protocol"] == "personalised"]
            for rows in answers[method].values()
        ]
        assert asked[0] == asked[1] == asked[2] and len(asked[0]) >= 24
    said = [
        [row["prediction"] for row in rows if row["protocol"] == "personalised"] for rows in answers["untuned"].values()
    ]
    assert said[0] != said[1] and said[1] != said[2] and said[0] != said[2]
    assert {row["protocol"] for row in answers["untuned"]["condition-1"]} == {"personalised"}
