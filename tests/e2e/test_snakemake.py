"""The pipeline in miniature on a copy of the repository: a second run does nothing. Edits: see test_digests.py."""

import json
import re
import shutil
import zipfile
from pathlib import Path

import pytest

from ..pipelines.workflow import copy_repository
from ..pipelines.workflow import snakemake as run_snakemake
from ..smoke import copy_smoke_run

REFERENCES = ("majority", "untuned")
METHODS = ("pilot", "fedavg", "fedmoe")


def snakemake(copy: Path, *arguments: str, target: str = "smoke") -> str:
    """Run Snakemake in `copy` with its own sources; returns all it prints, and a line per job for `planned`."""
    done = run_snakemake(target, "--cores", "1", *configured(arguments), "--logger", "jobs", folder=copy)
    assert done.code == 0, done.output + done.errors
    return done.output + done.errors


def configured(arguments: tuple[str, ...]) -> list[str]:
    """Arguments, settings (`name=value`) behind `--config`."""
    settings = [each for each in arguments if "=" in each]
    return [each for each in arguments if "=" not in each] + (["--config", *settings] if settings else [])


def planned(output: str) -> set[str]:
    """What a dry run would do: `rule`, or `rule method` for rules of single runs."""
    jobs = [json.loads(line) for line in re.findall(r"^job (\{.*\})$", output, re.MULTILINE)]
    return {" ".join(filter(None, (job["rule_name"], job["wildcards"].get("method")))) for job in jobs}


@pytest.fixture(scope="module")
def finished(smoke_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository in which `snakemake smoke` has run."""
    copy = copy_repository(tmp_path_factory.mktemp("pipeline") / "copy")
    everything = planned(snakemake(copy, "-n"))
    runs = {f"{rule} {method}" for rule in ("train", "answers") for method in (*METHODS, *REFERENCES)}
    assert everything == runs | {"smoke", "data", "partition", "features", "score", "tables", "draw", "page"}
    copy_smoke_run(smoke_run, copy)
    return copy


@pytest.mark.slow
def test_second_run_does_nothing(finished: Path) -> None:
    assert "Nothing to be done" in snakemake(finished, "-n")
    tables = finished / "results/smoke/smoke/tables"
    rows = (tables / "main.csv").read_text().splitlines()
    assert {row.split(",")[rows[0].split(",").index("method")] for row in rows[1:]} == {
        *METHODS, *REFERENCES
    }  # fmt: skip
    jobs = {"data", "partition", "features", "score", "tables", "figures", "report"}
    jobs |= {f"{rule}-{method}-0" for rule in ("train", "answers") for method in (*METHODS, *REFERENCES)}
    logs, benchmarks = ({path.stem for path in (tables.parent / name).iterdir()} for name in ("logs", "benchmarks"))
    assert jobs <= logs == benchmarks


@pytest.mark.slow
def test_faults_add_their_runs_to_the_ordinary_ones(finished: Path) -> None:
    """Two faults by two methods; the ordinary runs are there already, and are not made again."""
    shutil.rmtree(finished / "results/smoke/smoke/faults")
    output = snakemake(finished, "-n", target="smoke_faults")
    runs = {f"{rule} {method}" for rule in ("train_fault", "answers_fault") for method in METHODS[:2]}
    assert planned(output) == runs | {"score_faults", "tables_faults", "smoke_faults"}
    assert "strict-dag-evaluation" not in output  # no other rule takes these files for its own
    counts = {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", output, re.MULTILINE)}
    assert counts["train_fault"] == counts["answers_fault"] == 4
    places = {path for path in re.findall(r"results/smoke/smoke/faults/[^, ]+/manifest.json", output)}
    assert places == {
        f"results/smoke/smoke/faults/{fault}/runs/{method}/seed0/manifest.json"
        for fault in ("dropout-50", "nan-client")
        for method in METHODS[:2]
    }


@pytest.mark.slow
def test_report_has_every_figure_and_table_with_its_caption(finished: Path) -> None:
    """Snakemake's own report, as docs/clusters.md has it: one page that loads nothing from elsewhere."""
    snakemake(finished, "--report", "report.html")
    page = (finished / "report.html").read_text()
    results = json.loads(re.search(r"var results = (\{.*?\});\n", page, re.DOTALL)[1])  # type: ignore[index]
    folder = finished / "results/smoke/smoke"
    figures = {path.stem for path in (folder / "figures").glob("*.png")}
    assert {"bars", "cost", "losses", "heterogeneity", "drift", "samples", "router"} <= figures
    tables = {path.name for path in (folder / "tables").glob("*.csv")}
    assert {Path(name).name for name in results} == {f"{name}.png" for name in figures} | tables
    captions = {Path(name).name: result["caption"] for name, result in results.items()}
    assert all("smoke, profile" in caption for caption in captions.values())
    assert "black line its 95 % interval" in captions["bars.png"]
    assert "<tt" in captions["main.csv"] and "worst client" in captions["main.csv"]
    assert len(set(captions.values())) == len(captions)
    assert results["results/smoke/smoke/figures/bars.png"]["labels"]["figure"] == "bars"
    assert "none of them is claimed to reproduce" in page.lower() and "``" not in "".join(captions.values())
    assert "system-message" not in page  # how docutils shows that it did not understand a caption
    assert not re.search(r"<(?:script|link|img|iframe)[^>]*\s(?:src|href)=.?https?:", page)
    snakemake(finished, "--report", "report.zip")
    names = zipfile.ZipFile(finished / "report.zip").namelist()
    assert "report/report.html" in names and {Path(name).name for name in names} >= tables


@pytest.mark.slow
@pytest.mark.exhaustive
def test_figures_makes_tables_and_figures_of_the_methods_that_are_asked_for(finished: Path) -> None:
    plan = planned(snakemake(finished, "-n", target="smoke_figures"))
    assert plan == {"draw_paper", "smoke_figures"}, "nothing is trained or evaluated again"
    snakemake(finished, "figure_methods=fedavg", target="smoke_figures")
    folder = finished / "results/smoke/smoke"
    assert {path.name for path in (folder / "paper").iterdir()} >= {"bars-column.pdf", "bars-text.pdf"}
    assert {line.split(",")[1] for line in (folder / "tables/main.csv").read_text().splitlines()[1:]} == {"fedavg"}
    assert "fedmoe" not in (folder / "tables/grid.tex").read_text()
