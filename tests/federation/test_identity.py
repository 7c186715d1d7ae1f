"""What decides whether a run may go on: what its training depends on, and nothing else; what differs is named."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from pilot.config.identity import identity, identity_digest
from pilot.config.model import LearningRates
from pilot.config.profile import Profile
from pilot.config.scenario import MissingConfig, PartitionConfig, Scenario, TaskConfig, UnseenConfig, UnseenQuestions
from pilot.data.partition import PARTS
from pilot.errors import UserError
from pilot.federation.assemble import make_participants
from pilot.federation.checkpoint import Progress, save_progress
from pilot.federation.identity import UNKNOWN_SETTINGS, archive_different_run, differences
from pilot.federation.shards import records_of_part
from pilot.federation.spec import RunSpec, run_config, run_digest, scenario_identity
from pilot.federation.unfinished import PhaseCheckpoint
from pilot.io.atomic import read_json, write_json

from ..small import Small

DIGESTS = {"data": "d" * 64, "partition": "p" * 64, "features": "f" * 64}


def config_of(spec: RunSpec, **digests: str) -> dict[str, Any]:
    """`config.json` of a run, over made-up data."""
    return run_config(spec, vars(spec.make_method()), DIGESTS | digests)


def trained(folder: Path, config: dict[str, Any]) -> Path:
    """A run with one round, as far as resuming looks at it."""
    write_json(folder / "config.json", config)
    save_progress(folder / "checkpoint", Progress(1), identity_digest(config))
    return folder


def scenario_with(spec: RunSpec, **fields: Any) -> RunSpec:
    """The run of a scenario with other fields."""
    return replace(spec, scenario=Scenario.model_validate(spec.scenario.model_dump() | fields))


def profile_with(spec: RunSpec, **fields: Any) -> RunSpec:
    """The run of a profile with other fields."""
    return replace(spec, profile=Profile.model_validate(spec.profile.model_dump() | fields))


@pytest.mark.parametrize(
    "fields",
    [{"title": "Renamed after forty hours"}, {"methods": ("pilot", "fedavg", "scaffold")}, {"seeds": (0, 1, 2)}],
)
def test_title_methods_and_seeds_do_not_matter(small: Small, tmp_path: Path, fields: dict[str, Any]) -> None:
    spec = small.spec("fedavg")
    other = scenario_with(spec, **fields)
    assert differences(trained(tmp_path, config_of(spec)), config_of(other)) == []
    digests = {"features": "f" * 64}
    assert run_digest(spec, digests) == run_digest(other, digests), "unfinished phases go on as well"
    assert scenario_identity(spec.scenario) == scenario_identity(other.scenario), "nodes take part as before"


OTHER_VALUES: dict[type[BaseModel], dict[str, Any]] = {
    Scenario: {
        "name": "renamed", "title": "Renamed", "data_seed": 33, "partition_seed": 44, "methods": ("scaffold",),
        "seeds": (5, 6), "validation_fraction": 0.2, "local_test_fraction": 0.2, "min_client_examples": 1,
        "cross_task": True, "post_fit": True, "targets": 0.5, "unseen": {"clients_per_task": 1},
        "conditions": (("blur",), ("noise",)), "missing": {"image": 0.8}, "canaries": 8,
        "tasks": ({
            "name": "scene-vqa", "kind": "vqa", "source": "scene-vqa", "num_train": 40, "num_test": 8,
            "partition": {"kind": "iid"}, "lm_eval_task": "pilot_scene_vqa",
        },),
    },
    TaskConfig: {
        "name": "renamed", "kind": "caption", "source": "scene-caption", "num_train": 20, "num_test": 4,
        "num_clients": 1, "partition": {"kind": "dirichlet", "attribute": "subject", "alpha": 1.0},
        "lm_eval_task": "pilot_scene_caption", "options": {"held_out": 0.1}, "max_quarantine": 0.5,
    },
    PartitionConfig: {"kind": "dirichlet", "attribute": "subject", "alpha": 1.0},
    UnseenConfig: {
        "clients_per_task": 1, "steps": 1, "questions": {"task": "scene-vqa", "attribute": "family", "value": "count"},
    },
    UnseenQuestions: {"task": "scene-vqa", "attribute": "family", "value": "count"},
    MissingConfig: {"image": 0.8, "text": 0.8},
}  # fmt: skip
"""Another value of every field of a scenario than the one below has; of a task, for the first of them."""


def planted(spec: RunSpec) -> RunSpec:
    """The run of a scenario with canaries and missing pictures."""
    return scenario_with(spec, canaries=4, missing={"image": 0.2})


def edited(spec: RunSpec, model: type[BaseModel], name: str) -> RunSpec:
    """The run of a scenario with another value of one field, wherever the model is in it."""
    value, (first, *others) = OTHER_VALUES[model][name], spec.scenario.model_dump()["tasks"]
    held_out = {"clients_per_task": 1, "questions": OTHER_VALUES[UnseenQuestions]}
    split = OTHER_VALUES[PartitionConfig] if name in ("kind", "alpha") else {"kind": "iid", name: value}
    fields = {
        Scenario: {name: value},
        TaskConfig: {"tasks": (first | {name: value}, *others)},
        PartitionConfig: {"tasks": (first | {"partition": split}, *others)},
        UnseenConfig: {"unseen": {"clients_per_task": 1, name: value}},
        UnseenQuestions: {"unseen": held_out},
        MissingConfig: {"missing": {"image": 0.2, name: value}},
    }
    return scenario_with(spec, **fields[model])


@pytest.fixture(scope="module")
def records(small: Small) -> dict[str, Any]:
    """What the clients of the planted scenario have."""
    scenario = planted(small.spec("fedavg")).scenario
    return {part: records_of_part(scenario, small.folder, part, frame="original") for part in PARTS}


@pytest.mark.parametrize(
    ("model", "name"),
    [pytest.param(model, name, id=f"{model.__name__}.{name}") for model in OTHER_VALUES for name in model.model_fields],
)
def test_no_field_of_a_scenario_changes_training_unnoticed(
    small: Small, records: dict[str, Any], model: type[BaseModel], name: str
) -> None:
    """Over the same data and split another value has another identity, is refused, or trains on the same records.

    Data, split and features that are made again have other digests, which are part of the identity.
    """
    base = planted(small.spec("fedavg"))
    other = edited(base, model, name)
    assert other.scenario != base.scenario
    if identity_digest(config_of(base)) != identity_digest(config_of(other)):
        return
    with suppress(UserError):
        for part in PARTS:
            assert records_of_part(other.scenario, small.folder, part, frame="original") == records[part]
        assert other.clients(other.make_method()) == base.clients(base.make_method())


def test_every_model_of_a_scenario_is_edited() -> None:
    """A new model, or a field that another value is not given for, is a fault."""
    found, waiting = set(), [Scenario]
    while waiting:
        found.add(model := waiting.pop())
        assert model.model_fields.keys() == OTHER_VALUES[model].keys()
        named = {each for field in model.model_fields.values() for each in models_in(field.annotation)}
        waiting += sorted(named - found, key=str)
    assert found == OTHER_VALUES.keys()


def models_in(annotation: Any) -> Iterator[Any]:
    """Models that a field's type names, at any depth."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for each in get_args(annotation):
        yield from models_in(each)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"canaries": 8}, ["scenario.canaries 4 -> 8"]),
        ({"missing": {"image": 0.8}}, ["scenario.missing.image 0.2 -> 0.8"]),
        ({"partition_seed": 5}, ["scenario.partition_seed 4 -> 5"]),
        ({"title": "Renamed"}, []),
    ],
)
def test_planted_records_are_part_of_a_run(
    small: Small, tmp_path: Path, fields: dict[str, Any], said: list[str]
) -> None:
    spec = planted(small.spec("fedavg"))
    assert differences(trained(tmp_path, config_of(spec)), config_of(scenario_with(spec, **fields))) == said


