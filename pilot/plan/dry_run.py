"""The plan of a method, asked of the method: rounds of it on a miniature, with simulated training.

Clients with even ids move away from where they started and send equal statistics; those with odd ids shrink and send
statistics with a single value. So a method whose messages depend on results shows that they do.
"""

from collections.abc import Sequence, Set
from dataclasses import fields

import torch
from torch import Tensor

from pilot.backbone.language import GROUP as LANGUAGE
from pilot.backbone.lora import GROUP as LORA
from pilot.backbone.offsets import GROUP as OFFSETS
from pilot.connector.base import Connector
from pilot.connector.mixing import Router
from pilot.connector.projector import Projector
from pilot.io.seeding import seed_for
from pilot.methods.base import (
    ClientInfo,
    Method,
    Phase,
    PhaseResult,
    ServerState,
    State,
    Update,
    group_of,
    select,
    untrained_state,
    without,
)
from pilot.methods.mixed_lora import OTHERS, OWN_QUESTIONS, ROUTER, mixed_state
from pilot.plan.miniature import Miniature
from pilot.plan.objective import count_saved_numbers
from pilot.plan.phases import PlannedMethod, PlannedPhase

MIN_ROUNDS = 3
"""Rounds that are asked for at least: what the third sends shows what the server does after two."""


def dry_run_method(method: Method, miniature: Miniature, clients: Sequence[ClientInfo], rounds: int) -> PlannedMethod:
    """Ask a method for its plan: what a run of `rounds` rounds sends and keeps if every client takes part in each.

    Raises:
        UserError: the method keeps or sends tensors of a size of which no full size is known.
    """
    largest = method.largest_messages()
    run, found, servers = _DryRun(largest, miniature, clients), list[tuple[PlannedPhase, ...]](), list[int]()
    last = max(rounds, MIN_ROUNDS)
    for number in range(1, last + 1):
        found.append(run.round(number))
        servers.append(run.server_numbers())
        lasting = all(method.phases(later) == method.phases(number) for later in range(number + 1, last + 1))
        if number >= MIN_ROUNDS and lasting and found[-1] == found[-2]:
            break
    phases = [phase for number in range(1, last + 1) for phase in method.phases(number)]
    leaves = {group for phase in phases for group in phase.shared}
    return PlannedMethod(
        rounds=tuple(found),
        servers=tuple(servers),
        leaves=_sort_groups(leaves),
        stays=run.stays(leaves),
        pooled=method.pooled,
        upper_bound=run.clients_differ or largest != method,
    )


