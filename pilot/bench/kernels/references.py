"""The reference implementations: files of the repository, which no wheel carries."""

import importlib.util
from pathlib import Path
from types import ModuleType

from pilot.errors import UserError

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "tests" / "bench"


def reference(name: str) -> ModuleType:
    """The module `tests/bench/<name>.py`, loaded anew.

    Raises:
        UserError: there is no such file, as in an installation from a wheel.
    """
    path = FOLDER / f"{name}.py"
    if not path.is_file():
        raise UserError(
            f"{path}: missing. The reference implementations do not come with the package: run this from a clone of "
            "the repository, installed with `pip install -e .`."
        )
    spec = importlib.util.spec_from_file_location(f"pilot_bench_reference_{name}", path)
    assert spec is not None and spec.loader is not None, "a Python file has a loader"
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def repository() -> Path:
    """The clone that this package is installed from.

    Raises:
        UserError: it is not a clone.
    """
    if not (ROOT / "Snakefile").is_file():
        raise UserError(f"{ROOT}: no Snakefile here. Run this from a clone, installed with `pip install -e .`.")
    return ROOT