def test_runs_without_planted_records_keep_their_digest(small: Small) -> None:
    assert "scenario" not in identity(config_of(small.spec("fedavg")))


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "renamed"}, {"generation_batch": 7}, {"checkpoint_minutes": 3.0}, {"tuning_seed": 77},
        {"method_options": {"pilot": {"num_neighbors": 1}}}, {"revision": "a" * 40},
        {"learning_rates": {name: {"text_adapter": 0.003, "connector": 0.003} for name in ("default", "pilot")}},
    ],
)  # fmt: skip
def test_what_training_does_not_read_of_a_profile(small: Small, tmp_path: Path, fields: dict[str, Any]) -> None:
    spec = small.spec("fedavg")
    assert differences(trained(tmp_path, config_of(spec)), config_of(profile_with(spec, **fields))) == []


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"rounds": 3}, ["profile.rounds 2 -> 3"]),
        ({"batch_size": 8, "local_steps": 4}, ["profile.batch_size 2 -> 8", "profile.local_steps 3 -> 4"]),
        ({"lora": {"rank": 4, "alpha": 16}}, ["profile.lora.rank 8 -> 4"]),
        ({"prompt_template": "<image> {instruction}"}, ["profile.prompt_template"]),
    ],
)
def test_what_differs_is_named(small: Small, tmp_path: Path, fields: dict[str, Any], said: list[str]) -> None:
    spec = small.spec("fedavg")
    found = differences(trained(tmp_path, config_of(spec)), config_of(profile_with(spec, **fields)))
    assert [text[: len(start)] for text, start in zip(found, said, strict=True)] == said


