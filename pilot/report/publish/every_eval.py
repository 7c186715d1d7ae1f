"""Records of Every Eval Ever, schema 0.3.0: one file for each run, and one line for each example, client and metric.

A record holds the scores of all clients' models after the last round, on their tasks' test sets and on held-out parts
of their own data. Metrics that were not available are left out, since the schema has no place for them.
"""

import datetime
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pilot.data.manifest import checked_records
from pilot.data.tables import read_table
from pilot.evaluation.metrics import METRICS, PARSE_FAILURES, metric_bounds
from pilot.io.atomic import damaged, read_json, read_jsonl, write_json, write_jsonl
from pilot.io.digest import digest_json, sha256_file
from pilot.io.layout import PER_EXAMPLE, SAMPLES, evaluation_folder
from pilot.report.numbers.files import PER_EXAMPLE_FIELDS, read_samples
from pilot.report.numbers.load import Entry, Run
from pilot.report.publish.about import About, chosen_clients, portable_name

VERSION = "0.3.0"
NOT_STATED = "not-stated"
_COLLECTION = "pilot-bench"


def write_records(runs: Sequence[Run], about: About, folder: Path, client: int | None = None) -> list[str]:
    """Write the records of runs below `folder`, at the paths that the datastore of Every Eval Ever prescribes.

    With `client`, they hold the scores of that client's model alone.

    Returns:
        Notes on what is not stated.

    Raises:
        UserError: answers, scores or questions of a run are missing or damaged.
    """
    for run in runs:
        _write_run(run, about, folder, client)
    return ["author: not stated, add to the file of --about: records name no organisation"] if not about.author else []


def _write_run(run: Run, about: About, folder: Path, client: int | None) -> None:
    clients = chosen_clients(run, client)
    manifest = read_json(run.path / "manifest.json", {"files": dict})
    developer = (portable_name(about.author.name) if about.author else "") or NOT_STATED
    name = f"{run.label}, {run.scenario} ({run.config['profile']}), seed {run.seed}"
    name += "" if client is None else f", client {client}"
    model = portable_name(name)
    day = datetime.datetime.combine(about.date, datetime.time(), datetime.UTC)
    record: dict[str, Any] = {
        "schema_version": VERSION,
        "evaluation_id": f"{_COLLECTION}/{developer}/{model}/{int(day.timestamp())}",
        "retrieved_timestamp": str(int(day.timestamp())),
        "source_metadata": {
            "source_name": _COLLECTION,
            "source_type": "evaluation_run",
            "source_organization_name": about.author.name if about.author else NOT_STATED,
            "evaluator_relationship": "other" if run.imported else "first_party",
        },
        "eval_library": {"name": _COLLECTION, "version": manifest.get("versions", {}).get(_COLLECTION, "unknown")},
        "model_info": _model_info(run, name, developer, model),
        "evaluation_results": [
            _result(run, entry) for entry in run.entries if entry.value is not None and entry.client in clients
        ],
    }
    lines = list(_lines(run, record, clients))
    unique = str(uuid.UUID(bytes=bytes.fromhex(digest_json([record, lines]))[:16], version=4))
    path = Path("data", _COLLECTION, developer, model, f"{unique}_samples.jsonl")
    write_jsonl(folder / path, lines)
    record["detailed_evaluation_results"] = {
        "format": "jsonl",
        "file_path": path.as_posix(),
        "hash_algorithm": "sha256",
        "checksum": sha256_file(folder / path),
        "total_rows": len(lines),
    }
    write_json(folder / path.with_name(f"{unique}.json"), record)


def _model_info(run: Run, name: str, developer: str, model: str) -> dict[str, Any]:
    config = run.config
    details = {
        "method": config["method"],
        "scenario": run.scenario,
        "profile": config["profile"],
        "seed": run.seed,
        "backbone": config.get("profile_config", {}).get("backbone"),
        "rounds": config["budget"].get("rounds"),
        "num_clients": len({client for task in run.tasks for client in task.clients}),
        "models": "one for all clients" if config.get("one_model") else "each client may have its own",
        **{f"digest_{name}": digest for name, digest in config["digests"].items()},
        "digest_test_set": run.test_digest,
    }
    return {
        "name": name,
        "id": f"{developer}/{model}",
        "developer": developer,
        "additional_details": {
            "deployment_type": "self_deployed",
            "model_availability": "unknown",
            **{name: str(value) for name, value in details.items() if value is not None},
        },
    }


