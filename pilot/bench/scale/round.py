"""`pilot-bench bench round`: rounds in this process and through Flower's simulation (Ray), and a round's overhead.

The overhead is the time of rounds after the first without their optimiser steps: in round 1 clients also tokenise their
examples. Both engines run the same client and server code and must end with the same server states. A round's seconds
are measured from the end of one round's training to the end of the next one's, so they include aggregation, checkpoint
and all files. Start-up lasts until the first client has trained its first phase: loading the backbone and tokenising,
and for Flower also starting Ray and its workers. Neither includes imports or writing the nodes' folders, which is done
once.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from pilot.bench.scale.measure import machine
from pilot.config.federation import ParticipationConfig
from pilot.config.load import load_profile, load_scenario
from pilot.config.variant import base_name, check_methods
from pilot.errors import UserError
from pilot.federation.nodes import prepare_nodes
from pilot.federation.spec import RunSpec
from pilot.federation.training import train_run
from pilot.io.atomic import read_json
from pilot.io.digest import sha256_file
from pilot.methods.catalogue import METHODS
from pilot.registry import make_method

Advance = Callable[[int, int], None]
INPUT_FOLDERS = ("data", "partition", "features")
ROUND_PARTS = ("train_seconds", "exchange_seconds", "aggregate_seconds", "checkpoint_seconds")


@dataclass(frozen=True)
class Run:
    """Measurements of one run with one engine.

    Attributes:
        startup_seconds: time until the first client has trained.
        round_seconds: median time of the rounds after the first.
        overhead: 1 - step seconds / seconds of the rounds, over those after the first.
        server: sha256 of the last server state.
    """

    startup_seconds: float
    round_seconds: float
    overhead: float
    server: str


def load_specs(
    scenario: str, profile: str, methods: Sequence[str], compared: str, rounds: int
) -> tuple[list[RunSpec], RunSpec | None]:
    """Load the runs for `bench_round` (seed 0, `rounds` rounds): `methods`, by default the scenario's, and `compared`.

    Raises:
        UserError: a name is unknown.
    """
    only = {"rounds": rounds, "evaluate_every": None}  # evaluated rounds would keep checkpoints that are not timed
    loaded, sizes = load_scenario(scenario), load_profile(profile).model_copy(update=only)
    trainable = [name for name in METHODS if make_method(name, {}).phases(1)]
    names = list(methods) or [name for name in loaded.methods if base_name(name) in trainable]
    check_methods("command line", "--method", names, trainable)
    check_methods("command line", "--compared", [compared] if compared else [], trainable)
    specs = {name: RunSpec(loaded, sizes, name, 0) for name in [*names, *([compared] if compared else [])]}
    return [specs[name] for name in names], specs.get(compared)


def bench_round(
    specs: Sequence[RunSpec], compared: RunSpec | None, scenario_dir: Path, repeats: int, advance: Advance
) -> dict[str, Any]:
    """Run all specifications with all engines in turn; return the report that `--json` prints.

    Args:
        specs: runs in this process whose overhead is measured, in turn.
        compared: the run that both engines execute, in turn; None for no comparison.
        scenario_dir: folder with data, partition and features; nothing is written there.
        repeats: number of repetitions of every run.
        advance: called with the finished and total numbers of runs.

    Raises:
        UserError: fewer than two rounds, so that none is left to be measured; rounds of unequal work; data, partition
            or features are missing.
    """
    if min(spec.profile.rounds for spec in specs) < 2:
        raise UserError("bench round: --rounds: expected at least 2, because the first round is not measured.")
    profile = specs[0].profile
    if profile.federation.participation != ParticipationConfig():
        raise UserError(
            f"bench round: profile {profile.name}: field federation.participation: expected none, because rounds of "
            "other clients take other times. Choose a profile in which every client takes part in every round."
        )
    total, done = repeats * (len(specs) + (2 if compared else 0)), 0
    own: dict[str, list[Run]] = {spec.method: [] for spec in specs}
    engines: dict[str, list[Run]] = {"local": [], "flower": []} if compared else {}
    with tempfile.TemporaryDirectory() as name:
        folder = _link_inputs(scenario_dir, Path(name))
        if compared:
            prepare_nodes(compared.scenario, folder, folder / "nodes")
        for repeat in range(repeats):
            turns = [*((own[spec.method], spec, "local") for spec in specs)]
            turns += [(runs, compared, engine) for engine, runs in engines.items() if compared]
            for runs, spec, engine in turns:
                runs.append(_run(spec, folder, folder / "runs" / str(repeat) / engine / spec.method, engine))
                done += 1
                advance(done, total)
    return {
        "machine": machine(), "scenario": specs[0].scenario.name, "profile": specs[0].profile.name,
        "rounds": specs[0].profile.rounds, "repeats": repeats,
        "overhead": {method: _summary(runs) for method, runs in own.items()},
        "engines": _compare_engines(compared.method, engines) if compared else None,
    }  # fmt: skip


def as_text(report: dict[str, Any]) -> str:
    """Format the report as text."""
    lines = [
        f"{report['scenario']}, profile {report['profile']}: {report['rounds']} rounds, {report['repeats']} repeats; "
        "medians, minimum to maximum in brackets",
        f"{'method':<10} {'round s':>22} {'overhead, ms per round':>27} {'share':>8}",
    ]
    for method, row in report["overhead"].items():
        lines.append(
            f"{method:<10} {_spread(row['round_seconds']):>22} {1000 * row['overhead_seconds']:>27.1f} "
            f"{row['overhead']['median']:>8.2%}"
        )
    engines = report["engines"]
    if engines:
        lines += ["", f"{'engine':<10} {'start-up s':>22} {'round s':>22}   ({engines['method']})"]
        lines += [
            f"{name:<10} {_spread(engines[name]['startup_seconds']):>22} {_spread(engines[name]['round_seconds']):>22}"
            for name in ("local", "flower")
        ]
        same = "equal" if engines["server_states_equal"] else "NOT EQUAL"
        lines.append(f"round time, Flower / local: {engines['ratio']:.2f}; server states: {same}")
    return "\n".join([*lines, "", "machine: " + ", ".join(f"{k} {v}" for k, v in report["machine"].items())])


def _link_inputs(scenario_dir: Path, folder: Path) -> Path:
    """Link the scenario's files into a folder in which runs can be written."""
    for name in INPUT_FOLDERS:
        if not (scenario_dir / name).is_dir():
            raise UserError(f"{scenario_dir / name}: missing. Choose a folder with data, partition and features.")
        (folder / name).symlink_to((scenario_dir / name).resolve())
    return folder


