"""Incidents of a run: quarantined rows, absent clients, excluded updates, skipped rounds."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from pilot.io.atomic import damaged, read_json
from pilot.report.numbers.load import Run
from pilot.report.numbers.summary import Group

NUM_REASONS = 3


def excluded_updates(run: Run) -> int:
    """Count the updates that the server excluded: one per client and phase."""
    return sum(len(row["excluded"]) for row in run.rounds)


def skipped_rounds(run: Run) -> list[int]:
    """Return the rounds in which a phase was skipped because there were fewer usable updates than the quorum."""
    return sorted({row["round"] for row in run.rounds if row["skipped"]})


def absences(run: Run) -> int:
    """Count the cases (one per round and client) in which a selected client dropped out or was too late."""
    return len(
        {
            (row["round"], client)
            for row in run.rounds
            for why in ("dropped", "late")
            for client in row.get("participation", {}).get(why, ())
        }
    )


def exclusions(run: Run) -> list[str]:
    """Return `client 1 in rounds 1-3 (reason)` for each client and reason, sorted."""
    found: dict[tuple[int, str], set[int]] = defaultdict(set)
    for row in run.rounds:
        for update in row["excluded"]:
            found[update["client"], update["reason"]].add(row["round"])
    return [
        f"client {client} in {format_rounds(rounds)} ({reason})" for (client, reason), rounds in sorted(found.items())
    ]


def incident_notes(groups: Sequence[Group]) -> list[str]:
    """Return a line for each run with excluded updates or skipped rounds, and each method of several code versions."""
    runs = [(f"{group.label}, seed {run.seed}", run) for group in groups for run in group.runs]
    notes = [f"Excluded updates of {name}: {'; '.join(lines)}." for name, run in runs if (lines := exclusions(run))]
    skipped = [
        f"Skipped by {name} (fewer usable updates than the quorum, so nothing changed): {format_rounds(rounds)}."
        for name, run in runs
        if (rounds := skipped_rounds(run))
    ]
    return notes + skipped + [note for group in groups if (note := _version_note(group))]


def _version_note(group: Group) -> str:
    """Name the seeds by the digest of the source that trained them; empty if there is one, or none is known."""
    seeds: dict[str, list[int]] = defaultdict(list)
    for run in group.runs:
        seeds[str(run.config["digests"].get("source", "unknown"))[:8]].append(run.seed)
    if len(seeds) < 2:
        return ""
    texts = [f"{', '.join(map(str, own))} ({digest})" for digest, own in seeds.items()]
    return f"Seeds of {group.label} are of several versions of the code (digest of its source): {'; '.join(texts)}."


def format_rounds(rounds: Iterable[int]) -> str:
    """Format round numbers: `round 3`, or `rounds 1-3, 5`."""
    spans: list[list[int]] = []
    for number in sorted(rounds):
        if spans and spans[-1][-1] == number - 1:
            spans[-1].append(number)
        else:
            spans.append([number])
    texts = [str(span[0]) if len(span) == 1 else f"{span[0]}-{span[-1]}" for span in spans]
    return f"round{'s' if sum(map(len, spans)) > 1 else ''} {', '.join(texts)}"


def quarantine_notes(groups: Sequence[Group]) -> list[str]:
    """Return a line for each task with quarantined rows of source files, in the order of the tasks."""
    places = [(group.runs[0].scenario_dir, task.name) for group in groups for task in group.tasks]
    notes = [_quarantine_note(folder / "data" / task / "card.json", task) for folder, task in dict.fromkeys(places)]
    return [note for note in notes if note]


def _quarantine_note(path: Path, task: str) -> str:
    """Describe the quarantined rows of a task; empty if there are none or the data folder is not there."""
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
