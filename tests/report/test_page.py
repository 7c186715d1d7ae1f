"""`report.html`: what it holds, read back from the page's own data."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from pilot.errors import UserError
from pilot.report.html.page import write_report
from pilot.report.html.samples import sample_browser
from pilot.report.html.series import client_rows, loss_rows, neighbour_rows, quality_rows, router_rows
from pilot.report.numbers.load import load_methods
from pilot.report.plots.style import Source
from pilot.report.tables.write import write_tables

from .synthetic import NUM_EXAMPLES, TASKS, reseal


@pytest.fixture(scope="module")
def page(scenario: Path) -> str:
    """The fake scenario's page."""
    return write_report(scenario).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def source(scenario: Path) -> Source:
    return Source(scenario, tuple(load_methods(scenario)))


def data(page: str, name: str) -> Any:
    """What the page's scripts read under a name."""
    found = re.search(rf'<script type="application/json" id="data-{name}">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found.group(1))


def rows(text: str) -> list[dict[str, str]]:
    import csv
    import io

    return list(csv.DictReader(io.StringIO(text)))


class Links(HTMLParser):
    """Every address that a page asks for, and every id in it."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "href") and value:
                self.addresses.append(value)
            if name == "id" and value:
                self.ids.append(value)


@pytest.mark.slow
def test_nothing_is_asked_from_elsewhere_and_links_lead_somewhere(page: str) -> None:
    links = Links()
    links.feed(page)
    assert links.addresses and all(address.startswith(("#", "data:")) for address in links.addresses)
    inside = {address[1:] for address in links.addresses if address.startswith("#")}
    assert inside <= set(links.ids) and len(set(links.ids)) == len(links.ids)
    assert "default-src 'none'" in page


def test_the_board_repeats_the_tables(page: str, scenario: Path) -> None:
    board = data(page, "board")
    table = {
        (row["method"], row["task"], row["metric"], row["protocol"]): row
        for row in rows((scenario / "tables/main.csv").read_text())
    }
    assert len(board["rows"]) == 8 and board["baseline"] == "fedavg"
    compared = 0
    for row in board["rows"]:
        for key, (mean, std, low, high, status) in row["cells"].items():
            line = table[row["method"], *key.split("|")]
            expected = [line[name] for name in ("mean", "std", "ci_low", "ci_high")]
            assert [mean, std, low, high] == [float(text) if text else None for text in expected]
            assert status == line["status"]
            compared += 1
    assert compared == len(table) > 100
    pilot = next(row for row in board["rows"] if row["method"] == "pilot")
    # Four messages of 600 kB up and down for each of nine clients (tests/report/synthetic.py).
    assert pilot["megabytes"] == pytest.approx(4 * 9 * 2 * 0.6)
    assert pilot["seconds"] == pytest.approx(61.5)
    best = {task["name"]: [r["method"] for r in board["rows"] if r["marks"][task["name"]]["best"]] for task in TASKS}
    assert all(len(found) == 1 and found[0] not in ("central", "untuned", "majority") for found in best.values())


def test_series_agree_with_what_they_are_made_of(source: Source) -> None:
    quality = rows(quality_rows(source))
    assert len(quality) == 8 * 3
    fedavg = next(row for row in quality if row["method"] == "fedavg" and row["task"] == "scene-vqa")
    expected = float(source.primary(source.tasks[0])["mean"]["fedavg"])
    assert float(fedavg["mean"]) == pytest.approx(expected, rel=1e-4)
    clients = rows(client_rows(source))
    assert len(clients) == 8 * 9 and {float(row["norm"]) for row in clients} >= {0.0, 1.0}
    # One model for all has no worst client; of a personalised method's three clients per task one is framed.
    assert sum(row["worst"] == "1" for row in clients if row["method"] == "fedavg") == 0
    assert 1 <= sum(row["worst"] == "1" for row in clients if row["method"] == "pilot") <= 3
    losses = [row for row in rows(loss_rows(source)) if row["method"] == "pilot" and row["loss"] == "cross-entropy"]
    places = sorted({(float(row["place"]), row["phase"]) for row in losses})
    assert places == [(0.5, "stage1"), (1.0, "stage2"), (2.0, "stage2"), (3.0, "stage2")]
    assert all(float(row["low"]) <= float(row["mean"]) <= float(row["high"]) for row in losses)
    router = rows(router_rows(source))
    assert len(router) == 3 * 9 * 3 and {row["method"] for row in router} == {"pilot"}
    for row in router:
        assert (row["own"] == "1") == (row["expert"] == row["client"].split()[0])
    neighbours = rows(neighbour_rows(source))
    assert len(neighbours) == 3 * 81 and sum(row["chosen"] == "1" for row in neighbours) == 3 * 9 * 3
    assert all((row["distance"] == "") == (row["client"] == row["other"]) for row in neighbours)


def test_samples_hold_every_answer_once(source: Source) -> None:
    samples = sample_browser(source)
    assert [len(task["examples"]) for task in samples["tasks"]] == [NUM_EXAMPLES] * 3
    vqa = samples["tasks"][0]
    place = {name: number for number, name in enumerate(samples["methods"])}
    runs = {run.label: run for run in source.runs if run.seed == 0}
    for example in vqa["examples"][:5]:
        for name, run in runs.items():
            scores = run.per_example["scene-vqa", "personalised", "exact_match"]
            expected = [scores[client][example["id"]] for client in (0, 1, 2)]
            found = example["scores"][place[name]]
            assert (found * 3 if len(found) == 1 else found) == expected
    ground = samples["tasks"][2]
    words = [samples["words"][number] for example in ground["examples"] for number in example["answers"][0]]
    boxes = [samples["boxes"][number] for example in ground["examples"] for number in example["answers"][0]]
    read = [(box, json.loads(text)) for box, text in zip(boxes, words, strict=True) if box is not None]
    assert len(read) >= NUM_EXAMPLES and all(box == text for box, text in read)
    few = sample_browser(source, per_task=4)["tasks"][0]
    assert len(few["examples"]) == 4 and few["total"] == NUM_EXAMPLES


@pytest.mark.slow
def test_equal_results_give_equal_bytes(page: str, scenario: Path) -> None:
    assert write_report(scenario).read_text(encoding="utf-8") == page


@pytest.mark.slow
def test_text_from_data_cannot_end_a_script(scenario_copy: Path) -> None:
    samples = scenario_copy / "runs/pilot/seed0/eval/samples.jsonl"
    evil = "</script><script>document.title='taken'</script>"
    lines = [json.loads(line) for line in samples.read_text().splitlines()]
    for line in lines:
        line["prediction"] = evil
    samples.write_text("".join(json.dumps(line) + "\n" for line in lines))
    reseal(samples.parents[1])
    page = write_report(scenario_copy).read_text(encoding="utf-8")
    assert evil not in page and evil in data(page, "samples")["words"]


@pytest.mark.slow
def test_methods_are_chosen_and_older_tables_are_refused(scenario_copy: Path) -> None:
    board = data(write_report(scenario_copy, ["pilot", "fedavg"]).read_text(encoding="utf-8"), "board")
    assert [row["method"] for row in board["rows"]] == ["pilot", "fedavg"]
    write_tables(scenario_copy, methods=["pilot", "fedavg"])
    with pytest.raises(UserError, match="no rows of fedprox.*Write the tables again: pilot-bench tables"):
        write_report(scenario_copy)
    (scenario_copy / "tables/leaderboard.json").unlink()
    with pytest.raises(UserError, match="leaderboard.json is missing. Write the tables first: pilot-bench tables"):
        write_report(scenario_copy, ["pilot"])


def test_without_data_partition_or_router_the_page_says_less(scenario_copy: Path) -> None:
    import shutil

    shutil.rmtree(scenario_copy / "data")
    shutil.rmtree(scenario_copy / "partition")
    page = write_report(scenario_copy, ["fedavg", "local", "untuned"]).read_text(encoding="utf-8")
    assert data(page, "samples")["tasks"] == []
    assert not {"router", "neighbours", "partition", "divergence"} & set(data(page, "charts"))
    links = Links()
    links.feed(page)
    assert "#exchange" not in links.addresses and "#partition" not in links.addresses
