"""`pilot-bench bench scaling`: cost of the pipeline as the number of rounds, clients or examples grows, one at a time.

Scenes of the shipped kind, the shipped backbone, one thread. Over rounds and clients, every client takes the same few
steps; over examples, a client trains for one epoch, and all other parts that read examples are timed as well. Training
is timed from the plan of the first round to the last file of the run, without loading and tokenising.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pilot.backbone.backbone import Backbone
from pilot.backbone.feature_files import FeatureCache, open_features
from pilot.backbone.features import compute_features
from pilot.backbone.from_profile import load_backbone
from pilot.bench.scale.measure import Cost, machine, measure_cost, slope
from pilot.config.load import load_profile, load_scenario
from pilot.config.profile import Profile
from pilot.config.scenario import PartitionConfig, Scenario
from pilot.data.build import build_data
from pilot.data.conditions import scenario_images
from pilot.data.partition import partition_data
from pilot.evaluation.answers import answer_run
from pilot.federation.assemble import make_participants
from pilot.federation.nodes import Register
from pilot.federation.shards import Example, load_examples
from pilot.federation.spec import RunSpec, scenario_digests
from pilot.federation.training import CLIENTS, ServerRun, run_server
from pilot.federation.transport import LocalTransport
from pilot.io.layout import run_folder

Advance = Callable[[int, int], None]
NAME = "scaling"
METHODS = ("fedavg", "pilot")
DIMENSIONS = ("rounds", "clients", "examples")


@dataclass(frozen=True)
class Sizes:
    """Sizes to measure.

    Attributes:
        factors: multiples of the smallest size, ascending from 1.
        rounds, clients, examples: smallest numbers of rounds, clients per task, and training examples per client.
        tests: test records per task at the smallest number of examples.
        steps: steps of a client per round when rounds or clients grow.
        batch: examples per step.
    """

    factors: tuple[int, ...] = (1, 2, 4, 8, 16)
    rounds: int = 2
    clients: int = 1
    examples: int = 40
    tests: int = 24
    steps: int = 4
    batch: int = 8


QUICK = Sizes(factors=(1, 2), rounds=1, examples=12, tests=4, steps=2, batch=4)
"""Sizes that take seconds: a smoke test, not a measurement."""


def bench_scaling(sizes: Sizes, advance: Advance) -> dict[str, Any]:
    """Measure all dimensions; return the content of `results/bench/scaling.json`.

    Each dimension has rows of `factor` and `parts`, each part with wall and CPU seconds, and fits per part: the
    exponent of CPU seconds over the factor, for all factors and between the last two.

    Raises:
        UserError: the system is not Linux.
    """
    backbone = load_backbone(_profile(sizes, 1, epochs=False))
    rows: dict[str, list[dict[str, Any]]] = {dimension: [] for dimension in DIMENSIONS}
    total, done = len(DIMENSIONS) * len(sizes.factors), 0
    for dimension in DIMENSIONS:
        _measure_size(backbone, sizes, dimension, 1)  # warm-up: first passes are slower
        for factor in sizes.factors:
            parts = _measure_size(backbone, sizes, dimension, factor)
            costs = {name: {"seconds": cost.seconds, "cpu_seconds": cost.cpu_seconds} for name, cost in parts.items()}
            rows[dimension].append({"factor": factor, "parts": costs})
            done += 1
            advance(done, total)
    fits = {dimension: _fits(measurements) for dimension, measurements in rows.items()}
    return {"machine": machine(), "sizes": asdict(sizes), "rows": rows, "fits": fits}


def as_text(report: Mapping[str, Any]) -> str:
    """Format all measurements as tables, with the exponents and the machine."""
    lines = []
    for dimension, rows in report["rows"].items():
        factors = [row["factor"] for row in rows]
        lines.append(f"CPU seconds over {dimension} (1x is {report['sizes'][dimension]}); cost ~ {dimension}^p")
        lines.append(f"{'':<20}" + "".join(f"{f'{factor}x':>9}" for factor in factors) + f"{'p':>8} {'last two':>9}")
        for part, fit in report["fits"][dimension].items():
            values = "".join(f"{row['parts'][part]['cpu_seconds']:>9.3f}" for row in rows)
            lines.append(f"{part:<20}{values}{fit['exponent']:>8.2f} {fit['last']:>9.2f}")
        lines.append("")
    return "\n".join([*lines, "machine: " + ", ".join(f"{k} {v}" for k, v in report["machine"].items())])


def _measure_size(backbone: Backbone, sizes: Sizes, dimension: str, factor: int) -> dict[str, Cost]:
    """Measure all parts at one size, in a temporary folder; return only training if rounds or clients grow."""
    grows = {name: factor if name == dimension else 1 for name in DIMENSIONS}
    scenario = _scenario(sizes, grows["clients"], grows["examples"])
    profile = _profile(sizes, sizes.rounds * grows["rounds"], epochs=dimension == "examples")
    with tempfile.TemporaryDirectory() as name:
        parts = dict(_measure_parts(backbone, scenario, profile, Path(name), dimension == "examples"))
    return parts if dimension == "examples" else {k: v for k, v in parts.items() if k.startswith("training")}


def _measure_parts(
    backbone: Backbone, scenario: Scenario, profile: Profile, folder: Path, answers: bool
) -> Iterator[tuple[str, Cost]]:
    """Run the pipeline part by part; yield each part's name and cost."""
    yield "data", measure_cost(lambda: build_data(scenario, folder, lambda task, done, total: None))[1]
    yield "partition", measure_cost(lambda: partition_data(scenario, folder))[1]
    images = scenario_images(scenario, folder)
    yield "features", measure_cost(lambda: compute_features(backbone, profile, images, folder / "features", _quiet))[1]
    features = open_features(folder / "features")
    examples, cost = measure_cost(
        lambda: load_examples(scenario, folder, backbone, features, "train", frame=profile.frame)
    )
    yield "tokenising", cost
    for method in METHODS:
        spec = RunSpec(scenario, profile, method, 0)
        yield f"training, {method}", measure_cost(partial(_train, spec, backbone, features, examples, folder))[1]
    if answers:
        yield "answers, fedavg", measure_cost(lambda: answer_run(run_folder(folder, "fedavg", 0), _quiet))[1]


