"""The shape of the code: imports point one way, files are short, nothing is pickled."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted(path for name in ("pilot", "baselines") for path in (ROOT / name).rglob("*.py"))
FLOORS = (
    ("errors", "matplotlib_import"), ("io",), ("config", "connector"), ("data",), ("methods",),
    ("registry", "baselines", "provenance"), ("backbone", "workflow_config"), ("federation", "pretraining"),
    ("evaluation", "plan"), ("export", "report", "runs"), ("deployment", "bench"), ("cli",),
)  # fmt: skip
"""Folders and modules of `pilot` (and `baselines`), lowest first: what is imported is on a lower floor."""

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


def imported_modules(path: Path, names: set[str]) -> Iterator[tuple[str, int]]:
    """Modules of this project that a file imports; `from package import module` imports the module."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module in names:
            for alias in node.names:
                inside = f"{node.module}.{alias.name}"
                yield (inside if inside in names else node.module), node.lineno
        elif isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names if alias.name in names)


def room(module: str) -> str:
    """The folder or module directly below `pilot`, or `baselines`; empty for others."""
    first, _, rest = module.partition(".")
    return first if first == "baselines" else rest.partition(".")[0] if first == "pilot" else ""


def arrows() -> set[tuple[str, str]]:
    """Which room imports from which other."""
    found = {(room(module_of(path)), room(module)) for path in SOURCES for module, _ in imports(path)}
    return {(importer, imported) for importer, imported in found if importer != imported and imported}


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_imports_point_down(path: Path) -> None:
    floor = {name: number for number, names in enumerate(FLOORS) for name in names}
    own = room(module_of(path))
    for module, line in imports(path):
        other = room(module)
        if other and other != own:
            assert own, f"{path}:{line}: the package itself imports nothing"
            assert floor[other] < floor[own], f"{path}:{line}: {own} imports {module}, which is not on a lower floor"


def test_no_module_imports_itself_in_a_circle() -> None:
    """Within a room as well; an import inside a function counts."""
    names = {module_of(path) for path in SOURCES}
    graph = {module_of(path): {each for each, _ in imported_modules(path, names)} for path in SOURCES}
    with_itself = graph | {name: graph[name] - {name} for name in graph}
    try:
        TopologicalSorter(with_itself).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_the_house_has_few_rooms_and_arrows() -> None:
    """44 rooms on 18 floors, 220 arrows, among them a circle, before the folders were laid out (commit fb8137c)."""
    rooms = {room(module_of(path)) for path in SOURCES} - {""}
    assert rooms == {name for names in FLOORS for name in names}
    print(f"{len(rooms)} rooms on {len(FLOORS)} floors, {len(arrows())} arrows")  # pytest -rP shows it
    assert len(arrows()) <= 121
    assert len(list((ROOT / "pilot").glob("*.py"))) <= 6, "five modules and the package itself"


def test_baselines_import_no_sibling() -> None:
    for path in (ROOT / "baselines").glob("*.py"):
        assert not [module for module, _ in imports(path) if module.startswith("baselines")], path


def test_matplotlib_is_imported_in_one_place() -> None:
    """Whatever `MPLBACKEND` names, `pilot.matplotlib_import` imports it; elsewhere the import might fail."""
    importers = {module_of(path) for path in SOURCES for module, _ in imports(path) if module.startswith("matplotlib")}
    assert importers == {"pilot.matplotlib_import"}


def test_attacks_read_no_file() -> None:
    """An attacker gets tensors and public candidates: no attack imports what reads clients' data or any file."""
    attacks = [path for path in SOURCES if path.match("pilot/evaluation/audit/attacks/*.py")]
    assert {path.stem for path in attacks} == {"__init__", "span", "attribution", "answers", "losses"}
    allowed = ("collections.abc", "torch")
    assert {module for path in attacks for module, _ in imports(path)} <= set(allowed)
    names = {
        node.id for path in attacks for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)
    }
    assert not names & {"open", "exec", "eval", "__import__", "compile"}
    loads = {
        node.attr
        for path in attacks
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
    }
    assert not loads & {"load", "hub", "from_file", "read_text", "read_bytes"}


def test_files_are_short() -> None:
    lengths = {module_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert {name: length for name, length in lengths.items() if length >= 300} == {}
    methods = {name: length for name, length in lengths.items() if name.startswith("baselines.")}
    assert {name: length for name, length in methods.items() if length >= 150} == {}


def test_no_remote_code_is_trusted() -> None:
    """transformers and datasets run code of a repository only where they are told to."""
    assert [path for path in SOURCES if "trust_remote_code" in path.read_text(encoding="utf-8")] == []


def test_caches_of_lm_eval_stay_off() -> None:
    """Its caches of answers and of requests are read with dill: nothing of the suite switches one on."""
    found = [
        f"{path}:{node.lineno}"
        for path in [*SOURCES, *(ROOT / "tests").rglob("*.py")]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("simple_evaluate", "build_all_requests"))
        and {keyword.arg for keyword in node.keywords} & {"use_cache", "cache_requests", "rewrite_requests_cache", None}
    ]  # fmt: skip
    assert found == []
    words = ("--use_cache", "--cache_requests", "LM_HARNESS_CACHE_PATH")
    texts = [*SOURCES, *(ROOT / "docs").rglob("*.md"), *(ROOT / "pipelines").rglob("*.smk")]
    assert [path for path in texts if any(word in path.read_text(encoding="utf-8") for word in words)] == []


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
