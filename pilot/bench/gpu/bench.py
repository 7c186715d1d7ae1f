"""The check of a GPU: rate of matrix products, losses beside a CPU's, features, answers, and a round of two methods.

Weights are random, so nothing is read but the package: 7B parameters are drawn on the device. On a CPU the same code
runs at the size of the profile `llava-random`; there a process's peak memory is not that of its tensors and is not
compared with the plan's.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import torch

from pilot.backbone.backbone import Backbone
from pilot.backbone.feature_files import FeatureCache
from pilot.backbone.from_profile import load_backbone
from pilot.backbone.numerics import Numerics, configure_torch
from pilot.bench.gpu.parts import Part, UnavailableError, Values, run_parts
from pilot.bench.gpu.sizes import Sizes
from pilot.bench.scale.measure import machine
from pilot.bench.scale.random_round import MEGABYTE, RandomRound, Stage, batch_features, noise_images
from pilot.config.load import load_scenario
from pilot.federation.spec import RunSpec
from pilot.plan.architecture import architecture_of
from pilot.plan.memory import Settings, training_memory
from pilot.plan.phases import PlannedPhase
from pilot.plan.plan import needed_bytes, plan_run
from pilot.plan.work import example_flops
from pilot.provenance import package_versions

SCENARIO = "llava-scenario2"
"""Its tasks are those of the plan; the bench has one client for each."""
MEMORY_TOLERANCE, SHARE_WANTED = 0.15, 0.45
LOSS_TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}
"""Largest difference between losses on two devices, as a share of the CPU's."""
WARM_UP = 2


