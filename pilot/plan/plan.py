"""The complete plan: what each method needs, whether it fits, and what to change if it does not."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pilot.config.profile import Profile
from pilot.config.scenario import Scenario
from pilot.errors import UserError
from pilot.federation.spec import RunSpec
from pilot.io.atomic import read_json
from pilot.plan.architecture import Architecture, architecture_of
from pilot.plan.dry_run import dry_run_method
from pilot.plan.memory import Memory, Settings, training_memory
from pilot.plan.miniature import Miniature
from pilot.plan.phases import FLOAT32, PlannedMethod
from pilot.plan.work import estimate_work, feature_work

GPU_CONTEXT = 750_000_000
"""Bytes that CUDA and its libraries use before the first tensor; assumed, not measured here."""
GPU_FRAGMENTS = 0.05
"""Memory that PyTorch's allocator holds beyond the tensors, as a share of them; assumed, not measured here."""
GPU_TFLOPS, CPU_TFLOPS, NARROW_CPU_TFLOPS = 120.0, 0.06, 0.006
"""Assumed 10^12 operations per second: two fifths of an A100's in bfloat16; those of a CPU core in float32, with
`smol` (width 576) and with tiny-llava (width 128), whose products are too small to be fast."""
NARROW = 256
"""Largest width of an LLM that counts as narrow."""
CHARACTERS_PER_TOKEN = 4
CHAT_LEAD = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<image>"
"""Assumed start of a chat template, which the checkpoint's tokenizer knows and its configuration does not."""


@dataclass(frozen=True)
class PlanInputs:
    """Inputs of a plan.

    Attributes:
        gpus: number of devices; one client trains on each at a time.
        memory: bytes of one GPU, or of the machine's memory if the profile's device is the CPU.
        text_tokens: tokens of the longest prompt with its answer, without the image and the text before it.
        answer_tokens: tokens of the longest answer.
        tflops: sustained throughput of one device; None for the assumed one.
    """

    scenario: Scenario
    profile: Profile
    methods: Sequence[str]
    gpus: int
    memory: int
    text_tokens: int
    answer_tokens: int
    tflops: float | None

    @property
    def on_gpu(self) -> bool:
        """True if the profile trains on a GPU (`auto` counts as one)."""
        return self.profile.device != "cpu"

    def throughput(self, architecture: Architecture) -> float:
        """Return the operations per second of one device."""
        on_cpu = NARROW_CPU_TFLOPS if architecture.text_hidden <= NARROW else CPU_TFLOPS
        return 1e12 * (self.tflops or (GPU_TFLOPS if self.on_gpu else on_cpu))

    def settings(self, profile: Profile, architecture: Architecture) -> Settings:
        """Return a client's training settings with `profile`, at the longest sequence."""
        before = (profile.prompt_template or CHAT_LEAD).split("<image>")[0]
        num_prefix_tokens = 1 + math.ceil(len(before) / CHARACTERS_PER_TOKEN)  # with the begin token
        sequence = num_prefix_tokens + architecture.image_tokens + self.text_tokens
        return Settings.from_profile(profile, sequence, self.answer_tokens)


def make_plan(inputs: PlanInputs, scenario_dir: Path) -> dict[str, Any]:
    """Make the plan as JSON values; take measured times from earlier runs in the scenario's folder.

    Raises:
        UserError: there is no plan for a method or the backbone.
    """
    profile, scenario = inputs.profile, inputs.scenario
    architecture = architecture_of(profile)
    folder = scenario_dir / "runs"
    return {
        "scenario": scenario.name,
        "profile": profile.name,
        "parameters": architecture.parameters,
        "gpus": inputs.gpus,
        "memory": inputs.memory,
        "assumptions": {
            "device": "gpu" if inputs.on_gpu else "cpu",
            "text_tokens": inputs.text_tokens,
            "answer_tokens": inputs.answer_tokens,
            "tflops_per_device": inputs.throughput(architecture) / 1e12,
            "clients": len(scenario.client_tasks),
            "participation": "every client in every round; a task's examples split evenly",
            **({"gpu_context_bytes": GPU_CONTEXT, "gpu_fragments": GPU_FRAGMENTS} if inputs.on_gpu else {}),
        },
        "features": dict(feature_work(architecture, profile, scenario)),
        "methods": {name: _plan_method(inputs, architecture, name, folder / name) for name in inputs.methods},
    }


