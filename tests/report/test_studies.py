"""A study's tables and figures from fake runs: what is compared with what, and what is refused."""

import csv
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import kendalltau

from pilot.config.study import Study
from pilot.errors import UserError
from pilot.io.atomic import read_json, write_json
from pilot.report.numbers.agreement import agreement_rows, conclusions
from pilot.report.numbers.statistics import holm
from pilot.report.numbers.studies import PartTable, load_part
from pilot.report.plots import differences, order
from pilot.report.plots.page import COLUMN, PAPER, Page
from pilot.report.plots.study import caption, draw
from pilot.report.tables.study import difference, markdown, write_study
from pilot.report.tables.write import write_tables

from ..marks import few_of
from .legible import assert_legible
from .synthetic import build_run, build_scenario

pytestmark = pytest.mark.slow

AXIS = {"label": "rounds", "values": {"rounds-3": 3, "base": 12}}
PARTS: list[dict[str, Any]] = [
    {
        "name": "components", "title": "Components", "scenarios": ["scenario2"], "baseline": "pilot",
        "methods": ["pilot+no-ata", "pilot", "central"],
    },
    {
        "name": "rounds", "title": "Rounds", "scenarios": ["scenario2"], "baseline": "fedavg",
        "methods": ["pilot", "fedavg", "local"], "profiles": ["rounds-3", "base"], "axis": AXIS,
    },
]  # fmt: skip


def study(*parts: dict[str, Any]) -> Study:
    """A study of these parts."""
    return Study.model_validate({"name": "mine", "title": "My study", "parts": parts or PARTS})


def rows(path: Path, **where: str) -> list[dict[str, str]]:
    """The lines of a CSV file whose fields have the given values."""
    with path.open(newline="") as file:
        return [row for row in csv.DictReader(file) if where.items() <= row.items()]


def renamed(run: Path, **config: str) -> None:
    """Change fields in a run's `config.json`."""
    write_json(run / "config.json", read_json(run / "config.json") | config)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenario2 with two profiles; Pilot's variant has the scores of FedProx."""
    folder = tmp_path_factory.mktemp("made")
    scenario = build_scenario(folder, ("pilot", "fedavg", "local", "central"))
    for seed in (0, 1, 2):
        name = "pilot+no-ata"
        renamed(build_run(scenario / "runs" / name / f"seed{seed}", "fedprox", seed), method=name)
    shutil.copytree(scenario, folder / "embedded+rounds-3" / "scenario2")
    for method, as_good_as in (("pilot", "fedmoe"), ("fedavg", "fedavg"), ("local", "fedprox")):
        for seed in (0, 1, 2):
            run = folder / "embedded+rounds-3" / "scenario2" / "runs" / method / f"seed{seed}"
            renamed(build_run(run, as_good_as, seed), method=method, profile="embedded+rounds-3")
    return folder


@pytest.fixture
def results(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(made, tmp_path, dirs_exist_ok=True))


def test_differences_are_to_the_baseline_and_corrected_over_the_part(results: Path) -> None:
    write_study(study(), "embedded", results)
    found = rows(results / "embedded/studies/mine/rounds.csv")
    assert len(found) == 2 * 3 * 3
    p_values = []
    for profile in ("embedded+rounds-3", "embedded"):
        scenario = results / profile / "scenario2"
        write_tables(scenario, "fedavg", methods=["pilot", "fedavg", "local"])
        tests = rows(scenario / "tables" / "significance.csv", test="training")
        tested = {(row["method"], row["task"]): row for row in tests}
        primary = ("exact_match", "CIDEr", "acc@0.5[original]")
        table = [row for row in rows(scenario / "tables/main.csv", protocol="personalised") if row["metric"] in primary]
        means = {(row["method"], row["task"]): row for row in table}
        for row in (each for each in found if each["profile"] == profile):
            key = row["method"], row["task"]
            names = ("mean", "std", "ci_low", "ci_high", "num_seeds", "metric")
            assert [row[name] for name in names] == [means[key][name] for name in names]
            if row["method"] == "fedavg":
                assert (row["difference"], row["p_holm"]) == ("", "")
            else:
                assert row["difference"] == tested[key]["difference"]
                apart = float(means[key]["mean"]) - float(means["fedavg", row["task"]]["mean"])
                assert float(row["difference"]) == pytest.approx(apart, abs=2e-6)
    order = [
        (setting, task, method)
        for setting in ("embedded+rounds-3", "embedded")
        for method in ("pilot", "local")
        for task in ("scene-vqa", "scene-caption", "scene-ground")
    ]
    for setting, task, method in order:
        table = rows(results / setting / "scenario2/tables/significance.csv", task=task, method=method, test="training")
        p_values.append(float(table[0]["p_value"]))
    corrected = dict(zip(order, holm(p_values), strict=True))
    assert len(set(corrected.values())) > 2
    for row in found:
        if row["method"] != "fedavg":
            key = row["profile"], row["task"], row["method"]
            assert float(row["p_holm"]) == pytest.approx(corrected[key], abs=1e-5)  # p has six decimals, times 12


