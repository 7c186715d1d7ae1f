"""docs/add-a-method.md: it shows the example package as it is, and its commands work with the package installed."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from inspect import isfunction
from pathlib import Path
from types import ModuleType

import pytest
import torch

from pilot.io.atomic import read_json, read_jsonl
from pilot.methods.base import Method, ServerState, Update
from pilot.report.pack import read_pack

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/add-a-method.md").read_text(encoding="utf-8")
EXAMPLE = ROOT / "examples/fedmedian_lora"
SCENARIO = "pipelines/scenarios/scenario2.yaml"
SMALLER = {
    "num_train: 1500": "num_train: 40",
    "num_test: 300": "num_test: 12",
    "num_clients: 3": "num_clients: 2",
    "min_client_examples: 200": "min_client_examples: 10",
    "seeds: [0, 1, 2]": "seeds: [0]",
}
DIGEST = "from pilot.provenance import stage_digest as of; print(of('train', 'fedmedian_lora'), of('train', 'fedavg'))"


def blocks(language: str) -> list[str]:
    """The code blocks of the page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def commands(first: str) -> str:
    """The page's commands that begin with `first`."""
    (found,) = [block for block in blocks("sh") if block.startswith(first)]
    return found


def replaced(text: str, changes: dict[str, str]) -> str:
    """`text` with every key, each of which it holds, replaced by its value."""
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


