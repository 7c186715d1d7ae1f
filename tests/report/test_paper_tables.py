"""LaTeX tables for paper."""

import re
from pathlib import Path

import pytest

from pilot.report.tables.write import write_tables

from .synthetic import SKILL, build_scenario


def rows_of(text: str) -> list[list[str]]:
    """The cells of each row below the header; a row ends with two backslashes."""
    body = text.split(r"\midrule", 1)[1].split(r"\bottomrule")[0]
    return [line.removesuffix(r" \\").split(" & ") for line in body.splitlines() if line.endswith(r"\\")]


@pytest.mark.parametrize("name", ["grid", "significance", "cost"])
def test_every_table_is_whole(scenario: Path, name: str) -> None:
    text = (scenario / "tables" / f"{name}.tex").read_text()
    assert text.startswith("% needs \\usepackage{booktabs}\n\\begin{table}\n") and text.endswith("\\end{table}\n")
    for mark in (r"\toprule", r"\bottomrule", r"\begin{tabular}", r"\end{tabular}", r"\caption{", r"\label{tab:"):
        assert text.count(mark) == 1, mark
    assert text.count("{") == text.count("}") and not re.search(r"(?<!\\)_", text), "braces and underscores"
    names = [cells[0] for cells in rows_of(text)]
    expected = ["pilot", "fedavg", "fedprox", "fedmoe", "local"] + [rf"\emph{{{each}}}" for each in tuple(SKILL)[-3:]]
    assert names == [each for each in expected if (name, each) != ("significance", "fedavg")]
    assert len({len(cells) for cells in rows_of(text)}) == 1


def test_values_marks_tests_and_costs(scenario: Path) -> None:
    grid, tests, cost = ((scenario / "tables" / f"{name}.tex").read_text() for name in ("grid", "significance", "cost"))
    assert r"\multicolumn{2}{c}{\shortstack{scene-vqa\\exact\_match}}" in grid
    cells = {row[0]: row for row in rows_of(grid)}
    # Numbers as in main.md, in which the best of a column is bold.
    (line,) = [
        line for line in (scenario / "tables" / "main.md").read_text().splitlines() if line.startswith("| pilot")
    ]
    mean, std = re.search(r"\*\*(0\.\d{3}) ± (0\.\d{3})\*\* ↑", line).groups()  # type: ignore[union-attr]
    assert cells["pilot"][1:3] == [rf"\textbf{{{mean}}}", rf"{{\tiny$\pm${std}}}$\uparrow$"]
    assert cells[r"\emph{untuned}"][2] in ("", r"$\downarrow$"), "one seed has no spread"
    against = {row[0]: row for row in rows_of(tests)}
    assert re.fullmatch(r"\$\+0\.\d{3}\$ \((\$<\$)?0\.\d{3}\)", against["pilot"][1])
    # 600,000 bytes, 9 clients, 4 phases up and as many down; 125,000 parameters; 10^12 operations.
    assert {row[0]: row for row in rows_of(cost)}["pilot"] == ["pilot", "21.60", "21.60", "125.0", "1.00"]


def test_long_names_make_small_letters(tmp_path: Path) -> None:
    short = build_scenario(tmp_path / "short", ("pilot", "fedavg"), seeds=(0,))
    long = build_scenario(tmp_path / "long", ("pilot", "fedavg", "pilot_exact_ata"), seeds=(0,))
    for folder, size in ((short, "footnotesize"), (long, "scriptsize")):
        write_tables(folder)
        assert rf"\centering\{size}\set" in (folder / "tables" / "grid.tex").read_text()


def test_without_a_baseline_nothing_is_said_about_one(tmp_path: Path) -> None:
    folder = build_scenario(tmp_path, ("pilot", "local"), seeds=(0,))
    write_tables(folder)
    assert "uparrow" not in (folder / "tables" / "grid.tex").read_text()
    text = (folder / "tables" / "significance.tex").read_text()
    assert "no baseline" in text and rows_of(text) == [["pilot", "--", "--", "--"], ["local", "--", "--", "--"]]


def test_the_baseline_alone_is_not_held_against_itself(tmp_path: Path) -> None:
    folder = build_scenario(tmp_path, ("fedavg",), seeds=(0,))
    write_tables(folder)
    assert rows_of((folder / "tables" / "significance.tex").read_text()) == []
    assert len(rows_of((folder / "tables" / "grid.tex").read_text())) == 1
