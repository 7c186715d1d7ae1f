"""`pilot-bench bench rivals`: the same federated task in this suite and in other simulators, in turn on one machine.

FedAvg over tiny-llava's LoRA and connector. A round's seconds are those from the end of one round's last local training
to the end of the next one's; the first round counts as start-up, which is reported until its first client has trained.
The overhead is what a round takes beside its optimiser steps (wall time, for sides that train one client at a time) or
beside its local trainings (CPU time, all processes, all sides). CPU times are comparable on a busy machine.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from pilot.bench.rivals.agreement import Agreement, compare_states
from pilot.bench.rivals.inputs import draw_schedule, repeat_clients, repeat_shards, run_config, sampled_profile
from pilot.bench.rivals.job import Job, Trained, read_log
from pilot.bench.rivals.process import Watch, run_watched
from pilot.bench.rivals.sides import OURS, Side, code_folder
from pilot.bench.scale.measure import machine
from pilot.config.profile import Profile
from pilot.config.scenario import Scenario
from pilot.errors import UserError

Advance = Callable[[int, int], None]


@dataclass(frozen=True)
class Sizes:
    """Sizes to measure.

    Attributes:
        repeats: how often every side runs at each size.
        factors: multiples of the scenario's number of clients.
        sampled: largest number of clients in a round.
        rounds: rounds of a run, at least 2, of which the first is not timed.
        workers: clients that may train at once, where a simulator can choose it.
        limit: seconds after which a run is given up.
    """

    repeats: int = 3
    factors: tuple[int, ...] = (1, 10, 100)
    sampled: int = 10
    rounds: int = 3
    workers: int = 1
    limit: float = 900.0


@dataclass(frozen=True)
class Measured:
    """One run of a side.

    Attributes:
        startup_seconds: from the start of the process until the first client has trained.
        startup_cpu_seconds: CPU time until then, without that training's.
        round_seconds: median time of the rounds after the first.
        overhead_seconds: median of a round's time beside its optimiser steps; negative where clients train at once.
        round_cpu_seconds: CPU time of a round after the first, all processes: the mean, since it is sampled.
        overhead_cpu_seconds: the part of it outside local training.
        peak_bytes: memory of all processes.
        seconds: wall time of the whole run.
        load: load average of the machine at the end of the run.
    """

    startup_seconds: float
    startup_cpu_seconds: float
    round_seconds: float
    overhead_seconds: float
    round_cpu_seconds: float
    overhead_cpu_seconds: float
    peak_bytes: int
    seconds: float
    load: float


def bench_rivals(
    scenario: Scenario, profile: Profile, scenario_dir: Path, sides: Sequence[Side], sizes: Sizes, advance: Advance
) -> dict[str, Any]:
    """Run all sides in turn at all sizes; return the report that `--json` prints.

    A side without an environment is skipped with its reason. A side that fails at a size is not run there again.

    Raises:
        UserError: data are missing, fewer than two rounds, or this suite or the plain loop failed.
    """
    if sizes.rounds < 2:
        raise UserError("bench rivals: --rounds: expected at least 2, because the first round is not timed.")
    skipped = {side.name: reason for side in sides if (reason := side.reason_to_skip())}
    present = [side for side in sides if side.name not in skipped]
    versions = {side.name: side.version() for side in present}
    total, done, rows = len(sizes.factors) * sizes.repeats * len(present), 0, []
    for factor in sizes.factors:
        with tempfile.TemporaryDirectory(prefix="rivals-") as name:
            many, folder = repeat_clients(scenario, factor), Path(name)
            repeat_shards(scenario, scenario_dir, factor, folder / "data")
            bench = _Bench(many, profile, folder, sizes)
            for repeat in range(sizes.repeats):
                for side in present[repeat % len(present) :] + present[: repeat % len(present)]:
                    bench.run(side)
                    done += 1
                    advance(done, total)
            rows.append(bench.row())
    return {
        "bench": "rivals", "machine": machine(), "scenario": scenario.name, "profile": profile.name,
        "settings": asdict(sizes) | {"local_steps": profile.local_steps, "batch_size": profile.batch_size},
        "versions": versions, "skipped": skipped, "sizes": rows,
    }  # fmt: skip


class _Bench:
    """The runs of all sides at one size."""

    def __init__(self, scenario: Scenario, profile: Profile, folder: Path, sizes: Sizes) -> None:
        self.folder, self.sizes, self.num_clients = folder, sizes, len(scenario.client_tasks)
        self.sampled = min(sizes.sampled, self.num_clients)
        config = run_config(scenario, sampled_profile(profile, self.num_clients, self.sampled, sizes.rounds))
        schedule = draw_schedule(config, self.num_clients)
        self.job = Job(config, str(folder / "data"), "", schedule, workers=sizes.workers)
        self.runs: dict[str, list[Measured]] = {}
        self.failed: dict[str, str] = {}
        self.agreement: dict[str, Agreement] = {}
        self.first: dict[str, Job] = {}

    def run(self, side: Side) -> None:
        """Run a side once; keep its measurements, and its first states."""
        if side.name in self.failed:
            return
        number = len(self.runs.setdefault(side.name, []))
        job = replace(self.job, folder=str(self.folder / f"{side.folder}-{number}"))
        try:
            watch = self._watch(side, job)
        except UserError as error:
            if not side.is_rival:
                raise
            self.failed[side.name] = str(error)
            return
        self.runs[side.name].append(measure(watch, read_log(job), len(job.schedule)))
        if number:
            shutil.rmtree(job.folder)
        else:
            self.first[side.name] = job

    def _watch(self, side: Side, job: Job) -> Watch:
        Path(job.folder).mkdir(exist_ok=True)
        return run_watched(side.command, job.save(), [code_folder() / "shared"], self.sizes.limit)

    def row(self) -> dict[str, Any]:
        """Compare the sides' states with ours, and summarise the size."""
        ours = self.first[OURS]
        for name, job in self.first.items():
            self.agreement[name] = compare_states(job, ours, lambda plain, again: self._watch(plain, again))
        return {
            "clients": self.num_clients, "sampled": self.sampled,
            "sides": {
                name: {**_medians(runs), "agreement": asdict(self.agreement[name]), "runs": list(map(asdict, runs))}
                for name, runs in self.runs.items() if runs
            },
            "failed": self.failed,
        }  # fmt: skip