def _plan_method(inputs: PlanInputs, architecture: Architecture, name: str, runs: Path) -> dict[str, Any]:
    profile, scenario = inputs.profile, inputs.scenario
    method = plan_run(RunSpec(scenario, profile, name, 0), architecture)
    settings = inputs.settings(profile, architecture)
    work = estimate_work(architecture, settings, method, profile, scenario)
    parallel = 1 if method.pooled else min(inputs.gpus, len(scenario.client_tasks))
    seconds = measured_seconds(runs)
    needed = device_bytes(inputs, profile, architecture, method)
    return {
        "memory": {
            phase: asdict(memory) | {"peak": memory.peak, "device": needed_bytes(memory, inputs.on_gpu)}
            for phase, memory in _phases(inputs, profile, architecture, method)
        },
        "device_bytes": needed,
        "fits": needed <= inputs.memory,
        "changes": [] if needed <= inputs.memory else list(suggest_changes(inputs, architecture, method)),
        "sequence": settings.sequence,
        "server_bytes": FLOAT32 * method.server,
        "work": asdict(work),
        "bytes_are_upper_bounds": method.upper_bound,
        "hours": work.flops / inputs.throughput(architecture) / parallel / 3600,
        "measured_hours": None if seconds is None else seconds * work.steps / parallel / 3600,
    }


def plan_run(run: RunSpec, architecture: Architecture) -> PlannedMethod:
    """Ask a run's method for its plan.

    Raises:
        UserError: there is no such method, or it cannot be planned.
    """
    method = run.make_method()
    clients, profile = run.clients(method), run.profile
    try:
        return dry_run_method(method, Miniature(architecture, profile.lora.rank, len(clients)), clients, profile.rounds)
    except UserError as error:
        raise UserError(f"--method {run.method}: {error}") from error


def needed_bytes(memory: Memory, on_gpu: bool) -> int:
    """Return the bytes that a device must have: tensors and, on a GPU, the context and fragments."""
    return math.ceil(memory.peak * (1 + GPU_FRAGMENTS)) + GPU_CONTEXT if on_gpu else memory.peak


def device_bytes(inputs: PlanInputs, profile: Profile, architecture: Architecture, method: PlannedMethod) -> int:
    """Return the device memory of the largest phase; that of the bare model if nothing is trained."""
    needs = [needed_bytes(memory, inputs.on_gpu) for _, memory in _phases(inputs, profile, architecture, method)]
    size = inputs.settings(profile, architecture).activation_bytes
    return max(needs, default=architecture.parameters * size)


def suggest_changes(inputs: PlanInputs, architecture: Architecture, method: PlannedMethod) -> Iterator[dict[str, Any]]:
    """Yield cumulative changes of the profile, each with the memory needed after it, until the method fits.

    A change that saves nothing is skipped. The last entry tells whether the result fits.
    """
    profile = inputs.profile
    needed = device_bytes(inputs, profile, architecture, method)
    for field, changed in _changes(profile):
        profile = changed(profile)
        after = device_bytes(inputs, profile, architecture, method)
        if after < needed:
            needed = after
            yield {"change": field(profile), "device_bytes": needed, "fits": needed <= inputs.memory}
        if needed <= inputs.memory:
            return


def _changes(profile: Profile) -> Iterator[tuple[Any, Any]]:
    """Yield changes, cheapest first, each as two functions: one describes the new profile, one makes it."""

    def to(**fields: Any) -> Any:
        return lambda old: old.model_copy(update=fields)

    yield lambda new: "attention: sdpa", to(attention="sdpa")
    yield lambda new: "gradient_checkpointing: true", to(gradient_checkpointing=True)
    yield (
        lambda new: "lora: {space: token}",
        lambda old: old.model_copy(update={"lora": old.lora.model_copy(update={"space": "token"})}),
    )
    yield lambda new: "precision: bfloat16, feature_dtype: bfloat16", to(precision="bfloat16", feature_dtype="bfloat16")
    size, parts = profile.batch_size, profile.accumulation
    while size % 2 == 0:
        size, parts = size // 2, parts * 2
        yield (
            lambda new: f"batch_size: {new.batch_size}, accumulation: {new.accumulation}",
            to(batch_size=size, accumulation=parts),
        )


def _phases(
    inputs: PlanInputs, profile: Profile, architecture: Architecture, method: PlannedMethod
) -> Iterator[tuple[str, Memory]]:
    """Yield the name and memory of each of a method's phases."""
    settings = inputs.settings(profile, architecture)
    named = {phase.name: phase for phases in method.rounds for phase in phases}
    for name, phase in named.items():
        yield name, training_memory(architecture, settings, phase, on_gpu=inputs.on_gpu)


def measured_seconds(runs: Path) -> float | None:
    """Return the mean training seconds per optimiser step over a method's finished runs; None without any."""
    seconds = []
    for manifest in sorted(runs.glob("seed*/manifest.json")):
        timing, ledger = manifest.parent / "timing.json", manifest.parent / "ledger.json"
        if timing.is_file() and ledger.is_file():
            steps = read_json(ledger, {"optimiser_steps": int})["optimiser_steps"]
            trained = read_json(timing, {"train_seconds": (int, float)})["train_seconds"]
            seconds += [trained / steps] if steps else []
    return sum(seconds) / len(seconds) if seconds else None
