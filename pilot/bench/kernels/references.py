"""Access to the reference implementations, which are files of the repository and not in the wheel."""

import importlib.util
from pathlib import Path
from types import ModuleType

from pilot.errors import UserError

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "tests" / "bench"


def reference(name: str) -> ModuleType:
    """Load the module `tests/bench/<name>.py`, anew on each call.

    Raises:
        UserError: there is no such file, as in an installation from a wheel.
    """
    path = FOLDER / f"{name}.py"
    if not path.is_file():
        raise UserError(
            f"{path}: missing. The reference implementations are not part of the package: run this from a clone of the "
            "repository, installed with `pip install -e .`."
        )
    spec = importlib.util.spec_from_file_location(f"pilot_bench_reference_{name}", path)
    assert spec is not None and spec.loader is not None, "a Python file has a loader"
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def repository_root() -> Path:
    """Return the root of the clone that this package is installed from.

    Raises:
        UserError: the package is not installed from a clone.
    """
    if not (ROOT / "Snakefile").is_file():
        raise UserError(f"{ROOT / 'Snakefile'}: missing. Run this from a clone, installed with `pip install -e .`.")
    return ROOT
