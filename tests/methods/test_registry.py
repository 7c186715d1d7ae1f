"""The registry, and what methods may import."""

import ast
from pathlib import Path

import pytest

from pilot.errors import UserError
from pilot.methods.catalogue import METHODS
from pilot.methods.mixed_lora import QUESTION
from pilot.methods.pilot import Pilot
from pilot.registry import make_method, method_class

ROOT = Path(__file__).parents[2]
BASELINES = sorted((ROOT / "baselines").glob("*.py"))
METHOD_FILES = [
    *BASELINES,
    *sorted(path for path in (ROOT / "pilot/methods").glob("*.py") if path.stem != "plugins"),  # finds packages
    *sorted((ROOT / "pilot/connector").glob("*.py")),
]
FORBIDDEN = (
    "os", "pathlib", "shutil", "subprocess", "logging", "sys", "random", "typer", "transformers", "peft",
    "flwr", "pilot.io.atomic", "pilot.io.checkpoint", "pilot.cli.main", "pilot.federation", "pilot.evaluation",
    "pilot.report", "pilot.backbone", "pilot.data.partition", "pilot.config.load",
)  # fmt: skip


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


@pytest.mark.parametrize("path", BASELINES, ids=lambda path: path.stem)
def test_a_baseline_imports_no_sibling(path: Path) -> None:
    assert not [module for module in imports(path) if within(module, "baselines")]


@pytest.mark.parametrize("path", METHOD_FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_methods_and_connectors_touch_no_disk_process_or_later_stage(path: Path) -> None:
    assert not [module for module in imports(path) for package in FORBIDDEN if within(module, package)]


@pytest.mark.parametrize("path", [p for p in BASELINES if p.stem != "__init__"], ids=lambda path: path.stem)
def test_a_baseline_is_one_short_file(path: Path) -> None:
    assert len(path.read_text().splitlines()) < 150


def test_names() -> None:
    assert list(METHODS)[:4] == ["pilot", "fedavg", "fedprox", "fedmoe"]
    assert list(METHODS)[-5:] == ["local", "central", "full", "untuned", "majority"] and len(METHODS) == 52
    assert {*METHODS} == {"pilot", *(path.stem for path in BASELINES if path.stem != "__init__")}
    assert all(method_class(name).name == name for name in METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_share_of_steps_sums_to_one(name: str) -> None:
    for number in (1, 2, 3):
        phases = make_method(name, {}).phases(number)
        assert not phases or sum(phase.share_of_steps for phase in phases) == 1
        asked = [{QUESTION} if phase.questions else set() for phase in phases]
        known = [phase.trainable | phase.auxiliary | more for phase, more in zip(phases, asked, strict=True)]
        groups = [within | {part.partition(":")[0] for part in within} for within in known]
        whole = [{part.partition(":")[0] for part in phase.shared} for phase in phases]
        assert all(shared <= own for shared, own in zip(whole, groups, strict=True))


def test_options_reach_the_method() -> None:
    method = make_method("pilot", {"lambda0": 0.5, "self_weight": 0.25})
    assert isinstance(method, Pilot) and method.lambda0 == 0.5 and method.self_weight == 0.25


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("fedavgg", {}, "did you mean 'fedavg'.*Known methods: pilot, fedavg"),
        ("pilot", {"lamda0": 1}, "did you mean 'lambda0'.*Known options: lambda0, lambda1"),
        ("pilot", {"adapter_init": "half"}, "adapter_init.*'split' or 'copy'"),
        ("pilot", {"num_neighbors": 0}, "num_neighbors: expected at least 1"),
        ("fedavg", {"mu": 1}, "Known options: none"),
        ("fedprox", {"mu": "much"}, "mu"),
    ],
)
def test_mistakes_are_explained(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_method(name, options)
