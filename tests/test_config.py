"""Scenario and profile files: those that ship are valid, wrong ones are explained."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from pilot.config.files import PACKAGED, check_known, known_names
from pilot.config.load import load_profile, load_scenario
from pilot.config.profile import Profile
from pilot.config.scenario import Scenario
from pilot.data.catalogue import get_source
from pilot.errors import UserError


def test_shipped_files() -> None:
    assert {"scenario1", "scenario2", "smoke"} <= set(known_names("scenarios"))
    assert "embedded" in known_names("profiles")
    for name in known_names("scenarios"):
        scenario = load_scenario(name)
        assert scenario.name == name
        for task in scenario.tasks:
            assert get_source(task.source, name).kind in (task.kind, None)
    for name in known_names("profiles"):
        assert load_profile(name).name == name


def test_the_paper_shapes() -> None:
    scenario = load_scenario("scenario2")
    assert [task.name for task in scenario.tasks] == ["scene-vqa", "scene-caption", "scene-ground"]
    assert [task.kind for task in load_scenario("scenario1").tasks] == ["vqa", "vqa", "caption"]
    assert len(scenario.client_tasks) == 9 and scenario.clients_of("scene-caption") == (3, 4, 5)
    profile = load_profile("embedded")
    assert profile.learning_rates_of("anything") == profile.learning_rates["default"]


def written(folder: Path, base: Scenario | Profile, **changes: Any) -> str:
    """A YAML file of a shipped model with top-level fields replaced (None removes)."""
    values = base.model_dump(mode="json") | changes
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in values.items() if value is not None}))
    return str(path)


def task(**changes: Any) -> list[dict[str, Any]]:
    """One task with fields replaced."""
    return [load_scenario("smoke").tasks[0].model_dump(mode="json") | changes]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metods": ["pilot"]}, r"field metods: unknown name 'metods'. Did you mean 'methods'\?"),
        ({"methods": None}, r"field methods: missing. Add it"),
        ({"seeds": []}, r"field seeds: .*at least 1 item"),
        ({"seeds": [0, 0]}, r"seeds: expected distinct values, got \[0, 0\]"),
        ({"name": "../../etc"}, r"field name: string should match pattern"),
        (
            {"tasks": task(kind="detection")},
            r"field tasks.0.kind: input should be 'vqa', 'caption' or 'ground'.*'detec",
        ),
        (
            {"tasks": task(num_train=0)},
            r"field tasks.0.num_train: input should be greater than or equal to 1, got 0",
        ),
        (
            {"tasks": task(num_clints=3)},
            r"field tasks.0.num_clints: .*mean 'num_clients'\? Expected one of: kind",
        ),
        (
            {"tasks": task(partition={"kind": "dirichlet", "attribute": "family"})},
            r"field tasks.0.partition: kind dirichlet: expected the fields attribute and alpha. Correct",
        ),
        (
            {"tasks": task(partition={"kind": "iid", "alfa": 1})},
            r"partition.alfa: .*'alpha'\? .*alpha, attribute, kind",
        ),
        ({"validation_fraction": 0.7}, r"field validation_fraction: input should be less than 0.5, got 0.7"),
        ({"targets": {"scene-vga": 0.5}}, r"targets: unknown task scene-vga. Expected some of: scene-vqa, "),
        ({"targets": "most"}, r"field targets"),
        ({"unseen": {"clients_per_task": 2}}, r"unseen.clients_per_task: 2 of 2 clients leave none of task scene-vqa"),
        ({"unseen": {"clients": 1}}, r"field unseen.clients: unknown name 'clients'"),
        ({"cross_task": "some"}, r"field cross_task: input should be a valid boolean"),
    ],
)
def test_wrong_scenario_field(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=r"mine\.yaml: (.|\n)*" + message):
        load_scenario(written(tmp_path, load_scenario("smoke"), **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"learning_rates": {"pilot": {"text_adapter": 0.1, "connector": 0.1}}},
            "learning_rates: expected a key default",
        ),
        ({"prompt_template": "USER: {instruction}"}, "prompt_template: expected a text with <image> and {instruction}"),
        ({"lora": {"rank": 8, "alpha": 16, "dropout": 0}}, "field lora.dropout: .*one of: alpha, rank"),
        ({"evaluate_every": 13}, r"evaluate_every: expected at most rounds \(12\), got 13"),
        ({"evaluate_every": 0}, r"field evaluate_every: input should be greater than or equal to 1"),
        ({"forgetting": "public-facts"}, r"field forgetting"),
        (
            {"precision": "bfloat16", "lora": {"rank": 8, "alpha": 16}},
            r"lora\.space: expected token with precision: bfloat16, got weight, .*Set space: token in lora",
        ),
        ({"max_grad_norm": float("inf")}, "field max_grad_norm: input should be a finite number"),
    ],
)
def test_wrong_profile_field(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_profile(written(tmp_path, load_profile("embedded"), **changes))


def test_unknown_names() -> None:
    with pytest.raises(UserError, match=r"scenario: unknown name 'scenario4'. Did you mean 'scenario\d'\? .*smoke"):
        load_scenario("scenario4")
    with pytest.raises(UserError, match=r"profile: unknown name 'cloud'.*Expected one of: .*embedded"):
        load_profile("cloud")
    with pytest.raises(UserError, match=r"mine\.yaml: field methods: unknown name 'fedavgg'. Did you mean 'fedavg'\?"):
        check_known("mine.yaml", "methods", ["pilot", "fedavgg"], ["pilot", "fedavg"])


@pytest.mark.parametrize(
    "text",
    ["title: 2026-13-45", "title: !!int abc", "title: !!int ''", "title: !!bool maybe", "title: !!timestamp x",
     "<<: 3", "? [a, b]\n: c", "a: " + "[" * 5000],
    ids=lambda text: text[:20],
)  # fmt: skip
def test_values_that_yaml_cannot_make(tmp_path: Path, text: str) -> None:
    (tmp_path / "own.yaml").write_text(text + "\n")
    with pytest.raises(UserError, match=r"own\.yaml: not valid YAML: .*Correct the file"):
        load_profile(str(tmp_path / "own.yaml"))


@pytest.mark.parametrize("text", ["1: x", "null: x", "2026-01-01: x", "name: 2026-01-01"])
def test_keys_and_values_of_other_types(tmp_path: Path, text: str) -> None:
    (tmp_path / "own.yaml").write_text(text + "\n")
    with pytest.raises(UserError, match=r"own\.yaml: field "):
        load_profile(str(tmp_path / "own.yaml"))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_files_of_other_encodings(tmp_path: Path, encoding: str) -> None:
    """As editors on Windows write them, and as data files are read."""
    text = (PACKAGED / "scenarios" / "smoke.yaml").read_text(encoding="utf-8")
    (tmp_path / "mine.yaml").write_text(text, encoding=encoding)
    assert load_scenario(tmp_path / "mine.yaml") == load_scenario("smoke")


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.yaml: cannot be read"):
        load_scenario(tmp_path / "gone.yaml")
    for text, message in (("a: [1", "not valid YAML"), ("- 1", "expected a mapping of fields, got list")):
        (tmp_path / "bad.yaml").write_text(text)
        with pytest.raises(UserError, match=message):
            load_scenario(tmp_path / "bad.yaml")