def test_rows_are_in_the_studys_order_with_cost_and_position(results: Path) -> None:
    write_study(study(), "embedded", results)
    folder = results / "embedded/studies/mine"
    found = rows(folder / "components.csv", task="scene-vqa")
    assert [row["method"] for row in found] == ["pilot+no-ata", "pilot", "central"]
    assert found[0]["scenario"] == "scenario2" and found[0]["axis"] == ""
    # Pilot of the fixture: nine clients send and receive 600,000 bytes in each of four phases.
    assert float(found[1]["megabytes"]) == pytest.approx(9 * 2 * 4 * 0.6)
    assert float(found[1]["trainable_parameters"]) == 125_000
    assert [row["family"] for row in found] == ["Core", "Core", "References"]
    ledger = read_json(results / "embedded/scenario2/runs/pilot/seed0/ledger.json")
    assert float(found[1]["teraflops"]) == pytest.approx(ledger["training_flops"] / 1e12, abs=1e-6)
    assert [(row["profile"], row["axis"]) for row in rows(folder / "rounds.csv", task="scene-vqa", method="local")] == [
        ("embedded+rounds-3", "3.000000"), ("embedded", "12.000000")
    ]  # fmt: skip


def test_every_part_is_written_the_same_twice_and_shown_in_the_index(results: Path) -> None:
    first = {path: path.read_bytes() for path in write_study(study(), "embedded", results)}
    endings = ("csv", "md", "tex", "png", "pdf")
    expected = {f"{part['name']}.{ending}" for part in PARTS for ending in endings} | {"index.md"}
    expected |= {"components-drift.png", "components-drift.pdf"}  # the other part has two settings
    expected |= {f"rounds-order.{ending}" for ending in ("csv", "png", "pdf")}
    assert {path.name for path in first} == expected
    index = (results / "embedded/studies/mine/index.md").read_text()
    assert index.startswith("# My study\n") and "embedded" in index
    for part in PARTS:
        assert f"## {part['title']}\n" in index and f"({part['name']}.png)" in index
        assert (results / f"embedded/studies/mine/{part['name']}.md").read_text() in index
    assert index.count("Aggregation drift") == 2 and "(components-drift.png)" in index
    assert "| profile | method | rounds |" in index and "| embedded+rounds-3 | pilot | 3 |" in index
    assert "Holm-corrected over the 12 tests" in index and "Holm-corrected over the 6 tests" in index
    assert all((results / f"embedded/studies/mine/{part['name']}.tex").read_text().isascii() for part in PARTS)
    for timing in results.glob("*/scenario2/runs/*/*/timing.json"):
        write_json(timing, read_json(timing) | {"wall_seconds": 7.0})
    assert all(path.read_bytes() == first[path] for path in write_study(study(), "embedded", results))


def test_some_parts_leave_the_index_alone(results: Path) -> None:
    written = write_study(study().subset(parts=["rounds"]), "embedded", results, index=False)
    assert {path.stem for path in written} == {"rounds", "rounds-order"}
    assert not (results / "embedded/studies/mine/index.md").exists()


