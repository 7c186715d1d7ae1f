"""Source files of packages that extend this one by entry points, found without importing them."""

from importlib.metadata import EntryPoint
from importlib.util import find_spec
from pathlib import Path

from pilot.errors import UserError
from pilot.io.digest import digest_json, sha256_file


def package_files(point: EntryPoint, what: str) -> tuple[Path, list[Path]]:
    """Return the folder and the Python files of the package, or of the single module, that an entry point names.

    Args:
        point: the entry point.
        what: kind and name of what it offers, for messages.

    Raises:
        UserError: there is no such module, or it is a folder without `__init__.py`.
    """
    top = point.module.partition(".")[0]
    spec = find_spec(top)
    if spec is None or spec.origin is None:
        raise UserError(
            f"{what}: entry point {point.value} (group {point.group}): module {top!r} is missing, or it is a folder "
            "without __init__.py. Install its package again, or correct the entry point."
        )
    origin = Path(spec.origin)
    folder = origin.parent
    return folder, sorted(folder.rglob("*.py")) if spec.submodule_search_locations else [origin]


def package_digest(point: EntryPoint, what: str) -> str:
    """Digest the files that `package_files` returns; raises as it does."""
    folder, files = package_files(point, what)
    return digest_json({file.relative_to(folder).as_posix(): sha256_file(file) for file in files})
