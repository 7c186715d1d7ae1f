"""Methods of other packages, found by the entry point group `pilot_bench.methods`; see docs/add-a-method.md.

Finding them imports nothing; `pilot.registry` imports a method's module when it creates the method.
"""

import re
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from pilot.errors import UserError
from pilot.io.entry_points import package_digest, package_files
from pilot.io.imports import imports_of_file

GROUP = "pilot_bench.methods"
NAME = re.compile(r"[a-z0-9_]+")


@cache
def plugins() -> dict[str, EntryPoint]:
    """Return the entry points by method name, sorted.

    Raises:
        UserError: a name is invalid for folders and Snakemake's rules, or two packages offer methods of the same name.
    """
    found: dict[str, EntryPoint] = {}
    for point in sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value)):
        if not NAME.fullmatch(point.name):
            raise UserError(
                f"method {point.name!r}: entry point {point.value} (group {GROUP}): expected a name of lower-case "
                "letters, digits and underscores. Rename it, or uninstall its package."
            )
        other = found.setdefault(point.name, point)
        if other.value != point.value:
            raise UserError(
                f"method {point.name!r}: defined twice, as {other.value} and {point.value} (entry point group "
                f"{GROUP}). Rename one, or uninstall its package."
            )
    return found


def plugin_digest(name: str) -> str:
    """Digest the Python files of the package, or of the single module, that a method comes from.

    Raises:
        UserError: there is no such module, or it is a folder without `__init__.py`.
    """
    return package_digest(plugins()[name], f"method {name!r}")


def plugin_imports(name: str) -> frozenset[str]:
    """Return the modules of this project that the files of the method's package import.

    Raises:
        UserError: as `plugin_digest`, or a file is not valid Python.
    """
    _, files = package_files(plugins()[name], f"method {name!r}")
    try:
        return frozenset(module for file in files for module in imports_of_file(file))
    except SyntaxError as error:
        raise UserError(f"method {name!r}: {error.filename}:{error.lineno}: {error.msg}. Correct the file.") from error
