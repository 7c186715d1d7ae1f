"""Figures for paper: sizes, letters, nothing cut or overlapping, with few methods and with many."""

import re
from functools import partial
from pathlib import Path

import pytest

from pilot.report.numbers.load import load_runs
from pilot.report.plots.page import COLUMN, PAPER, TEXT, Page
from pilot.report.plots.style import Source
from pilot.report.plots.write import FIGURES, write_figures
from pilot.report.tables.write import write_tables

from ..marks import few_of
from .legible import assert_legible, drawn
from .synthetic import SKILL, ZOO, build_scenario

CORE = ("pilot", "fedavg", "fedprox", "fedmoe", "local", "central")


@pytest.fixture(scope="session")
def six(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fake scenario with the six core methods."""
    folder = build_scenario(tmp_path_factory.mktemp("six"), CORE, protocols=True)
    write_tables(folder)
    return folder


@pytest.fixture(scope="session")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fake scenario with 32 methods."""
    folder = build_scenario(tmp_path_factory.mktemp("many"), (*SKILL, *ZOO), seeds=(0, 1), protocols=True)
    write_tables(folder)
    return folder


@pytest.fixture(params=["six", pytest.param("many", marks=pytest.mark.exhaustive)])
def source(request: pytest.FixtureRequest) -> Source:
    """What figures read: six methods, or 32."""
    folder: Path = request.getfixturevalue(request.param)
    return Source(folder, tuple(load_runs([folder])))


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("page", PAPER, ids=lambda page: page.name)
def test_letters_are_legible_and_nothing_is_cut_or_covered(
    source: Source, name: str, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_legible(partial(FIGURES[name], source), page, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("names", few_of([["bars", "router", "losses"]], [list(FIGURES)]), ids=len)
def test_files_are_vector_pdfs_of_the_right_width_with_their_fonts_in_them_and_the_same_every_time(
    six: Path, names: list[str]
) -> None:
    written = write_figures(six, only=names, paper=True)
    assert {path.name for path in written} == {f"{name}-{page.name}.pdf" for name in names for page in PAPER}
    first = {path: path.read_bytes() for path in written}
    for path, data in first.items():
        assert path.parent == six / "paper"
        points = float(re.search(rb"/MediaBox \[ 0 0 ([\d.]+) ", data)[1])  # type: ignore[index]
        assert points / 72 == pytest.approx((COLUMN if "-column" in path.name else TEXT).width), path
        assert b"/FontFile2" in data and b"/Type3" not in data and b"CreationDate" not in data
        # A colour bar is a picture 256 pixels long; nothing but that and photographs is one.
        assert (data.count(b"/Subtype /Image") > 0) <= (path.stem.split("-")[0] not in ("bars", "cost", "losses")), path
    again = {path: path.read_bytes() for path in write_figures(six, only=["bars", "router"], paper=True)}
    assert len(again) == 4 and all(first[path] == data for path, data in again.items())
    assert not (six / "figures" / "bars.png").exists(), "figures for the screen are not drawn with --paper"


@pytest.mark.slow
def test_a_figure_that_cannot_be_drawn_leaves_no_older_one(six: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_figures(six, only=["router"], paper=True)
    assert write_figures(six, methods=["fedavg"], only=["router"], paper=True) == []
    assert "figure router skipped" in capsys.readouterr().out
    assert not list((six / "paper").glob("router*"))


@pytest.mark.slow
def test_samples_show_eight_methods_and_say_how_many_they_leave_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = build_scenario(tmp_path, (*SKILL, "ditto", "clustered", "fedadagrad", "fedadam", "taskavg"), seeds=(0,))
    source = Source(folder, tuple(load_runs([folder])))
    _, found = drawn(partial(FIGURES["samples"], source), COLUMN, monkeypatch)
    words = [text for text, *_ in found]
    answered = {text.split(":")[0] for text in words if text.split(":")[0] in (*SKILL, *ZOO)}
    assert answered == {"pilot", "fedavg", "fedprox", "fedmoe", "clustered", "ditto", "fedadagrad", "fedadam"}
    assert words.count("(5 more methods not shown)") == 3
