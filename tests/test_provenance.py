"""Stages know what they depend on: their files, held against Python's own finder of modules, and what edits change."""

import re
import shutil
import tomllib
from collections.abc import Iterator, Mapping
from modulefinder import ModuleFinder
from pathlib import Path
from typing import Any

import pytest

from pilot.io import digest, imports
from pilot.methods.catalogue import METHODS, method_module
from pilot.provenance import ANY, BOUNDARIES, STAGES, stage_digest, stage_sources

ROOT = Path(__file__).resolve().parents[1]
CASES: list[tuple[str, str | None]] = [*((stage, None) for stage in STAGES), *(("train", name) for name in METHODS)]
TASKS = "pilot.evaluation.tasks"


class Finder(ModuleFinder):
    """Follows imports in compiled code, and writes down who imports what."""

    def __init__(self) -> None:
        super().__init__(path=[str(ROOT)])
        self.asked: list[tuple[str, str]] = []

    def import_hook(self, name: str, caller: Any = None, fromlist: list[str] | None = None, level: int = -1) -> Any:
        if caller is not None:
            self.asked += [(caller.__name__, f"{name}.{each}") for each in fromlist or ()] + [(caller.__name__, name)]
        return super().import_hook(name, caller, fromlist, level)


def above(module: str) -> list[str]:
    """A module and the packages that hold it."""
    parts = module.split(".")
    return [".".join(parts[: count + 1]) for count in range(len(parts))]


@pytest.fixture(scope="module")
def found() -> tuple[Mapping[str, str], Mapping[str, set[str]]]:
    """Files of modules, and the modules that each of them imports, as the finder has them."""
    finder = Finder()
    for entry in [method_module(name) for name in METHODS] + [f"{TASKS}.task_functions"]:
        finder.import_hook(entry)
    for entries in STAGES.values():
        for entry in entries:
            finder.import_hook(entry.partition(":")[0])
    files = {
        name: str(Path(module.__file__).relative_to(ROOT))
        for name, module in finder.modules.items()
        if name.partition(".")[0] in ("pilot", "baselines")
    }
    edges: dict[str, set[str]] = {name: {*above(name)} for name in files}
    for caller, name in finder.asked:
        if caller in files:
            edges[caller] |= {each for each in above(name) if each in files}
    edges[TASKS] |= set(above(f"{TASKS}.task_functions"))  # which the task files name
    return files, edges


def package_data() -> dict[str, set[str]]:
    """The data files of packages, as they are packed."""
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["pilot"]
    data: dict[str, set[str]] = {}
    for path in (path for pattern in patterns for path in (ROOT / "pilot").glob(pattern)):
        package = next(folder for folder in path.parents if (folder / "__init__.py").exists())
        data.setdefault(".".join(package.relative_to(ROOT).parts), set()).add(str(path.relative_to(ROOT)))
    assert set(data) == {TASKS, "pilot.report.html", "pilot.report.entries", "pilot.backbone", "pilot.cli"}
    return data


@pytest.fixture(scope="module")
def expected(found: tuple[Mapping[str, str], Mapping[str, set[str]]]) -> dict[tuple[str, str | None], frozenset[str]]:
    """The files of every stage, and of training every method, as the finder has them."""
    files, edges = found
    data = package_data()
    del data["pilot.backbone"]  # the checkpoint: an input of the rule `features`

    def reached(starts: list[str]) -> frozenset[str]:
        seen, queue = set(starts), list(starts)
        while queue:
            module = queue.pop()
            beyond = {name for name in edges[module] if not is_boundary(module, name)}
            queue += beyond - seen
            seen |= beyond
        return frozenset({files[name] for name in seen} | {file for name in seen for file in data.get(name, ())})

    return {
        (stage, method): reached([
            *(entry.partition(":")[0] for entry in STAGES[stage]), *([method_module(method)] if method else [])
        ])
        for stage, method in CASES
    }  # fmt: skip


def is_boundary(module: str, name: str) -> bool:
    """An edge that is not followed, or one to a module inside a package that is not."""
    cut = [each for importer, each in BOUNDARIES if importer in (module, ANY)]
    return any(name == each or name.startswith(f"{each}.") for each in cut)


def test_files_are_what_python_finds(expected: Mapping[tuple[str, str | None], frozenset[str]]) -> None:
    assert {case: stage_sources(*case) for case in CASES} == expected