def _result(run: Run, entry: Entry) -> dict[str, Any]:
    low, high = metric_bounds(entry.metric)
    template = run.config["hyperparameters"].get("prompt_template")
    return {
        "evaluation_result_id": _result_id(entry.task, entry.protocol, entry.client, entry.metric),
        "evaluation_name": f"{entry.task}/{entry.protocol}",
        "source_data": {"dataset_name": entry.task, "source_type": "other"},
        "metric_config": {
            **({"evaluation_description": METRICS[entry.metric].summary} if entry.metric in METRICS else {}),
            "metric_id": entry.metric,
            "metric_name": entry.metric,
            "lower_is_better": entry.metric == PARSE_FAILURES,
            "score_type": "continuous",
            "min_score": low,
            "max_score": high,
        },
        "score_details": {
            "score": entry.value,
            "details": {"client": str(entry.client), "protocol": entry.protocol, "kind": entry.kind},
            "uncertainty": {"num_samples": entry.num_examples},
        },
        **({"generation_config": {"generation_args": {"prompt_template": template}}} if template else {}),
    }


def _lines(run: Run, record: dict[str, Any], clients: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Yield a line for each score of an example, in the order of `per_example.jsonl`."""
    questions = {task.name: _questions(run, task.name) for task in run.tasks}
    answers = {
        (row["task"], row["protocol"], row["id"], client): row
        for row in read_samples(run.path)
        for client in row["clients"]
    }
    folder = evaluation_folder(run.path)
    for number, score in enumerate(read_jsonl(folder / PER_EXAMPLE, PER_EXAMPLE_FIELDS), start=1):
        if score["value"] is None or score["client"] not in clients:
            continue
        answer = answers.get((score["task"], score["protocol"], score["id"], score["client"]))
        if answer is None:
            problem = f"no answer of client {score['client']} for {score['id']!r}, line {number} of {PER_EXAMPLE}"
            raise damaged(folder / SAMPLES, problem)
        given = {"raw": questions[score["task"]][score["id"]], "reference": answer["references"]}
        yield {
            "schema_version": VERSION,
            "evaluation_id": record["evaluation_id"],
            "model_id": record["model_info"]["id"],
            "evaluation_name": f"{score['task']}/{score['protocol']}",
            "evaluation_result_id": _result_id(score["task"], score["protocol"], score["client"], score["metric"]),
            "sample_id": score["id"],
            "sample_hash": digest_json(given),
            "interaction_type": "single_turn",
            "input": given,
            "output": {"raw": [answer["prediction"]]},
            "answer_attribution": [_WHOLE | {"extracted_value": answer["prediction"]}],
            "evaluation": {
                "score": score["value"],
                "is_correct": _is_correct(score["metric"], score["value"]),
            },
            "metadata": {str(name): str(value) for name, value in answer.get("attributes", {}).items()},
        }


_WHOLE = {"turn_idx": 0, "source": "output.raw", "extraction_method": "whole answer", "is_terminal": True}


def _is_correct(metric: str, value: float) -> bool:
    """Tell whether a score is the metric's best: graded metrics have no other limit between right and wrong."""
    low, high = metric_bounds(metric)
    return value <= low if metric == PARSE_FAILURES else value >= high


def _questions(run: Run, task: str) -> dict[str, str]:
    table = read_table(checked_records(run.scenario_dir / "data", task), ["id", "instruction"])
    return dict(zip(table["id"].to_pylist(), table["instruction"].to_pylist(), strict=True))


def _result_id(task: str, protocol: str, client: int, metric: str) -> str:
    return f"{task}/{protocol}/client-{client}/{metric}"
