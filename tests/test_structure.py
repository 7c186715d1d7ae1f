"""The shape of the code: imports point one way, files are short, nothing is pickled."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted(path for name in ("pilot", "baselines") for path in (ROOT / name).rglob("*.py"))
LAYERS = (
    "errors", "io", "shared", "data", "partition", "connector", "backbone", "methods", "federation", "evaluation",
    "deployment", "report", "cli",
)  # fmt: skip
# Modules of `pilot` that are not named as their layer; the table of methods imports nothing.
PLACE = {
    "config": "shared", "settings": "shared", "model_settings": "shared", "scenario_settings": "shared",
    "faults": "shared", "folders": "shared", "variants": "shared", "studies": "shared", "plugins": "shared",
    "progress": "shared", "processes": "shared", "provenance": "shared", "drawing": "shared", "workflow": "shared",
    "plan": "federation", "runs": "evaluation", "tuning": "evaluation",
    "export": "evaluation", "scale": "report", "bench": "report", "speed": "cli",
    "methods.families": "shared",
    "catalogue": "cli", "doctor": "cli", "method_page": "cli", "options": "cli", "bench_commands": "cli",
    "deploy_commands": "cli", "report_commands": "cli", "data_commands": "cli", "export_commands": "cli",
    "plan_commands": "cli",
}  # fmt: skip


PICKLING = ("pickle", "cloudpickle", "dill", "joblib", "shelve")


def module_of(path: Path) -> str:
    """Dotted name of a source file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Imported modules with their lines, wherever in the file they are imported."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield str(node.module), node.lineno


def layer(module: str) -> str | None:
    """The layer of a module of this project; None for others."""
    first, _, rest = module.partition(".")
    if first == "baselines":
        return "methods"
    name = rest.split(".")[0]
    return PLACE.get(rest, PLACE.get(name, name)) if first == "pilot" and rest else None


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_imports_point_one_way(path: Path) -> None:
    own = layer(module_of(path))
    for module, line in imports(path):
        other = layer(module)
        if other is not None:
            assert own is not None, f"{path}:{line}: the package itself imports nothing"
            earlier = LAYERS.index(other) <= LAYERS.index(own)
            assert earlier, f"{path}:{line}: {own} imports {module} of the later layer {other}"


def test_baselines_import_no_sibling() -> None:
    for path in (ROOT / "baselines").glob("*.py"):
        assert not [module for module, _ in imports(path) if module.startswith("baselines")], path


def test_matplotlib_is_imported_in_one_place() -> None:
    """`pilot.drawing` imports it whatever `MPLBACKEND` names; another module might be imported first, and fail."""
    importers = {module_of(path) for path in SOURCES for module, _ in imports(path) if module.startswith("matplotlib")}
    assert importers == {"pilot.drawing"}


def test_every_layer_has_files() -> None:
    """A renamed package would otherwise leave its layer unchecked."""
    assert {layer(module_of(path)) for path in SOURCES} - {None} == {*LAYERS}


def test_files_are_short() -> None:
    lengths = {module_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert {name: length for name, length in lengths.items() if length >= 300} == {}
    methods = {name: length for name, length in lengths.items() if name.startswith("baselines.")}
    assert {name: length for name, length in methods.items() if length >= 150} == {}


def test_no_remote_code_is_trusted() -> None:
    """transformers and datasets run code of a repository only where they are told to."""
    assert [path for path in SOURCES if "trust_remote_code" in path.read_text(encoding="utf-8")] == []


def test_nothing_is_pickled() -> None:
    found = []
    for path in [*SOURCES, *(ROOT / "tests").rglob("*.py")]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [str(getattr(node, "module", None)), *(alias.name for alias in node.names)]
                found += [f"{path}: {name}" for name in names if name.split(".")[0] in PICKLING]
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                if (node.value.id, node.attr) in (("torch", "load"), ("torch", "save")):
                    found.append(f"{path}:{node.lineno}: torch.{node.attr}")
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                if not (isinstance(node.value, ast.Constant) and node.value.value is False):
                    found.append(f"{path}:{node.value.lineno}: allow_pickle")
    assert found == []
