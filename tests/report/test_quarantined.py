"""The footnote on rows that could not be used."""

from pathlib import Path

from pilot.io.atomic import write_json
from pilot.report.numbers.incidents import quarantine_notes
from pilot.report.numbers.load import load_runs
from pilot.report.numbers.summary import group_runs
from pilot.report.tables.write import write_tables

from .synthetic import build_scenario


def card(num_rows: int, *reasons: tuple[str, int]) -> dict[str, object]:
    """A data card as far as the footnote reads it."""
    return {"intake": {"quarantined": {"num_rows": num_rows, "by_reason": [list(reason) for reason in reasons]}}}


def test_footnote_names_tasks_counts_and_reasons(tmp_path: Path) -> None:
    scenario = build_scenario(tmp_path, ("pilot", "fedavg"), (0,))
    groups = group_runs(load_runs([scenario]))
    assert quarantine_notes(groups) == []  # no cards, as of runs whose data lie elsewhere
    reasons = [("image: gone", 5), ("box: no area", 3), ("answer: empty", 2), ("id: twice", 1), ("split: none", 1)]
    write_json(scenario / "data/scene-ground/card.json", card(12, *reasons))
    write_json(scenario / "data/scene-vqa/card.json", card(0))
    write_json(scenario / "data/scene-caption/card.json", {"task": "scene-caption"})  # a generated source
    note = (
        "Quarantined rows of scene-ground's source files, in no split: 12 (image: gone (5); box: no area (3); "
        "answer: empty (2); 2 other reasons)."
    )
    assert quarantine_notes(groups) == [note]
    write_tables(scenario)
    text = (scenario / "tables/main.md").read_text()
    assert text.count(f"- {note}\n") == 1
    write_json(scenario / "data/scene-ground/card.json", card(1, ("image: gone", 1)))
    assert quarantine_notes(groups)[0].endswith("in no split: 1 (image: gone (1)).")
