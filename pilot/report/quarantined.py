"""Rows of the source files that no run has seen, for the tables' footnotes."""

from collections.abc import Sequence
from pathlib import Path

from pilot.io.atomic import damaged, read_json
from pilot.report.summary import Group

NUM_REASONS = 3


def quarantine_notes(groups: Sequence[Group]) -> list[str]:
    """A line for each task that was read from files of which some rows could not be used, in the tasks' order."""
    places = [(group.runs[0].scenario_dir, task.name) for group in groups for task in group.tasks]
    notes = [_note(folder / "data" / task / "card.json", task) for folder, task in dict.fromkeys(places)]
    return [note for note in notes if note]


def _note(path: Path, task: str) -> str:
    """Empty where nothing was quarantined, or the data lie elsewhere by now."""
    if not path.is_file():
        return ""
    try:
        account = read_json(path, {}).get("intake", {}).get("quarantined", {"num_rows": 0, "by_reason": []})
        reasons = [f"{reason} ({count})" for reason, count in account["by_reason"]]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise damaged(path, f"field intake: {error!r}") from error
    if not account["num_rows"]:
        return ""
    more = f"; {len(reasons) - NUM_REASONS} other reasons" if len(reasons) > NUM_REASONS else ""
    return (
        f"Quarantined rows of {task}'s source files, in no split: {account['num_rows']} "
        f"({'; '.join(reasons[:NUM_REASONS])}{more})."
    )
