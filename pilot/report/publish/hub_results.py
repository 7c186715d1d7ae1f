"""Scores of clients' models as `.eval_results` of Hugging Face: one file for each client's model of a run.

The Hub shows them on the model's page and on the leaderboard of a benchmark, which is a data set on the Hub whose
`eval.yaml` names its tasks. A client's headline score on its own task's test set is such a result.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from pilot.errors import UserError
from pilot.io.atomic import write_text
from pilot.report.numbers.load import Run
from pilot.report.publish.about import About, chosen_clients, portable_name


def write_hub_results(runs: Sequence[Run], about: About, folder: Path, client: int | None = None) -> list[str]:
    """Write a file for each client's model of the runs, or for one client's; there are no notes.

    Raises:
        UserError: no benchmark is stated, a run has no such client, or a client's score is not available.
    """
    if about.benchmark is None:
        raise UserError(
            "hf-eval-results: field benchmark of the file of --about: expected the Hub's data set with the "
            "leaderboard, such as `benchmark: owner/name`. The Hub accepts scores for such data sets only."
        )
    for run in runs:
        for each in chosen_clients(run, client):
            name = portable_name(f"{run.scenario}-{run.label}-seed{run.seed}-client{each}")
            text = yaml.safe_dump(_results(run, each, about), sort_keys=False, allow_unicode=True, width=1000)
            write_text(folder / f"{name}.yaml", text)
    return []


def _results(run: Run, client: int, about: About) -> list[dict[str, Any]]:
    results = []
    for task in run.tasks:
        if client not in task.clients:
            continue
        value = next(
            (
                entry.value
                for entry in run.entries
                if (entry.task, entry.client, entry.metric, entry.protocol)
                == (task.name, client, task.metric, "personalised")
            ),
            None,
        )
        if value is None:
            raise UserError(
                f"{run.path}: no {task.metric} of client {client} on {task.name}. Evaluate the run again, or choose "
                "another client with --client."
            )
        source = {} if about.url is None else {"source": {"url": about.url, "name": "pilot-bench"}}
        results.append(
            {
                "dataset": {"id": about.benchmark, "task_id": task.name},
                "value": value,
                "date": about.date.isoformat(),
                **source,
                "notes": f"{task.metric}; {run.label}, seed {run.seed}, client {client}, {run.scenario} "
                f"({run.config['profile']}); test set {run.test_digest[:12]}",
            }
        )
    return results
