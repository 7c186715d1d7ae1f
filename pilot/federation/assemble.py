"""Build the driver's inputs from a run specification: plan, clients, simulated faults and privacy noise."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pilot.backbone.backbone import Backbone
from pilot.backbone.feature_files import FeatureCache
from pilot.backbone.server_backbone import ServerBackbone
from pilot.config.federation import DefenceConfig
from pilot.config.files import check_known
from pilot.errors import UserError
from pilot.federation.attacks import corrupt
from pilot.federation.client import PhaseTask, TrainingResult
from pilot.federation.defence import Defence, refuse_unknown_starts
from pilot.federation.participant import Participant, UpdateTransform, send_unchanged
from pilot.federation.participation import Participation, schedule, to_json
from pilot.federation.privacy import Relation, epsilon, privatise, refuse_unprotected, seeded_noise, system_noise
from pilot.federation.rounds import Plan, min_local_steps
from pilot.federation.shards import Example
from pilot.federation.spec import RunSpec, run_digest
from pilot.federation.store import ClientStore
from pilot.federation.trainer import CheckpointSettings, LocalTrainer, TrainSettings
from pilot.methods.base import ClientInfo, Method, Phase, State, Update, select, untrained_state
from pilot.methods.mixed_lora import mixed_state

MAX_CACHED_TEMPLATES = 32
"""Maximum number of templates of initial tensors cached between phases."""


def make_plan(
    spec: RunSpec, method: Method, backbone: Backbone | ServerBackbone, num_examples: Mapping[int, int]
) -> Plan:
    """Build the driver's plan of a run.

    Raises:
        UserError: the profile's federation settings, learning rates or steps do not fit the method or the scenario.
    """
    profile, settings = spec.profile, spec.profile.federation
    clients = spec.clients(method)
    ids = [info.client for info in clients]
    steps = {client: profile.steps_of(num_examples[client]) for client in ids}
    if method.pooled and profile.local_steps is not None:
        steps = {0: profile.local_steps * len(spec.scenario.client_tasks)}
    where = f"profile {profile.name}: field federation"
    _check_federation(spec, method, where)
    _check_rates(spec, method)
    _check_steps(spec, method, steps)
    start = backbone.initial_adapter(spec.seed, method.starts_from_weights)
    if method.trains_language:
        start |= backbone.initial_language_state()
    seen: dict[tuple[str, frozenset[str], ClientInfo, frozenset[str]], State] = {}
    custom = (type(method).initial_state, type(method).split_result) != (Method.initial_state, Method.split_result)

    def template(phase: Phase, info: ClientInfo, payload: State) -> State:
        key = (phase.name, phase.shared, info, frozenset(payload))
        if key not in seen:  # building a connector takes longer than checking its tensors
            if len(seen) >= MAX_CACHED_TEMPLATES:
                seen.pop(next(iter(seen)))
            connector = method.make_connector(phase, info, backbone.projector(), payload)
            own = {name: value.detach() for name, value in connector.named_parameters()} | start
            mixture = method.mixture(phase, payload)
            own |= mixed_state(backbone.text_adapter, mixture, backbone.width, phase.questions)
            seen[key] = own if custom else select(own, phase.shared)
        if custom:
            values = method.initial_state(phase, info, {}, payload)
            begun = {name: values.get(name, value) for name, value in seen[key].items()}
            return untrained_state(method, phase, info, begun, {}, payload)
        return {name: payload.get(name, value) for name, value in seen[key].items()}

    participation = _participation(spec, method)
    try:
        rounds = schedule(participation, ids, profile.rounds, spec.seed, steps, method.asynchronous)
    except ValueError as error:
        raise UserError(f"{where}.{error}") from error
    defence = Defence(**settings.defence.model_dump())
    return Plan(
        method, clients, num_examples, profile.rounds, steps, template, rounds, participation.quorum, defence,
        profile.evaluated_rounds,
    )  # fmt: skip


def _participation(spec: RunSpec, method: Method) -> Participation:
    """Return the profile's participation options; runs on pooled data use the defaults."""
    if method.pooled:
        return Participation()
    return Participation(**spec.profile.federation.participation.model_dump())


def participation_json(spec: RunSpec, plan: Plan) -> dict[str, Any]:
    """Return the content of `participation.json`."""
    return to_json(_participation(spec, plan.method), spec.seed, plan.schedule)