def test_files_that_were_once_forgotten() -> None:
    for stage in ("tables", "figures", "faults", "report", "studies", "tuning_table"):
        assert "pilot/methods/catalogue.py" in stage_sources(stage)
    assert "pilot/evaluation/grounding.py" in stage_sources("figures") & stage_sources("score") & stage_sources(
        "report"
    )
    assert "pilot/evaluation/tasks/task_functions.py" in stage_sources("answers")
    assert "pilot/federation/nodes.py" in stage_sources("train")


def test_what_shows_or_plans_repeats_no_training() -> None:
    trained = stage_sources("train", "pilot") | stage_sources("answers") | stage_sources("features")
    apart = ("pilot/report/", "pilot/plan/", "pilot/deployment/", "pilot/bench/", "pilot/federation/flower")
    apart += ("pilot/cli/", "pilot/provenance.py", "pilot/methods/catalogue.py")
    assert [file for file in trained if file.startswith(apart)] == []
    assert {file for file in trained if file.startswith("baselines/")} == set()
    assert {file for file in stage_sources("train", "fedavg") if file.startswith("baselines/")} == {
        "baselines/__init__.py", "baselines/fedavg.py"
    }  # fmt: skip


def test_entries_and_boundaries_exist() -> None:
    for entries in STAGES.values():
        for entry in entries:
            module, _, function = entry.partition(":")
            text = (ROOT / str(imports.module_file(module))).read_text(encoding="utf-8")
            assert re.search(rf"^def {function}\(", text, re.MULTILINE), entry
    reached = {name for entries in STAGES.values() for entry in entries for name in modules_from(entry)}
    for (importer, module), reason in BOUNDARIES.items():
        users = reached if importer == ANY else {importer} & reached
        named = {name for user in users for name in imports.imported_modules(user)}
        assert reason and (module in named or (ROOT / module.replace(".", "/")).is_dir() and users), (importer, module)


def modules_from(entry: str) -> set[str]:
    """The modules that an entry reaches."""
    files = [Path(name) for name in imports.source_files([entry.partition(":")[0]], BOUNDARIES) if name.endswith(".py")]
    return {".".join((file.parent if file.stem == "__init__" else file.with_suffix("")).parts) for file in files}


def test_prompts_use_no_metric() -> None:
    """The metrics are a boundary of the task functions: only what scores may name them."""
    text = (ROOT / "pilot/evaluation/tasks/task_functions.py").read_text(encoding="utf-8")
    functions = re.findall(r"^def (\w+)\((.*?)(?=^def |\Z)", text, re.MULTILINE | re.DOTALL)
    users = {name for name, body in functions if re.search(r"\b(?:caption|grounding|vqa)\.\w", body)}
    assert {"process_vqa", "process_ground"} <= users
    assert not users & {"load_records", "_select", "doc_to_image", "doc_to_text", "doc_to_target"}


@pytest.fixture(scope="module")
def originals() -> dict[tuple[str, str | None], str]:
    """Digests of the repository itself."""
    return {case: stage_digest(*case) for case in CASES}


@pytest.fixture
def copy(originals: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the sources, of which digests are made."""
    for name in ("pilot", "baselines"):
        ignored = shutil.ignore_patterns("__pycache__", "tiny_llava_checkpoint")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    caches = (
        *(stage_digest, stage_sources, digest._source_file_digest),
        *(imports.imported_modules, imports.module_file, imports._data_files),
    )
    for module in (digest, imports):
        monkeypatch.setattr(module, "REPOSITORY", tmp_path)
    for each in caches:
        each.cache_clear()
    yield tmp_path
    for each in caches:
        each.cache_clear()


@pytest.mark.slow
def test_an_edit_changes_the_digests_of_what_imports_the_file(
    copy: Path,
    originals: Mapping[tuple[str, str | None], str],
    expected: Mapping[tuple[str, str | None], frozenset[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every file of the packages is edited in turn; digests of the other files are not made again, to be quick."""
    files = sorted(str(path.relative_to(copy)) for path in copy.rglob("*") if path.is_file())
    of_file = {name: digest.sha256_file(copy / name) for name in files}
    monkeypatch.setattr(digest, "_source_file_digest", of_file.__getitem__)

    def digests() -> dict[tuple[str, str | None], str]:
        stage_digest.cache_clear()
        return {case: stage_digest(*case) for case in CASES}

    before = digests()
    assert before == originals  # wherever the sources are
    for name in files:
        with (copy / name).open("a") as file:
            file.write("\n# changed\n")
        of_file[name] = digest.sha256_file(copy / name)
        after = digests()
        changed = {case for case in CASES if after[case] != before[case]}
        assert changed == {case for case in CASES if name in expected[case]}, name
        before = after
