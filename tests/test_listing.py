"""`pilot-bench list methods`: what methods share, keep and cost, without PyTorch or another package's code."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pilot.cli.costs import method_costs
from pilot.cli.listing import COSTS, catalogue
from pilot.io.atomic import read_json
from pilot.methods.catalogue import METHODS

PRINT = "import sys; from pilot.cli.main import main; sys.argv[1:] = {arguments!r}; main()"
KEYS = {
    "summary", "leaves", "stays", "megabytes_down", "megabytes_up", "upper_bound", "one_model", "pooled", "package",
    "entry_point",
}  # fmt: skip


def listed(folder: Path, *options: str) -> str:
    """What the command prints, 100 columns wide, with `folder` among the places of packages."""
    path = os.pathsep.join([str(folder), *filter(None, sys.path)])
    environment = os.environ | {"COLUMNS": "100", "NO_COLOR": "1", "PYTHONPATH": path}
    command = [sys.executable, "-c", PRINT.format(arguments=["list", "methods", *options])]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def install_plugin(folder: Path) -> None:
    """A package whose module cannot be imported, with a method of its own and one that has a name of the suite's."""
    (folder / "elsewhere.py").write_text("raise RuntimeError('imported')\n")
    info = folder / "elsewhere_methods-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere-methods\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[pilot_bench.methods]\nmine = elsewhere:Mine\nfedavg = elsewhere:Rival\n")


def test_objects() -> None:
    """scenario2, rank 32: LoRA has 4 layers x 32 x sums of widths; connectors of 33,024 numbers; four bytes each."""
    methods = catalogue("methods")
    assert methods.keys() == {*METHODS}
    assert all(method.keys() == KEYS and method["summary"] for method in methods.values())
    lora, mlp = 4 * 69632, 33024
    assert methods["fedavg"] == {
        "summary": methods["fedavg"]["summary"], "leaves": ["text_adapter", "connector"], "stays": [],
        "megabytes_down": 4 * (lora + mlp) / 1e6, "megabytes_up": 4 * (lora + mlp) / 1e6, "upper_bound": False,
        "one_model": True, "pooled": False, "package": "pilot-bench", "entry_point": None,
    }  # fmt: skip
    pilot = methods["pilot"]
    assert (pilot["leaves"], pilot["one_model"]) == (["text_adapter", "task_adapter"], False)
    assert pilot["stays"] == ["client_adapter", "cross_task_adapter", "router"]
    assert pilot["megabytes_down"] == 4 * (lora + 3 * mlp) / 1e6
    assert methods["flora"]["megabytes_down"] == 4 * (655_360 + mlp) / 1e6
    assert methods["flexlora"]["upper_bound"] and methods["central"]["pooled"]


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_costs_are_what_methods_say(name: str) -> None:
    """If not, run `python -m pilot.cli.costs`."""
    assert read_json(COSTS)[name] == method_costs(name)


def test_table(tmp_path: Path) -> None:
    """Every method is one row of the second table, with whole numbers; nothing is cut at 100 columns."""
    text = listed(tmp_path)
    assert max(map(len, text.splitlines())) <= 100 and "…" not in text
    rows = {
        line.split()[0]: line.split()
        for line in text.partition("leaves the client")[2].splitlines()
        if line[1:2].strip()
    }
    assert {*METHODS} <= rows.keys()
    assert rows["fedavg"] == ["fedavg", "text_adapter,", "connector", "-", "1.25", "1.25", "yes"]
    assert rows["central"][1:4] == ["all", "training", "data"] and rows["central"][-3:] == ["0.00", "0.00", "yes"]
    assert rows["flexlora"][-3:] == ["<=1.25", "<=1.25", "no"]
    assert rows["local"][1] == "-" and rows["untuned"][1:3] == ["-", "-"]


def test_methods_of_other_packages(tmp_path: Path) -> None:
    install_plugin(tmp_path)
    methods = json.loads(listed(tmp_path, "--json"))
    mine = methods["mine"]
    assert methods["fedavg"]["package"] == "pilot-bench"
    assert mine == dict.fromkeys(KEYS) | {
        "summary": "Of the package elsewhere-methods, entry point elsewhere:Mine", "package": "elsewhere-methods",
        "entry_point": "elsewhere:Mine",
    }  # fmt: skip
    text = listed(tmp_path)
    assert "Of the package elsewhere-methods, entry point elsewhere:Mine" in text
    assert ["mine", "-", "-", "-", "-", "-"] in [line.split() for line in text.splitlines()]


def test_needs_no_pytorch() -> None:
    code = (
        "import sys; from pilot.cli.listing import catalogue, print_methods; print_methods(catalogue('methods')); "
        "assert not {'torch', 'transformers', 'pandas', 'numpy'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
