"""Models after local steps beyond a run's last round: of its clients (post-fit), and of clients that took no part.

A client of the run takes the phases of one more round from its private state and from what the server would send it. A
newcomer takes those of a client that joins then (`newcomer_phases`), from the payload of the first one and from
`newcomer_state`; where all data were pooled, from the pooled model. Nothing is aggregated: what a phase would send
stays on the client, and replaces what the server would send afterwards. With `Method.mixes_answers` it is
aggregated instead, as the only update of a round, so that the server sends it back under the right names.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pilot.backbone.backbone import Backbone
from pilot.backbone.feature_files import FeatureCache
from pilot.errors import UserError
from pilot.federation.assemble import train_settings
from pilot.federation.checkpoint import Progress, load_last
from pilot.federation.client import ClientModel, PhaseTask, build_client_model
from pilot.federation.identity import CLIENTS
from pilot.federation.rounds import min_local_steps, split_steps
from pilot.federation.shards import Example
from pilot.federation.spec import RunSpec
from pilot.federation.store import ClientStore
from pilot.federation.trainer import LocalTrainer
from pilot.methods.base import ClientInfo, Method, Phase, State, Update, select

Models = dict[tuple[int, ...], Callable[[], ClientModel]]


@dataclass(frozen=True)
class _Start:
    """What a client's local steps start from: phases with their steps, private state, and the first payload."""

    info: ClientInfo
    phases: Sequence[tuple[Phase, int]]
    stored: State
    payload: State


def post_fit_models(
    spec: RunSpec, backbone: Backbone, run_dir: Path, features: FeatureCache, examples: Mapping[int, Sequence[Example]]
) -> Models:
    """Return loaders of the models of a run's clients after one more round of local steps on their own data.

    Args:
        spec: the run's specification.
        backbone: the backbone that it was trained on.
        run_dir: its folder.
        features: of the clients' images.
        examples: the clients' training parts.

    Raises:
        UserError: no round was finished, or the checkpoint is damaged.
    """
    method, progress = spec.make_method(), load_last(run_dir / "checkpoint")
    phases = method.phases(spec.profile.rounds + 1)

    def start(info: ClientInfo) -> _Start:
        stored = ClientStore(run_dir / CLIENTS / str(info.client)).load(progress.versions.get(info.client))
        steps = split_steps(phases, spec.profile.steps_of(len(examples[info.client])))
        return _Start(info, steps, stored, method.payload(progress.server, info, phases[0]))

    trainer = LocalTrainer(backbone, method, train_settings(spec), features, examples)
    return {(info.client,): _loader(spec, trainer, progress, start, info) for info in _clients(spec, method)}


def newcomer_models(
    spec: RunSpec, backbone: Backbone, run_dir: Path, features: FeatureCache,
    examples: Mapping[int, Sequence[Example]], fit: bool,
) -> Models:  # fmt: skip
    """Return loaders of the models of the clients that took no part in training.

    Args:
        fit: whether they take their own steps; else their models are those that they would receive.
        spec, backbone, run_dir, features, examples: as for `post_fit_models`, of the unseen clients.

    Raises:
        UserError: as `post_fit_models`, or the clients' steps are too few for the method's phases.
    """
    method, progress = spec.make_method(), load_last(run_dir / "checkpoint")
    phases = method.newcomer_phases(spec.profile.rounds + 1) or (Phase("none", frozenset(), frozenset()),)
    enough = min_local_steps(phases)

    def start(info: ClientInfo) -> _Start:
        num_steps = (spec.scenario.unseen and spec.scenario.unseen.steps) or spec.profile.steps_of(
            len(examples[info.client])
        )
        if num_steps < enough:
            raise UserError(
                f"scenario {spec.scenario.name}: field unseen.steps: expected at least {enough} for method "
                f"{spec.method}, got {num_steps}. Increase it."
            )
        if method.pooled:
            version = progress.versions.get(0)
            return _Start(info, split_steps(phases, num_steps), ClientStore(run_dir / CLIENTS / "0").load(version), {})
        extra = method.newcomer_state(
            progress.server, info, backbone.initial_adapter(info.seed, method.starts_from_weights)
        )
        payload = method.payload(progress.server, info, phases[0])
        return _Start(info, split_steps(phases, num_steps), extra, payload)

    tasks = tuple(task.name for task in spec.scenario.tasks)
    first = len(spec.scenario.client_tasks)
    infos = [ClientInfo(k, task.name, tasks, spec.seed) for k, task in enumerate(spec.scenario.unseen_tasks, first)]
    if not fit:
        projector, final = backbone.projector(), method.final_phase(spec.profile.rounds)
        phase = final if final and method.mixes_answers else phases[0]

        def received(info: ClientInfo) -> Callable[[], ClientModel]:
            def load() -> ClientModel:
                at = start(info)
                payload = {} if method.pooled else method.payload(progress.server, info, phase)
                return build_client_model(backbone, method, phase, info, at.stored, payload, projector)

            return load

        return {(info.client,): received(info) for info in infos}
    trainer = LocalTrainer(backbone, method, train_settings(spec), features, examples)
    return {(info.client,): _loader(spec, trainer, progress, start, info) for info in infos}


def _clients(spec: RunSpec, method: Method) -> list[ClientInfo]:
    return [] if method.pooled or not method.phases(1) else spec.clients(method)


def _loader(
    spec: RunSpec, trainer: LocalTrainer, progress: Progress, start: Callable[[ClientInfo], _Start], info: ClientInfo
) -> Callable[[], ClientModel]:
    return lambda: _fit(spec, trainer, progress, start(info))


def _fit(spec: RunSpec, trainer: LocalTrainer, progress: Progress, start: _Start) -> ClientModel:
    """Take a client's phases, then load its model as the method evaluates it."""
    method, info, stored, payload = trainer.method, start.info, start.stored, start.payload
    sent, server = State(), progress.server
    for index, (phase, steps) in enumerate(start.phases):
        if index:
            payload = _overlaid(method.payload(server, info, phase), sent)
        task = PhaseTask(info, phase, spec.profile.rounds + 1, index, steps, payload)
        run, gradients = trainer.train_phase(task, stored)
        split, end = run.split_result(gradients), run.model.state()
        if method.mixes_answers and split.shared:
            update = Update(info.client, info.task, len(trainer.examples[info.client]), split.shared)
            server = method.aggregate(phase, [update], server)
        sent |= select(end, phase.shared)
        stored = {**select(end, phase.discarded), **split.private}
    final = method.final_phase(spec.profile.rounds + 1)
    if final is None or final.name == start.phases[-1][0].name:
        return run.model
    payload = method.payload(server, info, final)
    payload = payload if method.mixes_answers else _overlaid(payload, sent)
    return build_client_model(trainer.backbone, method, final, info, {**sent, **stored}, payload)


def _overlaid(payload: State, own: State) -> State:
    """Return a payload whose tensors are the client's own where it has them."""
    return {name: own.get(name, value) for name, value in payload.items()}