class _DryRun:
    """Server and clients of a run on a miniature; every client takes part in every round.

    Attributes:
        clients_differ: whether clients have sent or received different amounts.
    """

    def __init__(self, method: Method, miniature: Miniature, clients: Sequence[ClientInfo]) -> None:
        self._method, self._miniature, self._clients = method, miniature, clients
        self._stored: dict[int, State] = {info.client: {} for info in clients}
        self._ever_stored: set[str] = set()
        self._server = ServerState()
        self._extra_copies_cache: dict[tuple[object, ...], int] = {}
        self.clients_differ = False
        phase = method.initial_phase()
        if phase is not None and method.exchanges:
            start = self._start(self._connector(phase, clients[0], {}), phase, clients[0], {})
            self._server = method.initial_server_state(
                untrained_state(method, phase, clients[0], start, {}, {}), clients
            )

    def round(self, number: int) -> tuple[PlannedPhase, ...]:
        """Run a round; in the first, all clients are newcomers."""
        phases = self._method.phases(number)
        every = self._method.newcomer_phases(number) if number == 1 else phases
        num_early = len(every) - len(phases)
        return tuple(self._phase(phase, number, early=index < num_early) for index, phase in enumerate(every))

    def server_numbers(self) -> int:
        """Count the numbers in the server's state."""
        states = (self._server.shared, *self._server.per_client.values())
        return sum(self._miniature.count(state) for state in states)

    def stays(self, leaves: Set[str]) -> tuple[str, ...]:
        """Return the groups that clients store; `group:part` where another part of the group leaves."""
        divided = {group.partition(":")[0] for group in leaves if ":" in group}
        names = self._ever_stored
        parts = {name: f":{name.rpartition('.')[2]}" if group_of(name) in divided else "" for name in names}
        return _sort_groups({group_of(name) + part for name, part in parts.items()})

    def _phase(self, phase: Phase, number: int, *, early: bool) -> PlannedPhase:
        """Run a phase on all clients, and the aggregation."""
        clients = [self._client(phase, info, number) for info in self._clients]
        planned = [each for each, _ in clients]
        if self._method.exchanges and not early:
            self._server = self._method.aggregate(phase, iter([update for _, update in clients]), self._server)
        if self._method.asynchronous:
            for info in self._clients:
                self._server = self._method.arrive(self._server, info.client)
        self.clients_differ |= len({(each.down, each.up) for each in planned}) > 1
        most = {field.name: max(getattr(each, field.name) for each in planned) for field in fields(PlannedPhase)}
        return PlannedPhase(**most)

    def _client(self, phase: Phase, info: ClientInfo, number: int) -> tuple[PlannedPhase, Update]:
        """Run a phase on one client; store what it keeps."""
        method, count, stored = self._method, self._miniature.count, self._stored[info.client]
        payload = method.payload(self._server, info, phase)
        connector = self._connector(phase, info, payload)
        start = self._start(connector, phase, info, payload)
        trained = select(start, phase.trainable)
        end = start | _simulate_training(
            trained | {name: start[name] for name in start if name == OWN_QUESTIONS}, info, number, phase
        )
        gradients = {name: torch.ones_like(value) for name, value in trained.items()} if phase.mean_gradients else {}
        split = method.split_result(phase, info, PhaseResult(start, end, stored, payload, 1, gradients))
        update = Update(info.client, info.task, 1, split.shared, _simulate_statistics(phase, info, number))
        self._stored[info.client] = split.private or stored
        self._ever_stored |= split.private.keys()
        num_trained_mlps, num_frozen_mlps = _count_mlps(connector, trained)
        planned = PlannedPhase(
            name=phase.name,
            share=phase.share_of_steps,
            trained=count(trained),
            trained_lora=count(select(trained, {LORA, ROUTER})),
            mixed_lora=count(select(start, {OTHERS, ROUTER})),
            trained_language=count(select(trained, {LANGUAGE})),
            trained_mlps=num_trained_mlps,
            frozen=count(without(start, phase.trainable | {OFFSETS})),
            frozen_mlps=num_frozen_mlps,
            num_experts=sum(module.out_features for module in connector.modules() if isinstance(module, Router)),
            down=count(payload),
            up=count(update.state) + count(update.statistics),
            private=count(self._stored[info.client]),
            extra_copies=self._extra_copies(phase, start, stored, payload),
            extra_linear_sets=method.offsets * (2 if phase.distils else 1),
            distils=phase.distils,
            validates=phase.validates,
        )
        return planned, update

    def _connector(self, phase: Phase, info: ClientInfo, payload: State) -> Connector:
        return self._method.make_connector(phase, info, self._miniature.projector, payload)

    def _start(self, connector: Connector, phase: Phase, info: ClientInfo, payload: State) -> State:
        """Return the parameters of a client's model at the start of a phase."""
        more = self._miniature.offsets if self._method.offsets else {}
        if self._method.trains_language:
            more = more | self._miniature.language
        width, mixture = self._miniature.width, self._method.mixture(phase, payload)
        more = more | mixed_state(self._miniature.text_adapter, mixture, width, phase.questions)
        initial = {name: value.detach() for name, value in connector.named_parameters()}
        values = self._method.initial_state(phase, info, self._stored[info.client], payload)
        own = {**initial, **self._miniature.text_adapter, **more}
        return {name: values.get(name, value) for name, value in own.items()}

    def _extra_copies(self, phase: Phase, start: State, stored: State, payload: State) -> int:
        """Count the copies that the objective needs: auxiliary tensors, mean gradients, and what its terms keep."""
        own = select({**stored, **payload}, phase.auxiliary)
        numbers = ((name, value.shape, value.item() if value.numel() == 1 else None) for name, value in own.items())
        key = (phase.name, len(start), *numbers)
        if key not in self._extra_copies_cache:
            trained, full = select(start, phase.trainable), self._miniature.full
            auxiliary = full(own)
            received = full(start if phase.distils else trained) | auxiliary
            kept = count_saved_numbers(self._method, phase, full(trained), received)
            gradients = self._miniature.count(trained) if phase.mean_gradients else 0
            stays = sum(value.numel() for value in auxiliary.values() if value.is_meta)
            self._extra_copies_cache[key] = kept + gradients + stays
        return self._extra_copies_cache[key]


def _sort_groups(groups: Set[str]) -> tuple[str, ...]:
    """Sort groups, LoRA first."""
    return tuple(sorted(groups, key=lambda group: (group.partition(":")[0] != LORA, group)))


def _simulate_training(trained: State, info: ClientInfo, number: int, phase: Phase) -> State:
    """Return simulated results of training: the values, or half of them, plus noise."""
    source = torch.Generator().manual_seed(seed_for("plan", number, info.client, phase.name))
    scale, noise = (0.5, 0.001) if info.client % 2 else (1.0, 0.01)
    return {
        name: scale * value + noise * torch.randn(value.shape, generator=source) for name, value in trained.items()
    }  # fmt: skip


def _simulate_statistics(phase: Phase, info: ClientInfo, number: int) -> State:
    """Return simulated statistics that fall from round to round."""
    found: dict[str, Tensor] = {}
    for name, shape in phase.statistics.items():
        found[name] = torch.full(shape, 1 / number)
        if info.client % 2:
            found[name].view(-1)[1:] = 0
    return found


def _count_mlps(connector: Connector, trained: State) -> tuple[int, int]:
    """Count a connector's MLPs with and without trained parameters."""
    mlps = [name for name, module in connector.named_modules() if isinstance(module, Projector)]
    num_trained = sum(any(name.startswith(f"{mlp}.") for name in trained) for mlp in mlps)
    return num_trained, len(mlps) - num_trained