def test_order_of_the_methods_between_settings(results: Path) -> None:
    """Tau of the means in the part's own table; an interval around it; marks as in the table."""
    write_study(study(), "embedded", results)
    folder = results / "embedded/studies/mine"
    text = (folder / "rounds.md").read_text()
    for row in rows(folder / "rounds-order.csv"):
        assert (row["profile"], row["other_profile"]) == ("embedded+rounds-3", "embedded") and row["num_methods"] == "3"
        means = {
            profile: [float(each["mean"]) for each in rows(folder / "rounds.csv", profile=profile, task=row["task"])]
            for profile in ("embedded+rounds-3", "embedded")
        }
        assert float(row["tau"]) == pytest.approx(kendalltau(*means.values()).statistic, abs=1e-6)
        assert -1 <= float(row["ci_low"]) <= float(row["tau"]) <= float(row["ci_high"]) <= 1
        shown = f"{float(row['tau']):.2f} [{float(row['ci_low']):.2f}, {float(row['ci_high']):.2f}]"
        assert f"| {row['task']} | embedded+rounds-3, embedded | {shown} |" in text
    table = load_part("mine", study().parts[1], "embedded", results)
    found = conclusions(table)
    assert [(each.task, each.method) for each in found[:2]] == [("scene-vqa", "pilot"), ("scene-vqa", "local")]
    for each in found:
        tested = [row for row in table.rows if (row.task, row.method) == (each.task, each.method)]
        signs = [
            "none" if (row.p_holm or 0) >= 0.05 else "up" if (row.difference or 0) > 0 else "down" for row in tested
        ]
        assert list(each.marks) == signs
        assert f"| {each.task} | {each.method} |" in text
    assert "order" not in (folder / "components.md").read_text(), "one setting has no other to agree with"