def _run(spec: RunSpec, folder: Path, run_dir: Path, engine: str) -> Run:
    first: list[float] = []
    stamps: list[float] = []
    start: dict[str, float] = {}  # times of round 1, in which clients also tokenise their examples

    def note(done: int, of: int) -> None:
        if not first:
            first.append(time.perf_counter())
        if done * spec.profile.rounds % of == 0:
            stamps.append(time.perf_counter())
            if len(stamps) == 2:
                start.update(read_json(run_dir / "timing.json"))

    began = time.perf_counter()
    if engine == "flower":
        from pilot.federation.flower.server import simulate_run

        simulate_run(spec, folder, run_dir, False, note)
    else:
        train_run(spec, folder, run_dir, False, note)
    end = read_json(run_dir / "timing.json")
    steps, *others = (end[name] - start[name] for name in ("step_seconds", *ROUND_PARTS))
    each = median(b - a for a, b in pairwise(stamps))
    server = sha256_file(run_dir / "checkpoint" / f"round-{spec.profile.rounds}" / "server.safetensors")
    return Run(first[0] - began, each, 1 - steps / sum(others), server)


def _summary(runs: Sequence[Run]) -> dict[str, Any]:
    each, shares = [run.round_seconds for run in runs], [run.overhead for run in runs]
    return {
        "round_seconds": _distribution(each), "startup_seconds": _distribution([run.startup_seconds for run in runs]),
        "overhead": _distribution(shares), "overhead_seconds": median(a * b for a, b in zip(each, shares, strict=True)),
    }  # fmt: skip


def _compare_engines(method: str, engines: dict[str, list[Run]]) -> dict[str, Any]:
    """Summarise rounds and start-ups of both engines; `ratio` is the median of the pairs' ratios."""
    pairs = zip(engines["flower"], engines["local"], strict=True)
    states = {run.server for runs in engines.values() for run in runs}
    return {
        "method": method,
        **{
            name: {
                "round_seconds": _distribution([run.round_seconds for run in runs]),
                "startup_seconds": _distribution([run.startup_seconds for run in runs]),
            }
            for name, runs in engines.items()
        },
        "ratio": median(flower.round_seconds / local.round_seconds for flower, local in pairs),
        "server_states_equal": len(states) == 1,
    }


def _distribution(values: Sequence[float]) -> dict[str, Any]:
    return {"median": median(values), "least": min(values), "most": max(values), "all": list(values)}


def _spread(values: dict[str, Any]) -> str:
    return f"{values['median']:.2f} [{values['least']:.2f}, {values['most']:.2f}]"
