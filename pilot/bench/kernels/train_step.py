"""`pilot-bench bench train-step`: local training steps of `fedavg` and of both stages of `pilot`, beside plain ones.

A call of a side is a fixed sequence of steps over the same batches, from one client of each task in turn. Both sides
build their batches from data in memory: ours from stored vision features, the plain side from pixels that were decoded
and scaled beforehand. A little noise is added to every initial weight, so that no gradient is only rounding error.

`share` is the time of our steps' matrix products alone, in the same shapes, divided by the time of the steps.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from pilot.backbone.numerics import Numerics, configure_torch
from pilot.bench.kernels.paired import Spread, alternate, ratios
from pilot.bench.kernels.plain import PlainSteps
from pilot.bench.kernels.products import flops, make_product_runner, record_products
from pilot.bench.kernels.report import Report, Row
from pilot.bench.kernels.steps import OurSteps, read_stream
from pilot.config.load import load_profile, load_scenario
from pilot.errors import UserError
from pilot.federation.spec import RunSpec

TOLERANCE = 1e-5
METHODS = ("fedavg", "pilot")
STEPS_PER_CALL = 6


def bench_train_step(
    scenario_dir: Path, repeats: int, advance: Callable[[int, int], None], *, scenario: str = "", profile: str = ""
) -> Report:
    """Time all three kinds of steps.

    Args:
        scenario_dir: results/<profile>/<scenario> with data, partition and features; nothing is written there.
        repeats: number of timed calls of each side, without the warm-up.
        advance: called with the finished and total numbers of parts.
        scenario: name or file; the folder's name if empty.
        profile: name or file; the parent folder's name if empty.

    Raises:
        UserError: a file is missing, or a loss differs.
    """
    scenario_dir = scenario_dir.resolve()
    loaded = load_scenario(scenario or scenario_dir.name), load_profile(profile or scenario_dir.parent.name)
    configure_torch(Numerics())
    stream = read_stream(loaded[0], scenario_dir, loaded[1].batch_size, STEPS_PER_CALL, loaded[1].frame)
    ours, plain, differences = {}, {}, {}
    for method in METHODS:
        spec = RunSpec(*loaded, method, seed=0)
        for phase in spec.make_method().phases(1):
            name = method if phase.name == "train" else f"{method} {phase.name}"
            steps = OurSteps(spec, phase, stream, num_steps=20 * STEPS_PER_CALL)
            ours[name], plain[name] = steps, PlainSteps(loaded[1], steps)
            differences[name] = loss_difference(name, steps.call(), plain[name].call())
            advance(len(ours), len(METHODS) + 2)
    rows, summary = _timed(ours, plain, differences, repeats)
    advance(len(ours) + 1, len(METHODS) + 2)
    settings = {
        "repeats": repeats, "steps_per_call": STEPS_PER_CALL, "batch_size": loaded[1].batch_size,
        "scenario": loaded[0].name, "profile": loaded[1].name, "tolerance": TOLERANCE,
    }  # fmt: skip
    return Report("train-step", settings, rows, summary)


def loss_difference(name: str, ours: Sequence[float], plain: Sequence[float]) -> float:
    """Return the largest difference of the losses of consecutive steps, relative to the plain loss if it is above 1.

    Raises:
        UserError: the difference is above the tolerance.
    """
    differences = [abs(a - b) / max(1.0, abs(b)) for a, b in zip(ours, plain, strict=True)]
    if too_large := [each for each in differences if not each <= TOLERANCE]:  # also NaN
        raise UserError(
            f"bench train-step, {name}: losses differ by {too_large[0]:.1e}, expected at most {TOLERANCE:.0e}. "
            f"Ours: {list(ours)}; reference: {list(plain)}. One side is wrong."
        )
    return max(differences)


def _timed(
    ours: dict[str, OurSteps], plain: dict[str, PlainSteps], differences: dict[str, float], repeats: int
) -> tuple[list[Row], dict[str, float]]:
    products = {name: record_products(steps.call) for name, steps in ours.items()}
    sides: dict[str, Callable[[], object]] = {}
    for name in ours:
        works = {"ours": ours[name].call, "plain": plain[name].call, "bare": make_product_runner(products[name])}
        sides |= {f"{name} {kind}": work for kind, work in works.items()}
    calls = alternate(sides, repeats, warm_up=1)
    seconds = {name: [value / STEPS_PER_CALL for value in values] for name, values in calls.items()}
    rows = []
    for name in ours:
        kinds = {kind: f"{name} {kind}" for kind in ("ours", "plain", "bare")}
        rows.append(Row(
            {"step": name}, {kind: Spread.of(seconds[side]) for kind, side in kinds.items()},
            {"plain / ours": ratios(seconds, kinds["plain"], kinds["ours"]),
             "share": ratios(seconds, kinds["bare"], kinds["ours"])},
            differences[name], repeats,
            {"GFLOP": flops(products[name]) / STEPS_PER_CALL / 1e9},
        ))  # fmt: skip
    stages = [name for name in ours if name != "fedavg"]
    return rows, {f"{name} / fedavg": ratios(seconds, f"{name} ours", "fedavg ours").median for name in stages}
