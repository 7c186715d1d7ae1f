"""`pilot-bench bench pipeline`: a whole scenario through Snakemake, compared with its jobs alone on fully used cores.

The wall time of all jobs, one thread each, divided by the number of cores, is the scenario's time if no core were ever
idle and nothing but the jobs took time. It comes from Snakemake's `benchmark` files, whose CPU time is sampled and
lacks a job's computation after its last sample; the total CPU time comes from the operating system.
"""

import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from csv import DictReader
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pilot.bench.kernels.references import repository_root
from pilot.bench.scale.measure import machine
from pilot.errors import UserError


@dataclass(frozen=True)
class Rule:
    """Summary of the jobs of one rule.

    Attributes:
        name: name of the rule.
        num_jobs: number of finished jobs.
        seconds: total wall time of the jobs.
        cpu_seconds: total CPU time of the jobs, as Snakemake sampled it: a lower bound.
        longest_seconds: wall time of the longest job.
        memory_mb: largest resident memory of a job, in MB.
    """

    name: str
    num_jobs: int
    seconds: float
    cpu_seconds: float
    longest_seconds: float
    memory_mb: float


def bench_pipeline(scenario: str, profile: str, cores: int, results: Path) -> dict[str, Any]:
    """Run a scenario's target from scratch and account for its time.

    Args:
        scenario: name of the scenario, which is its Snakemake target.
        profile: name of the profile.
        cores: number of cores for Snakemake.
        results: a folder in which `<profile>/<scenario>` does not exist yet; it is not removed afterwards.

    Raises:
        UserError: that folder exists, there is no Snakefile, or the pipeline failed.
    """
    root, results = repository_root(), results.resolve()
    folder = results / profile / scenario
    if folder.exists():
        raise UserError(
            f"{folder}: exists already, but only a run from scratch is measured. Choose another --results folder."
        )
    command = [
        sys.executable, "-m", "snakemake", "--cores", str(cores), scenario, "--config", f"results={results}",
        f"profile={profile}",
    ]  # fmt: skip
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise UserError(f"{' '.join(command)}: failed, last line: {(done.stderr.strip() or 'none').splitlines()[-1]}")
    cpu_seconds = (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)
    dry = subprocess.run([*command, "--dry-run"], cwd=root, capture_output=True, text=True, check=False)
    rules = read_rules(folder / "benchmarks")
    return {
        "bench": "pipeline",
        "machine": machine(),
        "settings": {"scenario": scenario, "profile": profile, "cores": cores},
        "rules": [asdict(rule) for rule in rules],
        "nothing_left_to_do": "Nothing to be done" in dry.stdout + dry.stderr,
    } | summarise_times(seconds, cpu_seconds, cores, rules)


def summarise_times(seconds: float, cpu_seconds: float, cores: int, rules: Sequence[Rule]) -> dict[str, float]:
    """Return wall and CPU seconds, the used share of the cores' time, the floor, and the run's ratio to the floor."""
    floor = sum(rule.seconds for rule in rules) / cores
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "busy_share": cpu_seconds / (cores * seconds),
        "floor_seconds": floor,
        "ratio": seconds / floor,
    }


def read_rules(folder: Path) -> list[Rule]:
    """Summarise the `benchmark` files of a scenario by rule, the rule with the most CPU time first.

    Files are named `<rule>.tsv` or `<rule>-<wildcards>.tsv`.
    """
    jobs: dict[str, list[dict[str, str]]] = {}
    for path in sorted(folder.glob("*.tsv")):
        with path.open(encoding="utf-8") as file:
            jobs.setdefault(path.stem.split("-")[0], []).extend(DictReader(file, delimiter="\t"))
    rules = [
        Rule(
            name,
            len(rows),
            sum(_number(row["s"]) for row in rows),
            sum(_number(row["cpu_time"]) for row in rows),
            max(_number(row["s"]) for row in rows),
            max(_number(row["max_rss"]) for row in rows),
        )
        for name, rows in jobs.items()
    ]
    return sorted(rules, key=lambda rule: -rule.cpu_seconds)


def as_text(report: Mapping[str, Any]) -> str:
    """Format the rules as a table with the totals below it."""
    lines = [f"{'rule':<12} {'jobs':>5} {'wall s':>8} {'CPU s':>8} {'longest s':>10} {'MB':>6}"]
    for rule in report["rules"]:
        lines.append(
            f"{rule['name']:<12} {rule['num_jobs']:>5} {rule['seconds']:>8.1f} {rule['cpu_seconds']:>8.1f} "
            f"{rule['longest_seconds']:>10.1f} {rule['memory_mb']:>6.0f}"
        )
    lines.append("CPU s: as Snakemake sampled it, a lower bound")
    cores = report["settings"]["cores"]
    lines += [
        f"whole scenario: {report['seconds']:.1f} s; CPU time {report['cpu_seconds']:.1f} s on {cores} cores, "
        f"{report['busy_share']:.1%} of their time",
        f"jobs alone, without idle cores: {report['floor_seconds']:.1f} s; ratio {report['ratio']:.3f}",
        "dry run afterwards: " + ("nothing to do" if report["nothing_left_to_do"] else "JOBS REMAIN"),
    ]
    for name in ("settings", "machine"):
        lines.append(f"{name}: " + ", ".join(f"{key} {value}" for key, value in report[name].items()))
    return "\n".join(lines)


def _number(text: str) -> float:
    """Parse a number of a benchmark file; return 0 if the job was too short to be sampled."""
    return 0.0 if text in ("-", "NA") else float(text)
