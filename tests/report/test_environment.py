"""What the environment says decides nothing: the same files, the same text, whatever a notebook or a batch job set."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pilot.report.compare.side_by_side import compare
from pilot.report.html.page import write_report
from pilot.report.plots.write import write_figures
from pilot.report.tables.write import write_tables

from .synthetic import build_scenario

COMMANDS = """
import sys
from pilot.cli.main import main
for command in sys.stdin.read().splitlines():
    sys.argv = ["pilot-bench", *command.split()]
    try:
        main()
    except SystemExit as stop:
        assert not stop.code, command
"""
HOSTILE = {
    "MPLBACKEND": "module://matplotlib_inline.backend_inline", "PYTHONWARNINGS": "error", "HOME": "/dev/null",
    "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "TERM": "dumb", "NO_COLOR": "1",
    "TZ": "Asia/Kathmandu", "SOURCE_DATE_EPOCH": "1", "PYTHONHASHSEED": "7",
}  # fmt: skip
"""A notebook's backend, warnings as errors, a home that cannot be written to, an ASCII locale, a dumb terminal."""
UNSET = ("MPLCONFIGDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "PYTHONIOENCODING")


@pytest.mark.slow
def test_the_environment_does_not_decide(tmp_path: Path) -> None:
    scenario_copy = build_scenario(tmp_path, ("pilot", "fedavg"), seeds=(0, 1))
    write_tables(scenario_copy, "fedavg")
    write_figures(scenario_copy, only=["cost"])
    write_report(scenario_copy)
    made = [scenario_copy / name for name in ("figures/cost.png", "figures/cost.pdf", "report.html")]
    expected = {path: path.read_bytes() for path in made}
    for path in made:
        path.unlink()
    folder = scenario_copy.parents[1]
    (folder / "matplotlibrc").write_text("backend: nonsense\nlines.linewidth: 9\nfont.size: 3\n")
    where = "embedded/scenario2"
    commands = f"figures {where} --only cost\nreport {where}\ncompare {where} --format markdown\n"
    environment = {name: value for name, value in os.environ.items() if name not in UNSET} | HOSTILE
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS], input=commands.encode(), cwd=folder, env=environment, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()
    assert {path: path.read_bytes() for path in made} == expected
    table = compare([scenario_copy], "fedavg", "markdown")
    assert table and "±" in table and table in done.stdout.decode("utf-8")


def test_python_without_assertions_is_refused() -> None:
    command = [sys.executable, "-O", "-c", "from pilot.cli.main import main; main()", "list", "methods"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("error: Python runs without assertions (PYTHONOPTIMIZE")
