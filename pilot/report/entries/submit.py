"""Writing of an entry: a pack of one method's runs with their answers, and `entry/`, which describes and closes it.

`entry/entry.json` has the format, this package's version, what was run, the digests of all other files and, only if
stated, who ran it. `entry/main.csv` is the method's part of the main table. `entry/tuning.json` has the tuning trials,
if `pilot-bench tune` wrote any, and `entry/method/` the files of a method of another package. No data and no models.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from pilot.config.base import Model
from pilot.config.variant import base_name
from pilot.errors import UserError
from pilot.io.digest import sha256_bytes
from pilot.io.entry_points import package_files
from pilot.io.layout import FAULTS
from pilot.methods.plugins import plugins
from pilot.report.numbers.load import Run, load_runs
from pilot.report.numbers.summary import MainRow, group_runs, main_rows
from pilot.report.pack import ENTRY, members_of, write_pack
from pilot.report.tables.render import column_names, to_csv

FORMAT = 1
DESCRIPTION, MAIN, TUNING, METHOD = (f"{ENTRY}/{name}" for name in ("entry.json", "main.csv", "tuning.json", "method"))


class Entry(Model):
    """The content of `entry/entry.json`.

    Attributes:
        format: of the file, `FORMAT`.
        version: of this package when the entry was written.
        files: digest of every other file, by name.
        by: who submits, if stated.
        note: one line, if stated.
        url: of a paper or of code, if stated.
    """

    format: int
    version: str
    profile: str
    scenario: str
    method: str
    seeds: tuple[int, ...]
    files: dict[str, str]
    by: str = ""
    note: str = ""
    url: str = ""


def write_entry(
    paths: Sequence[Path | str], file: Path, version: str, by: str = "", note: str = "", url: str = ""
) -> Entry:
    """Write the runs under `paths`, of one method in one setting, to `file`, a `.tar.xz`; return its description.

    Raises:
        UserError: several methods or settings, runs that were imported or trained with a fault, or as `pack_runs`.
    """
    runs = load_runs(paths)
    members = members_of(runs, answers=True)
    setting = _setting(runs)
    members[MAIN] = main_table(runs)
    folder = runs[0].scenario_dir
    if (tuned := folder / "tuning" / f"{setting[2]}.json").is_file():
        members[TUNING] = tuned.read_bytes()
    if point := plugins().get(base_name(setting[2])):
        top, sources = package_files(point, f"method {setting[2]!r}")
        members |= {f"{METHOD}/{source.relative_to(top).as_posix()}": source.read_bytes() for source in sources}
    profile, scenario, method = setting
    entry = Entry(
        format=FORMAT, version=version, profile=profile, scenario=scenario, method=method,
        seeds=tuple(run.seed for run in runs), by=by, note=note, url=url,
        files={name: sha256_bytes(data) for name, data in sorted(members.items())},
    )  # fmt: skip
    members[DESCRIPTION] = (json.dumps(entry.model_dump(mode="json"), indent=2, sort_keys=True) + "\n").encode()
    write_pack(members, file)
    return entry


def main_table(runs: Sequence[Run]) -> bytes:
    """Return the runs' part of `tables/main.csv`."""
    return to_csv(main_rows(group_runs(runs)), column_names(MainRow)).encode()


def _setting(runs: Sequence[Run]) -> tuple[str, str, str]:
    settings = {(str(run.config["profile"]), run.scenario, run.method) for run in runs}
    if len(settings) > 1:
        names = ", ".join("/".join(each) for each in sorted(settings))
        raise UserError(f"expected the runs of one method with one profile and scenario, got {names}. Give one method.")
    for run in runs:
        if run.imported:
            raise UserError(f"{run.path}: imported answers are no entry, since nobody can train them again.")
        if run.path.resolve().parents[2].parent.name == FAULTS:
            raise UserError(f"{run.path}: a run with a fault is no entry. Give runs without one.")
    return settings.pop()
