"""Source files that modules depend on: all modules that they import, and the data files of their packages.

Files are parsed, never imported: this needs no PyTorch and takes a second for the whole repository. Imports inside
functions count, too. An import also adds the `__init__.py` of the packages above the module.
"""

import ast
import re
from collections.abc import Collection, Iterable, Iterator
from functools import cache
from pathlib import Path

from pilot.io.digest import REPOSITORY

PACKAGES = ("pilot", "baselines")
Edge = tuple[str, str]
"""Importing and imported module; `ANY` as the importing one means every module."""
ANY = "*"


def source_files(modules: Iterable[str], cuts: Collection[Edge] = ()) -> frozenset[str]:
    """Return the files that modules reach by imports, relative to the repository.

    Args:
        modules: dotted names to start from; a package also reaches its data files.
        cuts: edges that are not followed; an edge to a package cuts everything in it. Data files are cut by the dotted
            name of their folder.

    Raises:
        FileNotFoundError: there is no such module (a renamed one must not silently drop out of a digest).
    """
    files: set[str] = set()
    queue, seen = list(modules), set(modules)
    while queue:
        module = queue.pop()
        file = module_file(module)
        if file is None:
            raise FileNotFoundError(f"no module {module} below {REPOSITORY}")
        files.add(file)
        files.update(data for folder, data in _data_files(module) if not _is_cut(module, folder, cuts))
        found = {name for name in imported_modules(module) if name not in seen and not _is_cut(module, name, cuts)}
        seen |= found
        queue += found
    return frozenset(files)


@cache
def imported_modules(module: str) -> frozenset[str]:
    """Return the modules of this project that a module imports, and the packages that contain it and them."""
    functions = {f"{module}.{name}" for _, data in _data_files(module) for name in _functions_of(REPOSITORY / data)}
    packages = {name for name in _with_packages(module) if name != module}
    return imports_of_file(REPOSITORY / str(module_file(module))) | functions | packages


def imports_of_file(file: Path) -> frozenset[str]:
    """Return the modules of this project that a Python file imports; relative imports count as another package's.

    Raises:
        SyntaxError: the file cannot be parsed.
    """
    names = {above for name in _imported_names(file) for above in _with_packages(name)}
    return frozenset(name for name in names if module_file(name))


def _imported_names(file: Path) -> Iterator[str]:
    """Yield all imports of a file by dotted name: modules, and names in them."""
    queue: list[ast.AST] = [ast.parse(file.read_text(encoding="utf-8"), str(file))]
    while queue:
        node = queue.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        queue += [part for part in ast.iter_child_nodes(node) if not isinstance(part, ast.expr)]


@cache
def module_file(module: str) -> str | None:
    """Return the file of a module of this project, relative to the repository; None for any other module."""
    path = module.replace(".", "/")
    if module.partition(".")[0] in PACKAGES:
        return next((name for name in (f"{path}.py", f"{path}/__init__.py") if (REPOSITORY / name).is_file()), None)
    return None


@cache
def _data_files(module: str) -> tuple[tuple[str, str], ...]:
    """Return a package's data files, each after its folder's dotted name: no code, nothing of other packages."""
    file = REPOSITORY / str(module_file(module))
    return tuple(_data_files_below(file.parent)) if file.name == "__init__.py" else ()


def _data_files_below(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.iterdir()):
        if path.name == "__pycache__" or path.name.startswith("."):
            continue
        if path.is_dir() and not (path / "__init__.py").exists():
            yield from _data_files_below(path)
        elif path.is_file() and path.suffix != ".py":
            place = path.relative_to(REPOSITORY)
            yield ".".join(place.parent.parts), place.as_posix()


def _functions_of(file: Path) -> list[str]:
    """Return the modules beside an lm-eval task file whose functions it uses (`!function module.function`)."""
    return re.findall(r"!function (\w+)\.", file.read_text(encoding="utf-8")) if file.suffix == ".yaml" else []


def _with_packages(name: str) -> Iterator[str]:
    """Return a dotted name and those of the packages that contain it."""
    parts = name.split(".")
    return (".".join(parts[:count]) for count in range(1, len(parts) + 1))


def _is_cut(module: str, name: str, cuts: Collection[Edge]) -> bool:
    return any((importer, above) in cuts for importer in (module, ANY) for above in _with_packages(name))