@dataclass
class Check:
    """A check in progress; later parts use what earlier ones made."""

    sizes: Sizes
    device: torch.device
    rate: float | None = None
    backbone: Backbone | None = None
    features: FeatureCache | None = None
    checks: dict[str, bool] = field(default_factory=dict)

    def measure_rate(self, values: Values) -> None:
        """Measure the 10^12 operations per second of bfloat16 products of square matrices; the median product."""
        side, times = self.sizes.matrix
        source = torch.Generator(self.device).manual_seed(0)
        left, right = (torch.randn(side, side, generator=source, device=self.device) for _ in range(2))
        left, right = left.to(torch.bfloat16), right.to(torch.bfloat16)
        seconds = [self._time(lambda: left @ right) for _ in range(WARM_UP + times)][WARM_UP:]
        self.rate = 2 * side**3 / statistics.median(seconds) / 1e12
        values |= {"side": side, "products": times, "tflops": round(self.rate, 4)}

    def compare_losses(self, values: Values) -> None:
        """Train one round of Pilot of the small model on the CPU and on the device, from the same weights."""
        for precision, tolerance in LOSS_TOLERANCE.items():
            of_type = self.sizes.small.model_copy(update={"precision": precision})
            cpu, own = (
                load_backbone(of_type.model_copy(update={"device": name})) for name in ("cpu", self.device.type)
            )
            own.model.load_state_dict(cpu.model.state_dict())
            work, features = self.sizes.compared, batch_features(cpu, of_type)[0]
            rounds = [RandomRound(backbone, of_type, work, features) for backbone in (cpu, own)]
            for each in rounds:
                each.run(_quiet)
            difference = loss_difference(rounds[0].stages, rounds[1].stages)
            within = difference <= tolerance
            values[precision] = {"relative_difference": difference, "tolerance": tolerance, "within": within}
            self.checks[f"losses in {precision}"] = within

    def load(self, values: Values) -> None:
        """Create the model on the device."""
        self._require_bfloat16()
        self.backbone = load_backbone(self.sizes.profile)
        self.backbone.numerics.synchronise()
        values["parameters"] = sum(parameter.numel() for parameter in self.backbone.model.parameters())
        if self.device.type == "cuda":
            values["memory_mb"] = round(torch.cuda.memory_allocated(self.device) / MEGABYTE, 1)

    def time_features(self, values: Values) -> None:
        """Time the image processor and the vision tower on batches of images, after one batch."""
        backbone = self._model()
        self.features, _ = batch_features(backbone, self.sizes.profile)
        images = noise_images(backbone, self.sizes.profile.generation_batch)
        times = self.sizes.image_batches
        seconds = sum(self._time(lambda: backbone.image_features(images)) for _ in range(times))
        prepared = self._time(lambda: backbone.processor(images=images, return_tensors="pt"))
        values |= {
            "images": len(images) * times,
            "images_per_second": round(len(images) * times / seconds, 2),
            "share_of_image_processor": round(prepared * times / seconds, 3),
        }

    def time_answers(self, values: Values) -> None:
        """Time greedy answers to one batch of prompts, with the pass over the prompts, after a short answer."""
        backbone, work = self._model(), self.sizes.work
        features_BND = self._features().take(range(self.sizes.profile.batch_size))
        numerics = backbone.numerics
        projector = backbone.projector().to(numerics.device)
        with torch.no_grad(), numerics.autocast():
            tokens_BNC = projector(numerics.to_device(features_BND))
        prompts = [[4 + row] * (work.text_tokens - work.answer_tokens) for row in range(numerics.generation_batch)]

        def answer(new_tokens: int) -> list[list[int]]:
            return backbone.continue_ids(
                lambda rows: tokens_BNC[[r % len(tokens_BNC) for r in rows]], prompts, new_tokens
            )

        answer(1)
        began = time.perf_counter()
        made = sum(map(len, answer(self.sizes.new_tokens)))
        seconds = time.perf_counter() - began
        values |= {"prompts": len(prompts), "tokens": made, "tokens_per_second": round(made / seconds, 2)}

    def train_round(self, method: str, values: Values) -> None:
        """Train round 1 of a method; compare each stage with the plan, also where the round is cut off."""
        trained = RandomRound(self._model(), self.sizes.profile, self.sizes.work, self._features(), method)
        try:
            trained.run(_quiet)
        finally:
            run = RunSpec(load_scenario(SCENARIO), self.sizes.profile, method, 0)
            planned = {phase.name: phase for phase in plan_run(run, architecture_of(run.profile)).phases(1)}
            for name, stage in trained.stages.items():
                values[name] = self._stage(planned[name], stage) if stage.seconds else {"clients": 0}
                if "memory" in values[name]:
                    self.checks[f"memory of {method} {name}"] = values[name]["memory"]["within"]

    def _stage(self, planned: PlannedPhase, stage: Stage) -> Values:
        """Return the speed of a stage, its share of the measured rate and, on a GPU, its memory beside the plan's."""
        profile, work, backbone = self.sizes.profile, self.sizes.work, self._model()
        architecture, measured = architecture_of(profile), stage.report()
        sequence = backbone.num_prefix_tokens + backbone.num_image_tokens + work.text_tokens
        settings = Settings.from_profile(profile, sequence, work.answer_tokens)
        flops = profile.batch_size * profile.accumulation * example_flops(architecture, settings, planned)
        tflops = flops / measured.step_seconds / 1e12
        share = None if self.rate is None else tflops / self.rate
        speed = {
            "clients": len(stage.seconds), "sequence": sequence, **asdict(measured), "tflops": round(tflops, 4),
            "share_of_rate": None if share is None else round(share, 4),
            "share_wanted": SHARE_WANTED, "share_reached": None if share is None else share >= SHARE_WANTED,
        }  # fmt: skip
        if self.device.type != "cuda":
            return speed | {"memory_not_compared": "a process's peak on a CPU is not that of its tensors"}
        memory = training_memory(architecture, settings, planned, on_gpu=True)
        compared = compare_memory(memory.peak, stage.peak_memory_mb * MEGABYTE)
        device = {"used_mb": stage.used_mb, "planned_used_mb": round(needed_bytes(memory, True) / MEGABYTE, 1)}
        return speed | {"memory": compared | device}

    def _require_bfloat16(self) -> None:
        if self.device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
            raise UnavailableError("this GPU does not compute in bfloat16")

    def _model(self) -> Backbone:
        if self.backbone is None:
            raise UnavailableError("the model was not loaded")
        return self.backbone

    def _features(self) -> FeatureCache:
        if self.features is None:
            raise UnavailableError("no features were computed")
        return self.features

    def _time(self, work: Callable[[], Any]) -> float:
        numerics = Numerics(self.device)
        numerics.synchronise()
        began = time.perf_counter()
        work()
        numerics.synchronise()
        return time.perf_counter() - began


