"""Steps, floating-point operations, bytes exchanged and bytes on disk of a run."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pilot.config.profile import Profile
from pilot.config.scenario import Scenario
from pilot.io.layout import KEPT_ROUNDS
from pilot.plan.architecture import Architecture
from pilot.plan.memory import BYTES, Settings
from pilot.plan.phases import FLOAT32, PlannedMethod, PlannedPhase


@dataclass(frozen=True)
class Work:
    """Work, traffic and disk of a run.

    Attributes:
        steps: optimiser steps of all clients and rounds.
        examples: training examples that pass through the LLM, including repetitions.
        flops: floating-point operations of training and of evaluation on validation parts.
        down: bytes to one client in round 1 and in each later round.
        up: bytes from one client, likewise.
        total_bytes: bytes in both directions, for all clients and rounds.
        server_disk: bytes of the server's checkpoints.
        client_disk: bytes of all clients' private states.
    """

    steps: int
    examples: int
    flops: int
    down: tuple[int, int]
    up: tuple[int, int]
    total_bytes: int
    server_disk: int
    client_disk: int


def estimate_work(
    architecture: Architecture, settings: Settings, method: PlannedMethod, profile: Profile, scenario: Scenario
) -> Work:
    """Estimate the work of one run in which every client takes part in every round."""
    clients = 1 if method.pooled else len(scenario.client_tasks)
    batch = profile.batch_size * profile.accumulation
    validated = sum(client_examples(scenario, scenario.validation_fraction))
    steps = flops = moved = 0
    for number in range(1, profile.rounds + 1):
        phases = method.phases(number)
        if not phases:
            continue
        for phase, count in zip(phases, _split(phases, profile, scenario, pooled=method.pooled), strict=True):
            steps += count
            flops += count * batch * example_flops(architecture, settings, phase)
            flops += validated * forward_flops(architecture, settings, phase) if phase.validates else 0
            moved += clients * FLOAT32 * (phase.down + phase.up)
    first, later = (client_bytes(method, number) for number in (1, 2))
    last = range(max(1, profile.rounds - KEPT_ROUNDS + 1), profile.rounds + 1)
    kept = sorted({*last, *profile.evaluated_rounds})
    private = [phases[-1].private for number in kept if (phases := method.phases(number))]
    return Work(
        steps=steps,
        examples=steps * batch,
        flops=flops,
        down=(first[0], later[0]),
        up=(first[1], later[1]),
        total_bytes=moved,
        server_disk=FLOAT32 * sum(method.server_after(number) for number in kept),
        client_disk=clients * FLOAT32 * sum(private),
    )


def client_bytes(method: PlannedMethod, number: int) -> tuple[int, int]:
    """Return the bytes that one client receives and sends in a round; rounds count from 1."""
    phases = method.phases(number)
    return FLOAT32 * sum(phase.down for phase in phases), FLOAT32 * sum(phase.up for phase in phases)


def client_examples(scenario: Scenario, share: float | None = None) -> list[int]:
    """Count every client's examples if each task is split evenly: a share, or all except held-out parts."""
    kept = 1 - scenario.validation_fraction - scenario.local_test_fraction if share is None else share
    return [math.ceil(task.num_train / task.num_clients * kept) for task in scenario.client_tasks]


def example_flops(architecture: Architecture, settings: Settings, phase: PlannedPhase) -> int:
    """Count the floating-point operations of one example's forward and backward pass.

    Per parameter and token: two in the forward pass, two more for the gradient of the input, and two more for the
    gradient of a trained parameter (Kaplan et al. 2020, arXiv 2001.08361, section 2.1, applied separately to frozen and
    trained parts). Attention takes 4 S C per token and layer in the forward pass, twice that in the backward pass.
    Gradient checkpointing computes the layers a second time. A teacher adds a forward pass. With rounded weights,
    offsets are separate products (`pilot.backbone.offsets`).
    """
    layers = architecture.text_layers * architecture.layer_parameters
    attention = architecture.text_layers * 2 * settings.sequence * architecture.text_hidden
    again = 1 if settings.gradient_checkpointing else 0
    per_token = (2 * layers + 2 * attention) * (1 + again) + 2 * layers + 4 * attention
    if phase.extra_linear_sets and settings.activation_bytes < FLOAT32:
        per_token += (2 * (1 + again) + 2) * architecture.linear_parameters
    lora = architecture.lora_parameters(settings.rank)
    per_token += 4 * (lora + phase.mixed_lora) + 2 * phase.trained_lora
    head = 4 * architecture.vocabulary * architecture.text_hidden * settings.answers
    if phase.trained_language:
        per_token, head = per_token + 2 * layers, head * 3 // 2
    mlps = (6 * phase.trained_mlps + 2 * phase.frozen_mlps) * architecture.projector_parameters
    teacher = forward_flops(architecture, settings, phase) if phase.distils else 0
    return settings.sequence * per_token + head + architecture.image_tokens * mlps + teacher


def forward_flops(architecture: Architecture, settings: Settings, phase: PlannedPhase) -> int:
    """Count the floating-point operations of one example's forward pass alone."""
    layers = architecture.text_layers * architecture.layer_parameters
    attention = architecture.text_layers * 2 * settings.sequence * architecture.text_hidden
    per_token = 2 * (layers + attention + architecture.lora_parameters(settings.rank) + phase.mixed_lora)
    head = 2 * architecture.vocabulary * architecture.text_hidden * settings.answers
    mlps = 2 * (phase.trained_mlps + phase.frozen_mlps) * architecture.projector_parameters
    return settings.sequence * per_token + head + architecture.image_tokens * mlps


def feature_work(architecture: Architecture, profile: Profile, scenario: Scenario) -> Mapping[str, Any]:
    """Count images, bytes of their features on disk, and vision tower operations.

    There is at most one image per record; with imaging conditions, test records have one for each condition, too.
    """
    views = 1 + len(scenario.conditions or ())
    images = sum(task.num_train + views * task.num_test for task in scenario.tasks)
    bytes_each = architecture.image_tokens * architecture.feature_width * BYTES[profile.feature_dtype]
    flops = images * 2 * architecture.vision_parameters * (architecture.image_tokens + 1)
    return {"images": images, "bytes_per_image": bytes_each, "bytes": images * bytes_each, "flops": flops}


def _split(phases: tuple[PlannedPhase, ...], profile: Profile, scenario: Scenario, *, pooled: bool) -> list[int]:
    """Return the steps of each phase of a round, over all clients: rounded down, with the rest in the last phase."""
    examples = client_examples(scenario)
    clients = [profile.steps_of(count) for count in examples]
    if pooled:
        clients = [sum(clients) if profile.local_steps is not None else profile.steps_of(sum(examples))]
    totals = [0] * len(phases)
    for steps in clients:
        shares = [int(phase.share * steps) for phase in phases[:-1]]
        for place, share in enumerate([*shares, steps - sum(shares)]):
            totals[place] += share
    return totals
