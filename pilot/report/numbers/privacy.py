"""What audits of runs found, by method and profile, beside quality and bytes (`privacy.csv`, `privacy.md`)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from pilot.errors import UserError
from pilot.evaluation.audit.findings import OWN, Finding
from pilot.io.atomic import read_json
from pilot.io.layout import AUDIT, METRICS, evaluation_folder
from pilot.report.numbers.cost import mean_of_known
from pilot.report.numbers.files import discover
from pilot.report.numbers.load import load_runs
from pilot.report.numbers.order import method_key
from pilot.report.numbers.summary import Group, group_runs, values_by_seed_and_client

Key = tuple[str, str, str, str]
"""Attack, setting, observation and metric."""
COMPLETED = "completed"


@dataclass(frozen=True)
class Audited:
    """The audited runs of a method with a profile, one per seed.

    Attributes:
        epsilon: of a client's messages together (add-or-remove-one); None without noise.
        megabytes: sent by all clients in the whole run, mean over seeds; None if not recorded.
        quality: each task's headline metric, mean over clients and evaluated seeds; empty if none is evaluated.
        findings: of each seed.
    """

    profile: str
    method: str
    seeds: tuple[int, ...]
    epsilon: float | None
    megabytes: float | None
    quality: Mapping[str, float | None]
    findings: tuple[tuple[Finding, ...], ...]


@dataclass(frozen=True)
class PrivacyRow:
    """One line of `privacy.csv`: the mean over seeds, with the widest ends of their intervals.

    `status` is that of the first seed that is not `completed`, and there is no value then.
    """

    scenario: str
    profile: str
    method: str
    epsilon: float | None
    attack: str
    setting: str
    observation: str
    metric: str
    num_seeds: int
    value: float | None
    low: float | None
    high: float | None
    chance: float | None
    status: str
    reason: str


def load_audits(folders: Sequence[Path]) -> tuple[str, list[Audited]]:
    """Load the audited runs of scenario folders; return the scenario's name too.

    Raises:
        UserError: there is no audited run, the folders are of several scenarios, or a file is damaged.
    """
    found: dict[tuple[int, str, str], list[Path]] = {}
    names = set()
    for place, folder in enumerate(folders):
        for run in discover(folder):
            if (run / AUDIT / "findings.json").is_file():
                config = read_json(run / "config.json", {"scenario": str, "profile": str, "method": str, "seed": int})
                names.add(config["scenario"])
                found.setdefault((place, config["profile"], config["method"]), []).append(run)
    if not found:
        raise UserError(f"{folders[0]}: no audited runs. Run `pilot-bench audit` on some whose messages were kept.")
    if len(names) > 1:
        raise UserError(f"folders of several scenarios: {', '.join(sorted(names))}. Give folders of one.")
    order = sorted(found, key=lambda key: (method_key(key[2]), key[0]))
    return names.pop(), [_audited(profile, method, found[place, profile, method]) for place, profile, method in order]


def privacy_rows(scenario: str, audits: Sequence[Audited]) -> list[PrivacyRow]:
    """Return the lines of `privacy.csv`."""
    return [
        _row(scenario, each, key)
        for each in audits
        for key in dict.fromkeys(_key(finding) for seed in each.findings for finding in seed)
    ]


def row_of(
    rows: Sequence[PrivacyRow], audit: Audited, attack: str, setting: str, observation: str = OWN
) -> PrivacyRow | None:
    """Return the first row of an attack in a setting, or in the first phase of a round.

    A setting that ends in `*` stands for the last one that begins so.
    """
    own = [row for row in rows if (row.method, row.profile, row.attack) == (audit.method, audit.profile, attack)]
    names = [row.setting for row in own]
    if setting.endswith("*"):
        setting = next((name for name in reversed(names) if name.startswith(setting[:-1])), setting)
    elif setting not in names:
        setting = next((name for name in names if name.startswith(f"{setting},")), setting)
    return next((row for row in own if (row.setting, row.observation) == (setting, observation)), None)


def scaled(row: PrivacyRow | None) -> float | None:
    """Scale a value: 0 is what guessing reaches, 1 the most that the metric can be; None without a value or chance."""
    if row is None or row.value is None or row.chance is None:
        return None
    most = math.log2(100) if row.metric == "exposure" else 1.0
    return (row.value - row.chance) / (most - row.chance)


def _audited(profile: str, method: str, runs: Sequence[Path]) -> Audited:
    names = [field.name for field in fields(Finding)]
    findings, epsilons, seeds = [], [], []
    for run in sorted(runs, key=lambda path: int(path.name.removeprefix("seed"))):
        rows = read_json(run / AUDIT / "findings.json", {"findings": list})["findings"]
        findings.append(tuple(Finding(**{name: row[name] for name in names}) for row in rows))
        private = run / "privacy.json"
        epsilons.append(read_json(private)["epsilon"]["add-or-remove-one"] if private.is_file() else None)
        seeds.append(int(run.name.removeprefix("seed")))
    sent = [read_json(run / "ledger.json", {"totals": dict})["totals"].get("bytes_up") for run in runs]
    megabytes = mean_of_known([None if each is None else each / 1e6 for each in sent])
    return Audited(profile, method, tuple(seeds), mean_of_known(epsilons), megabytes, _quality(runs), tuple(findings))


def _quality(runs: Sequence[Path]) -> dict[str, float | None]:
    """Return each task's headline metric, mean over the runs that are evaluated; nothing if none is."""
    evaluated = [run for run in runs if (evaluation_folder(run) / METRICS).is_file()]
    if not evaluated:
        return {}
    (group,) = group_runs(load_runs(evaluated))
    return {task.name: _mean(group, task.name, task.metric) for task in group.tasks}


def _mean(group: Group, task: str, metric: str) -> float | None:
    values = values_by_seed_and_client(group, task, metric, "personalised")
    return None if values is None else float(values.mean())


def _key(finding: Finding) -> Key:
    return finding.attack, finding.setting, finding.observation, finding.metric


def _row(scenario: str, audit: Audited, key: Key) -> PrivacyRow:
    found = [finding for seed in audit.findings for finding in seed if _key(finding) == key]
    first = (scenario, audit.profile, audit.method, audit.epsilon, *key, len(found))
    failed = next((each for each in found if each.status != COMPLETED), None)
    if failed is not None:
        return PrivacyRow(*first, None, None, None, None, failed.status, failed.reason)
    low = min(each.low for each in found if each.low is not None)
    high = max(each.high for each in found if each.high is not None)
    value, chance = mean_of_known([each.value for each in found]), mean_of_known([each.chance for each in found])
    return PrivacyRow(*first, value, low, high, chance, COMPLETED, "")