def measure(watch: Watch, log: Sequence[Trained], rounds: int) -> Measured:
    """Compute a run's measurements from its processes and its log.

    Raises:
        UserError: a round has no local training in the log.
    """
    by_round = [[each for each in log if each.round == number] for number in range(1, rounds + 1)]
    if not all(by_round):
        raise UserError("bench rivals: a round without local training in the log. The side did not run its schedule.")
    ends = [max(each.ended for each in trained) for trained in by_round]
    spans = [after - before for before, after in zip(ends[:-1], ends[1:], strict=True)]
    beside = [
        span - sum(each.step_seconds for each in trained) for span, trained in zip(spans, by_round[1:], strict=True)
    ]
    first = min(log, key=lambda each: each.ended)
    cpu = (watch.cpu_seconds(ends[-1]) - watch.cpu_seconds(ends[0])) / len(spans)
    training = sum(each.cpu_seconds for trained in by_round[1:] for each in trained) / len(spans)
    return Measured(
        startup_seconds=first.ended - watch.began,
        startup_cpu_seconds=watch.cpu_seconds(first.ended) - first.cpu_seconds,
        round_seconds=median(spans),
        overhead_seconds=median(beside),
        round_cpu_seconds=cpu,
        overhead_cpu_seconds=cpu - training,
        peak_bytes=watch.peak_bytes,
        seconds=watch.seconds,
        load=os.getloadavg()[0],
    )


def _medians(runs: Sequence[Measured]) -> dict[str, float]:
    return {name: median(getattr(run, name) for run in runs) for name in Measured.__dataclass_fields__}