@pytest.mark.parametrize("page", PAPER, ids=lambda page: page.name)
def test_ranks_are_legible(results: Path, page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    table = load_part("mine", study().parts[1], "embedded", results)
    names = ["3 rounds", "12 rounds"]
    assert_legible(partial(order.draw, table, agreement_rows(table), names), page, monkeypatch)


def test_missing_runs_name_the_target_and_nothing_is_written(results: Path) -> None:
    (results / "embedded+rounds-3/scenario2/runs/local/seed1/eval/metrics.json").unlink()
    shutil.rmtree(results / "embedded+rounds-3/scenario2/runs/local/seed2")
    expected = (
        r"study mine, part rounds: 2 of 18 runs are missing or not scored, first "
        r".*embedded\+rounds-3/scenario2/runs/local/seed1. Run `snakemake --cores all mine`"
    )
    with pytest.raises(UserError, match=expected):
        write_study(study(), "embedded", results)
    assert not (results / "embedded" / "studies").exists()


def test_runs_that_differ_are_refused(results: Path) -> None:
    config = results / "embedded/scenario2/runs/pilot+no-ata/seed0/config.json"
    usual = read_json(config)
    write_json(config, usual | {"budget": usual["budget"] | {"local_steps": 9}})
    with pytest.raises(UserError, match="budget local_steps differs"):
        load_part("mine", study().parts[0], "embedded", results)
    write_json(config, usual | {"hyperparameters": {"options": {"lambda0": 1}}})
    with pytest.raises(UserError, match=r"runs/pilot\+no-ata/seed\d and .*: different hyperparameters"):
        load_part("mine", study().parts[0], "embedded", results)


def test_scenarios_of_a_part_have_the_same_tasks(results: Path) -> None:
    other = results / "embedded" / "scenario1"
    shutil.copytree(results / "embedded" / "scenario2", other)
    for config in other.glob("runs/*/*/config.json"):
        values = read_json(config)
        write_json(config, values | {"scenario": "scenario1", "tasks": values["tasks"][:2]})
    part = study(PARTS[0] | {"scenarios": ["scenario1", "scenario2"]}).parts[0]
    with pytest.raises(UserError, match="part components: field scenarios: their tasks differ"):
        load_part("mine", part, "embedded", results)


def test_figures_show_every_method(results: Path) -> None:
    bars = draw(load_part("mine", study().parts[0], "embedded", results))
    labels = [label.get_text() for label in bars.axes[0].get_yticklabels()]
    assert labels == ["pilot+no-ata", "pilot", "central"] and len(bars.axes) == 3
    table = load_part("mine", study().parts[1], "embedded", results)
    lines = draw(table)
    (legend,) = lines.legends
    assert [text.get_text() for text in legend.get_texts()] == ["pilot", "fedavg", "local"]
    drawn = [line for line in lines.axes[0].get_lines() if line.get_marker() not in ("", "None", None)]
    for line, method in zip(drawn, ("pilot", "fedavg", "local"), strict=True):
        means = {row.axis: row.mean for row in table.rows if (row.method, row.task) == (method, "scene-vqa")}
        assert dict(zip(line.get_xdata(), line.get_ydata(), strict=True)) == means
    low, high = lines.axes[0].get_ylim()
    assert all(low <= end <= high for row in table.rows if row.task == "scene-vqa" for end in (row.ci_low, row.ci_high)
               if end is not None)  # fmt: skip


def test_differences_as_text(results: Path) -> None:
    row = load_part("mine", study().parts[0], "embedded", results).rows[0]
    changed = {**vars(row), "difference": -0.0314, "p_holm": 0.0004}
    assert difference(type(row)(**changed)) == "-0.031 ↓ (p < 0.001)"
    assert difference(type(row)(**changed | {"difference": 0.2, "p_holm": 0.05})) == "+0.200 (p 0.050)"
    assert difference(type(row)(**changed | {"difference": None, "p_holm": None})) == "-"


@pytest.mark.parametrize("page", few_of([COLUMN], PAPER), ids=lambda page: page.name)
@pytest.mark.parametrize("part", [0, 1], ids=["bars", "lines"])
def test_figures_for_paper_are_legible(results: Path, page: Page, part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    table = load_part("mine", study().parts[part], "embedded", results)
    assert_legible(partial(draw, table), page, monkeypatch)


@pytest.mark.exhaustive
def test_figures_for_paper_are_drawn_when_asked(results: Path) -> None:
    usual = write_study(study(), "embedded", results)
    written = write_study(study(), "embedded", results, paper=True)
    names = {path.name for path in written if path.parent.name == "paper"}
    parts = ("components", "components-drift", "rounds", "rounds-order")
    assert names == {f"{part}-{page}.pdf" for part in parts for page in ("column", "text")}
    assert [path for path in written if path.parent.name != "paper"] == usual


MANY: dict[str, Any] = {
    "name": "many", "title": "Many methods", "scenarios": ["scenario2"], "baseline": "fedavg",
    "methods": ["pilot", "pilot+no-ata", "fedavg", "local", "central"],
}  # fmt: skip


@pytest.fixture
def many(results: Path, monkeypatch: pytest.MonkeyPatch) -> PartTable:
    monkeypatch.setattr(differences, "MANY", 5)
    return load_part("mine", study(MANY).parts[0], "embedded", results)


def test_many_methods_are_differences_sorted_inside_families(many: PartTable) -> None:
    """Skills: central 0.85, pilot 0.74, local 0.72, fedprox (as which the variant is made) 0.50, fedavg 0.45."""
    figure = draw(many)
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["Core", "pilot", "pilot+no-ata", "References", "central", "local"]
    for axes, task in zip(figure.axes, many.tasks, strict=True):
        found = differences.differences(many, task)
        dots = [tuple(each.get_offsets()[0]) for each in axes.collections]
        assert dots == [(found[name].value, place) for place, name in enumerate(labels) if name in found]
        (setting,) = many.grids
        for name, each in found.items():
            row = many.row(setting, name, task)
            assert each.value == pytest.approx(row.difference) and each.low <= each.value <= each.high
            assert each.marked == (row.p_holm is not None and row.p_holm < 0.05)
        filled = [tuple(each.get_facecolor()[0][:3]) != (1.0, 1.0, 1.0) for each in axes.collections]
        assert filled == [found[name].marked for name in labels if name in found]
    assert caption(many).startswith("Many methods: differences to fedavg")
    shown = [line.split(" | ")[:2] for line in markdown(many).splitlines() if line.startswith("|")]
    assert shown[0] == ["| family", "method"] and shown[2:] == [
        ["| Core", "pilot"], ["| ", "pilot+no-ata"], ["| ", "fedavg"], ["| References", "local"], ["| ", "central"]
    ]  # fmt: skip


@pytest.mark.parametrize("page", few_of([COLUMN], PAPER), ids=lambda page: page.name)
def test_differences_on_paper_are_legible(many: PartTable, page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_legible(partial(draw, many), page, monkeypatch)