def bench_gpu(sizes: Sizes, minutes: float, finished: Callable[[str, Values], None]) -> dict[str, Any]:
    """Run the check; return the report that `--json` prints. `finished` is called after each part.

    Raises:
        UserError: the profile requires a GPU and there is none.
    """
    numerics = Numerics.from_profile(sizes.profile)
    configure_torch(numerics)
    check = Check(sizes, numerics.device)
    parts: dict[str, Part] = {
        "matrix_rate": check.measure_rate,
        "losses": check.compare_losses,
        "model": check.load,
        "features": check.time_features,
        "answers": check.time_answers,
        "pilot": partial(check.train_round, "pilot"),
        "fedavg": partial(check.train_round, "fedavg"),
    }
    results = run_parts(parts, 60 * minutes, finished)
    return {
        "bench": "gpu",
        "device": describe_device(numerics.device),
        "versions": package_versions() | {"cuda": torch.version.cuda},
        "machine": machine(),
        "settings": {"minutes": minutes, "profile": sizes.profile.name, "work": asdict(sizes.work)}
        | {name: getattr(sizes.profile, name) for name in ("precision", "batch_size", "accumulation", "attention")},
        "parts": results,
        "checks": check.checks,
        "complete": all(part["status"] == "done" for part in results.values()),
    }


def describe_device(device: torch.device) -> dict[str, Any]:
    """Return the device's name and, of a GPU, its compute capability and memory."""
    if device.type != "cuda":
        return {"name": "cpu", "capability": None, "memory_mb": None}
    found = torch.cuda.get_device_properties(device)
    return {
        "name": found.name, "capability": f"{found.major}.{found.minor}",
        "memory_mb": round(found.total_memory / MEGABYTE, 1), "processors": found.multi_processor_count,
    }  # fmt: skip


def loss_difference(first: dict[str, Stage], second: dict[str, Stage]) -> float:
    """Return the largest difference of two rounds' losses, as a share of the first's; infinite for a missing value."""
    pairs = [
        (a, b)
        for name, stage in first.items()
        for one, other in zip(stage.losses, second[name].losses, strict=True)
        for term in one
        for a, b in zip(one[term], other[term], strict=True)
    ]
    known = [(a, b) for a, b in pairs if a is not None and b is not None]
    if len(known) < len(pairs) or not pairs:
        return float("inf")
    return max(abs(a - b) / max(abs(a), 1e-3) for a, b in known)


def compare_memory(planned: float, measured: float) -> Values:
    """Compare planned and measured bytes."""
    ratio = planned / measured
    return {
        "planned_mb": round(planned / MEGABYTE, 1), "measured_mb": round(measured / MEGABYTE, 1),
        "planned_share": round(ratio, 4), "within": abs(ratio - 1) <= MEMORY_TOLERANCE,
    }  # fmt: skip


def as_text(report: dict[str, Any]) -> str:
    """Format what was checked, and where; `part_line` formats the parts."""
    device = report["device"]
    lines = [f"{device['name']}, capability {device['capability']}, {report['versions']['torch']}"]
    lines += [
        f"{name}: {'within' if within else 'NOT within'} the tolerance" for name, within in report["checks"].items()
    ]
    return "\n".join(lines)


def part_line(name: str, values: Values) -> str:
    """Format a part as one line."""
    return f"{name}: " + ", ".join(f"{key} {value}" for key, value in _flat(values))


def _flat(values: Values, before: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value


def _quiet(done: int, total: int) -> None:
    """Show no progress."""