def test_rates_options_and_digests_are_named(small: Small, tmp_path: Path) -> None:
    spec = small.spec("fedprox")
    other = replace(spec, learning_rates=LearningRates(text_adapter=0.5, connector=0.003), options={"mu": 0.5})
    found = differences(trained(tmp_path, config_of(spec)), config_of(other, features="e" * 64))
    assert found == [
        "digests.features ffffffffffff -> eeeeeeeeeeee", "learning_rates.text_adapter 0.003 -> 0.5",
        "options.mu 0.01 -> 0.5",
    ]  # fmt: skip


def test_edited_source_keeps_the_run_and_says_so(small: Small, tmp_path: Path) -> None:
    config = config_of(small.spec("fedavg"))
    run = trained(tmp_path / "seed0", config)
    edited = config | {"digests": config["digests"] | {"source": "5" * 64}}
    before = sorted(run.rglob("*"))
    with pytest.raises(UserError, match=r"seed0: .* digests\.source [0-9a-f]{12} -> 555555555555\. .*--no-resume"):
        archive_different_run(run, edited, False, print)
    assert sorted(run.rglob("*")) == before and read_json(run / "config.json") == config
    said: list[str] = []
    archive_different_run(run, edited, True, said.append)
    assert not run.exists() and read_json(tmp_path / "replaced-seed0-1/config.json") == config
    assert "Old run renamed to replaced-seed0-1" in said[0]


def test_unfinished_phase_of_another_run_is_kept(small: Small, tmp_path: Path) -> None:
    """Hours of a first round count, although no round is complete; without any training nothing is kept."""
    spec = small.spec("fedavg")
    write_json(tmp_path / "config.json", config_of(spec))
    other = config_of(replace(spec, seed=1))
    assert differences(tmp_path, other) == []
    PhaseCheckpoint(tmp_path / "clients/3", 1, 0, "key").save(5, {})
    assert differences(tmp_path, other) == ["seed 0 -> 1"] and differences(tmp_path, config_of(spec)) == []


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"digests": {}, "profile_config": {}}'])
def test_damaged_configuration_is_no_reason_to_discard(small: Small, tmp_path: Path, content: str) -> None:
    config = config_of(small.spec("fedavg"))
    (trained(tmp_path, config) / "config.json").write_text(content)
    assert differences(tmp_path, config) == []
    assert differences(tmp_path, config_of(small.spec("fedavg", seed=1))) == [UNKNOWN_SETTINGS]


def test_unfinished_phases_of_other_data_are_not_continued(small: Small, tmp_path: Path) -> None:
    """A node whose data were made again has the same images, so the same features, and other records."""
    spec = profile_with(small.spec("fedavg"), checkpoint_minutes=0.0)
    backbone: Any = SimpleNamespace(projector=lambda: None)
    features: Any = SimpleNamespace(digest="f" * 64)

    def key(node: str) -> str:
        participants = make_participants(spec, backbone, features, {}, lambda _: tmp_path, digests={"node": node})
        trainer: Any = participants(0).train
        return str(trainer.__self__.checkpointing.run)

    assert key("a" * 64) == key("a" * 64) != key("b" * 64)