def privacy_json(spec: RunSpec, plan: Plan, history: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return the content of `privacy.json`: noise, messages per client, and epsilon; None if no noise is added.

    Args:
        history: rows of `rounds.jsonl`. With system noise they hold each client's own count of messages. With seeded
            noise a phase that is trained again sends the same message, so the rows of phases that send are counted.
    """
    privacy = spec.profile.federation.privacy
    if privacy is None:
        return None
    counts = {info.client: 0 for info in plan.clients}
    for row in history:
        phases = plan.method.phases(row["round"])
        sends = any(phase.shared for phase in phases if phase.name == row["phase"])
        for each in row["clients"]:
            client, count = each["client"], counts[each["client"]]
            counts[client] = count + sends if privacy.noise == "seeded" else each.get("releases", count)
    most = max(counts.values(), default=0)
    relations: tuple[Relation, ...] = ("add-or-remove-one", "replace-one")
    return privacy.model_dump() | {
        "releases": {str(client): count for client, count in sorted(counts.items())},
        "epsilon": {each: round(epsilon(privacy.noise_multiplier, most, privacy.delta, each), 6) for each in relations},
        "holds_against": "everybody who sees a client's messages, the server included"
        if privacy.noise == "system"
        else "nobody who knows or guesses the seed: the noise can be subtracted; for measuring its cost only",
    }


def _check_federation(spec: RunSpec, method: Method, where: str) -> None:
    settings = spec.profile.federation
    num_clients = len(spec.scenario.client_tasks)
    for attack in settings.attacks:
        if max(attack.clients) >= num_clients:
            highest = max(attack.clients)
            raise UserError(f"{where}.attacks: expected client ids in 0..{num_clients - 1}, got {highest}. Correct it.")
    if method.asynchronous and settings.defence.aggregation != DefenceConfig().aggregation:
        raise UserError(
            f"{where}.defence.aggregation: method {spec.method} takes updates one by one, so there is no mean over "
            f"clients to replace by {settings.defence.aggregation}. Leave it out."
        )
    phases = [
        phase for number in range(1, spec.profile.rounds + 1)
        for phase in (*method.newcomer_phases(number), *method.phases(number)) if phase.shared
    ]  # fmt: skip
    if settings.privacy is not None:
        refuse_unprotected(phases, f"{where}.privacy")
    if method.exchanges:
        refuse_unknown_starts(settings.defence, phases, where, spec.method)
    if needs_validation(spec, method) and not spec.scenario.validation_fraction:
        raise UserError(
            f"scenario {spec.scenario.name}: field validation_fraction: method {spec.method} evaluates models on the "
            "clients' validation parts, so expected a number above 0. Set one, such as 0.1, and partition again."
        )


def _check_rates(spec: RunSpec, method: Method) -> None:
    known = {phase.name for number in range(1, spec.profile.rounds + 1) for phase in method.phases(number)}
    named = spec.rates().phases
    check_known(f"profile {spec.profile.name}, method {spec.method}", "learning_rates.phases", named, known)


def _check_steps(spec: RunSpec, method: Method, steps: Mapping[int, int]) -> None:
    """Refuse rounds with too few steps to give every phase at least one."""
    client, count = min(steps.items(), key=lambda item: (item[1], item[0]))
    for number in range(1, spec.profile.rounds + 1):
        for phases in (method.phases(number), method.newcomer_phases(number)):
            enough = min_local_steps(phases)
            if phases and count < enough:
                field = "local_epochs" if spec.profile.local_steps is None else "local_steps"
                raise UserError(
                    f"profile {spec.profile.name}: field {field}: client {client} takes {count} step(s) per round, but "
                    f"method {spec.method} has the phases {', '.join(phase.name for phase in phases)}: expected at "
                    f"least {enough}. Increase {field}."
                )


def needs_validation(spec: RunSpec, method: Method) -> bool:
    """Return whether any phase of the run needs the clients' validation parts."""
    return any(phase.validates for number in range(1, spec.profile.rounds + 1) for phase in method.phases(number))


def num_steps(spec: RunSpec, plan: Plan) -> int:
    """Count the optimiser steps of the whole run, over all clients that take part."""
    return sum(
        plan.local_steps[client] * plan.schedule[number - 1].sessions_of(client)
        for number in range(1, spec.profile.rounds + 1)
        if plan.method.phases(number)
        for client in plan.schedule[number - 1].present
    )


def train_settings(spec: RunSpec) -> TrainSettings:
    """Return the hyperparameters of a run's local training."""
    profile = spec.profile
    return TrainSettings(
        profile.batch_size, spec.rates(), profile.warmup_fraction, profile.weight_decay, profile.max_grad_norm,
        profile.accumulation,
    )  # fmt: skip


def make_participants(
    spec: RunSpec,
    backbone: Backbone,
    features: FeatureCache,
    examples: Mapping[int, Sequence[Example]],
    store: Callable[[int], Path],
    validation: Mapping[int, Sequence[Example]] = MappingProxyType({}),
    digests: Mapping[str, str] = MappingProxyType({}),
) -> Callable[[int], Participant]:
    """Return a function from client id to participant; all participants train in this process.

    `store` returns the folder of a client's private state. `validation` holds the clients' validation parts, needed if
    a phase of the method validates. `digests` identify the clients' data; without them, an unfinished phase that was
    trained on other data would be continued.
    """
    profile, method = spec.profile, spec.make_method()
    settings, checkpointing = train_settings(spec), None
    if profile.checkpoint_minutes is not None:
        digest = run_digest(spec, {"features": features.digest, **digests})
        checkpointing = CheckpointSettings(store, profile.checkpoint_minutes, digest)
    trainer = LocalTrainer(backbone, method, settings, features, examples, checkpointing, validation)
    transform, privacy = _update_transform(spec), profile.federation.privacy
    fresh = privacy is not None and privacy.noise == "system"
    return lambda client: Participant(
        trainer.run, ClientStore(store(client)), transform, withhold_metrics=privacy is not None, fresh_noise=fresh
    )


def _update_transform(spec: RunSpec) -> UpdateTransform:
    """Build the transformation of updates before they are sent: first a simulated fault, then privacy noise."""
    settings = spec.profile.federation
    faults = {client: attack for attack in settings.attacks for client in attack.clients}
    if not faults and settings.privacy is None:
        return send_unchanged

    def transform_update(task: PhaseTask, trained: TrainingResult) -> Update:
        state, fault = trained.update.state, faults.get(task.info.client)
        if fault is not None:
            state = corrupt(fault.kind, state, trained.received, fault.factor)
        if settings.privacy is not None:
            privacy = settings.privacy
            purpose = (task.info.seed, "privacy", task.round_number, task.info.client, task.phase.name)
            noise = seeded_noise(*purpose) if privacy.noise == "seeded" else system_noise
            state = privatise(state, trained.received, privacy.clip_norm, privacy.noise_multiplier, noise)
        return replace(trained.update, state=state)

    return transform_update