def _train(
    spec: RunSpec, backbone: Backbone, features: FeatureCache, examples: Mapping[int, Sequence[Example]], folder: Path
) -> None:
    """Train a run in this process, with the given backbone and examples."""
    run_dir = run_folder(folder, spec.method, spec.seed)
    clients = make_participants(spec, backbone, features, examples, lambda client: run_dir / CLIENTS / str(client))
    register = Register(scenario_digests(folder), {client: len(own) for client, own in examples.items()}, {})
    run_server(ServerRun(spec, register, run_dir, False, _quiet), backbone, LocalTransport(clients))


def _scenario(sizes: Sizes, more_clients: int, more_examples: int) -> Scenario:
    """Return scenario2's tasks at another size; a fifth of a client's records is for validation and local tests."""
    base, num_clients = load_scenario("scenario2"), sizes.clients * more_clients
    tasks = tuple(
        task.model_copy(update={
            "num_clients": num_clients, "num_train": num_clients * round(1.25 * sizes.examples * more_examples),
            "num_test": sizes.tests * more_examples, "partition": PartitionConfig(kind="iid"),
        })
        for task in base.tasks
    )  # fmt: skip
    return base.model_copy(update={"name": NAME, "tasks": tasks, "min_client_examples": 1})


def _profile(sizes: Sizes, rounds: int, *, epochs: bool) -> Profile:
    """Return the embedded profile at a size, evaluated after its last round alone."""
    length = {"local_steps": None, "local_epochs": 1.0} if epochs else {"local_steps": sizes.steps}
    alone = {"evaluate_every": None, "forgetting": ()}
    return load_profile("embedded").model_copy(update={"rounds": rounds, "batch_size": sizes.batch, **length, **alone})


def _fits(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Fit the exponents of CPU seconds by part."""
    factors = [row["factor"] for row in rows]
    values = {part: [row["parts"][part]["cpu_seconds"] for row in rows] for part in rows[0]["parts"]}
    return {
        part: {"exponent": slope(factors, of_part), "last": slope(factors[-2:], of_part[-2:])}
        for part, of_part in values.items()
    }


def _quiet(done: int, total: int) -> None:
    """Ignore progress."""