def run(folder: Path, script: str) -> str:
    """What a bash script prints in `folder`, where `site` holds the installed package."""
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{folder / 'site'}",
        "OMP_NUM_THREADS": "1",
    }
    shell = ["bash", "-euo", "pipefail", "-c", script]
    result = subprocess.run(shell, cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def module() -> ModuleType:
    """The example's module, imported from its file."""
    spec = importlib.util.spec_from_file_location("fedmedian_lora_example", EXAMPLE / "fedmedian_lora.py")
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a user works: the package is installed by pip, scenario2 lies where it does in the repository."""
    target = tmp_path_factory.mktemp("user")
    shutil.copytree(EXAMPLE, target / "package")  # pip leaves files in the folder that it builds in
    pip = "python -m pip install --quiet --no-deps --no-build-isolation --no-index --target site ./package"
    run(target, pip)
    (target / "pipelines/scenarios").mkdir(parents=True)
    shutil.copy(ROOT / SCENARIO, target / SCENARIO)
    return target


def test_the_page_shows_the_package_as_it_is() -> None:
    files = sorted(path.name for path in EXAMPLE.iterdir() if path.is_file())
    assert files == ["fedmedian_lora.py", "pyproject.toml"]
    assert blocks("toml") == [(EXAMPLE / "pyproject.toml").read_text()]
    assert blocks("python") == [source := (EXAMPLE / "fedmedian_lora.py").read_text()]
    assert len(source.splitlines()) < 60


def test_the_page_has_every_hook() -> None:
    hooks = {name for name, value in vars(Method).items() if isfunction(value) and not name.startswith("_")}
    assert hooks == set(re.findall(r"^\| `(\w+)\(", PAGE, re.MULTILINE))


def test_what_the_example_computes(module: ModuleType) -> None:
    """Medians of (0, 1, 8) and (5, 3, 4): 1 and 4. Mean of 0, 1, 8 with weights 1, 1, 2: (0 + 1 + 16) / 4 = 4.25.

    The penalty of B = (3, 4) with decay 0.5 is 0.5 / 2 * 25 = 6.25, its gradient 0.5 * B; A does not count.
    """
    method = module.FedMedianLora(decay=0.5)
    (phase,) = method.phases(1)
    values = [(0.0, 5.0, 1), (1.0, 3.0, 1), (8.0, 4.0, 2)]
    updates = [
        Update(k, "vqa", n, {"text_adapter.q.lora_A": torch.tensor([a, b]), "connector.bias": torch.tensor([a])})
        for k, (a, b, n) in enumerate(values)
    ]
    server = method.aggregate(phase, iter(updates), ServerState())
    shared = {name: value.tolist() for name, value in server.shared.items()}
    assert shared == {"text_adapter.q.lora_A": [1.0, 4.0], "connector.bias": [4.25]}
    assert server.record == {"num_clients": 3}
    b = torch.tensor([[3.0, 4.0]], requires_grad=True)
    others = {"text_adapter.q.lora_A": torch.ones(2), "connector.bias": torch.ones(1)}
    penalty = method.penalty({"text_adapter.q.lora_B": b, **others}, {})
    penalty.backward()
    assert penalty.item() == 6.25 and b.grad is not None and b.grad.tolist() == [[1.5, 2.0]]


@pytest.mark.parametrize("decay", [-0.1, float("nan")])
def test_the_example_refuses_a_wrong_option(module: ModuleType, decay: float) -> None:
    with pytest.raises(ValueError, match="decay: expected a number of at least 0"):
        module.FedMedianLora(decay=decay)


@pytest.mark.slow
def test_snakemake_makes_its_runs(folder: Path) -> None:
    """The page's targets are planned: training of two methods with three seeds each, and their answers."""
    snakemake, *_ = commands("snakemake").splitlines()
    dry = f"snakemake -n --snakefile {ROOT}/Snakefile --directory dry --cores 1"
    printed = run(folder, replaced(snakemake, {"snakemake --cores all": dry}))
    counts = dict(re.findall(r"^(\w+) +(\d+)$", printed, re.MULTILINE))
    assert counts["train"] == counts["answers"] == "6"
    made = re.findall(r"\btrain fedmedian_lora, seed (\d),", printed)
    assert sorted(made) == ["0", "1", "2"]


@pytest.mark.slow
@pytest.mark.exhaustive
def test_its_runs_become_a_verified_entry(folder: Path) -> None:
    """From the installed package to a line of the leaderboard, trained again by who verifies; it holds the source."""
    runs = "results/smoke/smoke/runs/fedmedian_lora"
    snakemake = f"snakemake --quiet rules --snakefile {ROOT}/Snakefile --directory . --cores 2"
    run(folder, f"{snakemake} {runs}/seed0/eval/samples.jsonl")
    run(folder, f"pilot-bench evaluate --no-answers {runs}/seed0")
    run(folder, f"pilot-bench submit {runs} --to mine.tar.xz --by Ada")
    said = run(folder, "pilot-bench verify --rerun mine.tar.xz").splitlines()
    *checks, rerun = [line for line in said if line.startswith("mine.tar.xz: ")]
    assert len(checks) == 7 and all(line.endswith(": ok") for line in checks)
    assert rerun.endswith("the same model, byte for byte")
    assert (
        read_pack(folder / "mine.tar.xz")[f"entry/method/{EXAMPLE.name}.py"]
        == (EXAMPLE / "fedmedian_lora.py").read_bytes()
    )
    run(folder, "pilot-bench leaderboard mine.tar.xz --to page.md")
    assert re.search(r"^\| 1\.00 \| fedmedian_lora \|.*\| Ada \|", (folder / "page.md").read_text(), re.MULTILINE)


@pytest.mark.slow
@pytest.mark.exhaustive
def test_the_method_is_trained_and_compared(folder: Path) -> None:
    """The page's commands at smoke size; then an edit of the package concerns its runs and no others."""
    run(folder, commands("sed"))
    scenario = folder / "mine.yaml"
    scenario.write_text(replaced(scenario.read_text(), SMALLER))
    smoke = {"PROFILE=embedded": "PROFILE=smoke", "in 0 1 2": "in 0"}
    table = run(folder, replaced(commands("PROFILE"), smoke))
    assert "fedmedian_lora" in table and "fedavg" in table
    runs = folder / "results/smoke/mine/runs"
    rows, plain = (read_jsonl(runs / method / "seed0/rounds.jsonl") for method in ("fedmedian_lora", "fedavg"))
    assert [row["aggregation"] for row in rows] == [{"num_clients": 6}] * 2
    assert [row["excluded"] for row in rows] == [[], []]
    steps, of_plain = ([client["steps"] for row in each for client in row["clients"]] for each in (rows, plain))
    assert steps == of_plain == [4] * 12
    assert all(value > 0 for client in rows[1]["clients"] for value in client["losses"]["penalty"])
    run(folder, "PROFILE=smoke\n" + commands("RUN"))  # trained again: cmp finds no difference

    listed = json.loads(run(folder, "pilot-bench list methods --json"))["fedmedian_lora"]
    assert listed["package"] == "fedmedian-lora" and listed["megabytes_up"] is None
    own, fedavg = run(folder, f'python -c "{DIGEST}"').split()
    assert read_json(runs / "fedmedian_lora/seed0/config.json")["digests"]["source"] == own
    with (folder / "site/fedmedian_lora.py").open("a") as source:
        source.write("# changed\n")
    edited, still = run(folder, f'python -c "{DIGEST}"').split()
    assert edited != own and still == fedavg
