"""Variants: what a base and a patch compose to, which names are taken, and a run of one."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pilot.config.federation import ClockConfig
from pilot.config.files import known_names, load_file
from pilot.config.load import load_profile, load_scenario, scenario_for_profile
from pilot.config.variant import Variant, base_name, check_methods, load_variant, split_name
from pilot.errors import UserError
from pilot.federation.spec import RunSpec, configured_method
from pilot.io.atomic import read_json
from pilot.methods.catalogue import METHODS
from pilot.methods.pilot import Pilot
from pilot.plan.plan import PlanInputs, make_plan
from pilot.provenance import profile_digest, scenario_digest, stage_digest, tuning_digest
from pilot.runs.inputs import load_run_inputs

from .small import Small


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("pilot", ("pilot", None)),
        ("pilot+no-ata", ("pilot", "no-ata")),
        ("scenario2+alpha-0.1", ("scenario2", "alpha-0.1")),
        ("a+b+c", ("a", "b+c")),
        ("results+x/mine.yaml", ("results+x/mine.yaml", None)),
        ("results+x/mine.yml+alpha-1", ("results+x/mine.yml", "alpha-1")),
    ],
)
def test_names(name: str, parts: tuple[str, str | None]) -> None:
    assert split_name(name) == parts


def test_a_plus_with_nothing_behind_it() -> None:
    with pytest.raises(UserError, match=r"pilot\+: expected a variant's name after '\+'"):
        split_name("pilot+")


def test_shipped_methods_differ_in_what_their_names_say() -> None:
    profile = load_profile("embedded")
    expected: dict[str, dict[str, Any]] = {
        "no-stage1": {"stage1": False},
        "no-difference-loss": {"difference_loss": False},
        "plain-moe": {"cross_task_adapters": False},
        "no-router-losses": {"lambda1": 0.0, "lambda2": 0.0},
        "no-ata": {"adaptive_text_aggregation": False},
        **{f"neighbours-{number}": {"num_neighbors": number} for number in (1, 2, 5, 8)},
        "distance-product": {"distance": "product"},
        "copied-adapters": {"adapter_init": "copy"},
        "no-client-features": {"client_features_in_stage2": "omit"},
        "own-expert": {"experts": "own_task"},
    }
    variants = {name: load_file(Variant, "variants", name) for name in known_names("variants")}
    assert all(variant.name == name for name, variant in variants.items())
    of_others = {
        "taskavg_plus+client": {"beta": 0.0, "client_adapter": True},
        "taskavg_plus+gap-text": {"beta": 0.0, "gap_text": True},
        "taskavg_plus+momentum-client": {"client_adapter": True},
        "pilot_momentum+gap": {"gap": True},
    }
    own = {name for name, variant in variants.items() if variant.method}
    assert own == expected.keys() | {split_name(name)[1] for name in of_others}
    for name, changes in of_others.items():
        plain, made = (configured_method(profile, each) for each in (base_name(name), name))
        assert made == replace(plain, **changes) != plain
    for name, options in expected.items():
        assert configured_method(profile, f"pilot+{name}") == Pilot(**options) != Pilot()


def test_shipped_scenarios_and_profiles_change_one_thing() -> None:
    base = load_scenario("scenario2")
    for name, alpha in {"alpha-0.1": 0.1, "alpha-1": 1.0, "alpha-100": 100.0}.items():
        made = load_scenario(f"scenario2+{name}")
        assert (made.name, made.title) == (f"scenario2+{name}", f"{base.title}; Dirichlet alpha {alpha:g}")
        assert [task.partition.alpha for task in made.tasks] == [alpha] * 3
        usual = [
            task.model_copy(update={"partition": old.partition})
            for task, old in zip(made.tasks, base.tasks, strict=True)
        ]
        assert made.model_copy(update={"name": base.name, "title": base.title, "tasks": tuple(usual)}) == base
    assert len(load_scenario("scenario2+clients-1").client_tasks) == 3
    six = load_scenario("scenario2+clients-6")
    assert (len(six.client_tasks), six.min_client_examples, base.min_client_examples) == (18, 100, 200)
    iid = load_scenario("scenario2+iid").tasks[0].partition
    assert (iid.kind, iid.alpha, iid.attribute) == ("iid", None, "question_type")


def test_presumed_first_scenario_of_the_paper() -> None:
    """GQA, OCR-VQA and COCO captions, each split at random over three clients (docs/scenarios.md)."""
    scenario = load_scenario("llava-scenario1+iid")
    assert [(task.name, task.partition.kind, task.num_clients) for task in scenario.tasks] == [
        ("gqa", "iid", 3), ("ocr-vqa", "iid", 3), ("coco-caption", "iid", 3),
    ]  # fmt: skip
    planned = make_plan(PlanInputs(scenario, load_profile("llava"), ("pilot",), 1, 80 * 10**9, 128, 32, None), Path())
    assert planned["scenario"] == "llava-scenario1+iid"
    usual = load_profile("embedded")
    for name, rounds, steps in (("rounds-3", 3, 36), ("rounds-6", 6, 18), ("rounds-36", 36, 3)):
        profile = load_profile(f"embedded+{name}")
        assert rounds * steps == usual.rounds * (usual.local_steps or 0)  # the same optimiser steps in all
        changes = {"name": f"embedded+{name}", "rounds": rounds, "local_steps": steps}
        assert profile == usual.model_copy(update=changes)
    clocked = load_profile("embedded+clock-uneven").federation
    clock = ClockConfig(speeds=(1.0, 0.5, 0.25), delays=(0.0, 4.0))
    assert clocked.participation == usual.federation.participation.model_copy(update={"clock": clock})
    assert clocked.defence == usual.federation.defence


@pytest.mark.parametrize(
    ("load", "name", "message"),
    [
        (
            load_scenario,
            "scenario2+alpha-3",
            r"'alpha-3' is not a variant of a scenario. .*: alpha-0.1, alpha-1, .*iid",
        ),
        (load_scenario, "scenario2+no-ata", "'no-ata' is not a variant of a scenario"),
        (load_scenario, "scenario9+iid", r"scenario: unknown name 'scenario9'. Did you mean 'scenario\d'"),
        (load_scenario, "scenario2+iid+alpha-1", r"'iid\+alpha-1' is not a variant"),
        (
            load_profile,
            "embedded+iid",
            "'iid' is not a variant of a profile. Expected one of: clock-even, clock-uneven, equal-flops, recorded",
        ),
        (load_profile, "llava+rounds-3", "local_steps or local_epochs: expected exactly one"),
    ],
)
def test_wrong_names_are_explained(load: Any, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pilot+no-atta", r"method pilot\+no-atta: 'no-atta' is not a variant of method pilot. .*no-ata, no-client"),
        ("fedavg+no-ata", "'no-ata' is not a variant of method fedavg. No variants of method fedavg exist."),
        ("pilot+iid", "'iid' is not a variant of method pilot"),
        ("pilott+no-ata", "field --method: unknown name 'pilott'. Did you mean 'pilot'"),
    ],
)
def test_wrong_methods_are_explained(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_methods("command line", "--method", [name], METHODS)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("method: pilot", "method and options: expected both or neither"),
        ("scenario: {alpha: 1}\noptions: {x: 1}", "method and options: expected both or neither"),
        ("scenario: {alpha: 1}\nprofile: {rounds: 1}", "expected exactly one of the three"),
        ("scenario: {}", "scenario: expected at least one of: kind, alpha, num_clients, min_client_examples"),
        ("scenario: {alpha: 1, kind: iid}", "kind iid: expected no alpha"),
        ("profile: {round: 1}", "Did you mean 'rounds'"),
    ],
)
def test_wrong_files_are_explained(tmp_path: Path, fields: str, message: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"name: mine\ntitle: Mine\n{fields}\n")
    with pytest.raises(UserError, match=f"mine.yaml: .*{message}"):
        load_file(Variant, "variants", str(file))


def test_variant_of_a_file(small: Small) -> None:
    made = load_scenario(f"{small.scenario_file}+clients-1")
    assert made.name == "small+clients-1" and len(made.client_tasks) == 3
    with pytest.raises(
        UserError, match="scenario small: no task has a Dirichlet partition, so alpha would change nothing"
    ):
        load_scenario(f"{small.scenario_file}+alpha-1")


def test_a_variant_has_its_bases_rates_and_options_unless_the_profile_lists_it() -> None:
    rates = {"text_adapter": 0.5, "connector": 0.25}
    values = load_profile("smoke").model_dump(mode="json")
    options = {"pilot": {"lambda0": 0.5, "num_neighbors": 2}}
    made = type(load_profile("smoke")).model_validate(
        values | {"method_options": options, "learning_rates": values["learning_rates"] | {"pilot": rates}}
    )
    assert made.learning_rates_of("pilot+no-ata").text_adapter == 0.5
    assert made.options_of("pilot+neighbours-5") == {"lambda0": 0.5, "num_neighbors": 5}
    alone = made.for_method("pilot+neighbours-5")
    assert alone.method_options == {"pilot+neighbours-5": {"lambda0": 0.5, "num_neighbors": 5}}
    assert alone.for_method("pilot+neighbours-5") == alone  # as a run's config.json has it
    listed = type(made).model_validate(
        made.model_dump(mode="json")
        | {
            "method_options": options | {"pilot+neighbours-5": {"lambda1": 0.0}},
            "learning_rates": values["learning_rates"] | {"pilot": rates, "pilot+no-ata": rates | {"connector": 1.0}},
        }
    )
    assert listed.options_of("pilot+neighbours-5") == {"lambda1": 0.0}
    assert listed.learning_rates_of("pilot+no-ata").connector == 1.0


def test_digests_follow_what_a_variant_changes() -> None:
    assert stage_digest("train", "pilot+no-ata") == stage_digest("train", "pilot") != stage_digest("train", "fedavg")
    of = {name: profile_digest("embedded", name) for name in ("pilot", "pilot+no-ata", "pilot+plain-moe")}
    assert len(set(of.values())) == 3
    assert profile_digest("embedded+rounds-3", "pilot") != of["pilot"]
    assert scenario_digest("scenario2+iid", "data") == scenario_digest("scenario2", "data")
    assert scenario_digest("scenario2+iid", "partition") != scenario_digest("scenario2", "partition")
    # Rates that were chosen by tuning are no reason to tune again.
    chosen = [tuning_digest("embedded", name) for name in ("fedavg", "local")]
    assert len(set(chosen)) == 2 and tuning_digest("embedded+rounds-3", "fedavg") not in chosen
    with pytest.raises(UserError, match="unknown name 'fedzoo'"):
        stage_digest("train", "fedzoo")


def test_twins_of_variants() -> None:
    assert scenario_for_profile("scenario2+alpha-0.1", "llava") == "llava-scenario2+alpha-0.1"
    assert scenario_for_profile("scenario2+alpha-0.1", "embedded") == "scenario2+alpha-0.1"
    assert load_scenario("llava-scenario2+alpha-0.1").tasks[0].partition.alpha == 0.1


def test_run_of_a_variant(small: Small) -> None:
    """Its name is in its place and its options in its configuration, from which it is made again."""
    run, usual = small.run("pilot+own-expert"), small.run("pilot")
    assert run == small.folder / "runs" / "pilot+own-expert" / "seed0"
    config = read_json(run / "config.json")
    assert config["method"] == "pilot+own-expert"
    assert config["hyperparameters"]["options"]["experts"] == "own_task"
    assert RunSpec.from_config(config).make_method() == Pilot(experts="own_task")
    down, more = (read_json(each / "ledger.json")["totals"]["bytes_down"] for each in (run, usual))
    received = [message["groups"] for message in read_json(run / "ledger.json")["messages"]]
    assert down < more and not any("peer_task_adapter" in groups for groups in received)
    files = str(small.scenario_file), str(small.profile_file)
    assert load_run_inputs(*files, "pilot+no-ata", small.results).scenario_dir == small.folder
    with pytest.raises(UserError, match=r"small\+clients-1/data/manifest.json: missing"):
        load_run_inputs(f"{files[0]}+clients-1", files[1], "pilot", small.results)


def test_load_variant_of_a_plain_name() -> None:
    assert load_variant("method", "pilot") is None
