"""The plans of all methods, by name.

They are listed here because the methods' classes need PyTorch; tests compare this table with the classes and with the
ledgers of real runs.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from pilot.errors import UserError
from pilot.methods.plugins import plugins
from pilot.plan.phases import LORA, NOTHING, PLAIN, Load, PlannedMethod, PlannedPhase

Options = Mapping[str, Any]
Entry = Callable[[Options, int, int], PlannedMethod]
"""Function from a method's options and the numbers of tasks and clients to its plan."""

BOTH = ("text_adapter", "connector")
A, B = "text_adapter:lora_A", "text_adapter:lora_B"
LORA_A, LORA_B, MLP = Load(lora_as=1), Load(lora_bs=1), Load(mlps=1)
DIFFERENCE = PLAIN
"""Difference in a quadratic penalty: trained parameters minus reference parameters."""


def planned_method(name: str, options: Options, num_tasks: int, num_clients: int) -> PlannedMethod:
    """Return the plan of a method with the profile's options.

    Raises:
        UserError: there is no such method, or it is in another package.
    """
    if name in TABLE:
        return TABLE[name](options, num_tasks, num_clients)
    if name in plugins():
        raise UserError(
            f"--method: no plan is known for {name!r}, a method of another package ({plugins()[name].value}). Expected "
            f"one of: {', '.join(sorted(TABLE))}."
        )
    raise UserError(f"--method: there is no plan for {name!r}. Expected one of: {', '.join(sorted(TABLE))}.")


def _averaging(
    sent: Load = PLAIN, server: Load = PLAIN, *, down: Load | None = None, first: Load = NOTHING,
    leaves: tuple[str, ...] = BOTH, stays: tuple[str, ...] = (), one_model: bool = True, **phase: Any,
) -> PlannedMethod:  # fmt: skip
    """Plan one phase per round: receive `down` (by default `sent`; `first` in round 1), train, and send `sent`."""
    later = PlannedPhase(down=sent if down is None else down, up=sent, **phase)
    rounds = ((replace(later, down=first),), (later,))
    return PlannedMethod(rounds=rounds, server=server, leaves=leaves, stays=stays, one_model=one_model)


def _alone(*, pooled: bool) -> PlannedMethod:
    return PlannedMethod(rounds=((PlannedPhase(private=PLAIN),),), stays=BOTH, one_model=pooled, pooled=pooled)


def _constant(method: PlannedMethod) -> Entry:
    return lambda options, num_tasks, num_clients: method


def _taskavg(options: Options, num_tasks: int, num_clients: int) -> PlannedMethod:
    """Plan task-wise averaging: the server keeps a model per task."""
    return _averaging(server=PLAIN * num_tasks, one_model=False)


def _clustered(options: Options, num_tasks: int, num_clients: int) -> PlannedMethod:
    """Plan clustering: the server keeps each client's model and cluster number; warm-up has another phase name."""
    first, later = (phases[0] for phases in _averaging().rounds)
    warm_up = options.get("warm_up", 1)
    names = ["average"] * warm_up + ["cluster"] * (2 if warm_up == 0 else 1)
    rounds = tuple((replace(later if number else first, name=name),) for number, name in enumerate(names))
    server = (PLAIN + Load(numbers=1)) * num_clients
    return PlannedMethod(rounds=rounds, server=server, leaves=BOTH, one_model=False)


def _fedmosaic(options: Options, num_tasks: int, num_clients: int) -> PlannedMethod:
    """Plan FedMosaic: the server keeps a model per client and the initial model."""
    return _averaging(server=PLAIN * (num_clients + 1), one_model=False)


def _ranks(options: Options, num_tasks: int, num_clients: int) -> PlannedMethod:
    """Plan FlexLoRA: at most the full rank, plus the client's rank and the full one; round 1 sends A's start, too."""
    told = Load(numbers=2)
    server = LORA_A + PLAIN + Load(numbers=num_clients)
    plan = _averaging(PLAIN, server, down=PLAIN + told, first=LORA_A + told, one_model=False)
    return replace(plan, upper_bound=min(options.get("ranks", (0.25, 0.5, 1.0))) < 1)


def _hetlora(options: Options, num_tasks: int, num_clients: int) -> PlannedMethod:
    """Plan HetLoRA: FlexLoRA with pruning, whose norms are computed in float64."""
    plan = _ranks(options, num_tasks, num_clients)
    rounds = tuple(tuple(replace(phase, held=LORA * 2) for phase in phases) for phases in plan.rounds)
    return replace(plan, rounds=rounds, upper_bound=plan.upper_bound or options.get("gamma", 0.99) < 1)


def _ditto() -> PlannedMethod:
    """Plan Ditto: train the global model, then the personal one against the anchor; the client keeps the latter two."""
    kept = PLAIN * 2
    shared = PlannedPhase(name="global", share=0.5, down=PLAIN, up=PLAIN, private=kept)
    personal = PlannedPhase(name="personal", share=0.5, private=kept, held=PLAIN + DIFFERENCE)
    first = (replace(shared, down=NOTHING, private=PLAIN), personal)
    return PlannedMethod(
        rounds=(first, (shared, personal)), server=PLAIN, leaves=BOTH, stays=("anchor", "personal"), one_model=False
    )


def _feddat() -> PlannedMethod:
    """Plan FedDAT: two adapters and offsets; a client keeps its private adapter and two copies of the shared one.

    The teacher of `shared` has an offset, computed in float64 and rounded; that of `private` has zeros instead. The
    linear layers are folded for the model and for the teacher.
    """
    kept = PLAIN * 3
    phase = PlannedPhase(share=0.5, frozen=MLP, private=kept, folded=2, distils=True)
    shared = replace(phase, name="shared", down=PLAIN, up=PLAIN, held=PLAIN * 2 + LORA + Load(offsets=3))
    private = replace(phase, name="private", held=PLAIN * 2 + LORA + Load(offsets=1))
    first = (replace(shared, down=NOTHING, private=PLAIN * 2), private)
    stays = ("private_adapter", "private_connector", "received", "trained")
    return PlannedMethod(
        rounds=(first, (shared, private)), server=PLAIN, leaves=BOTH, stays=stays, one_model=False
    )  # fmt: skip


def _fedmoe(options: Options, num_tasks: int, num_clients: int) -> PlannedMethod:
    """Plan FedMoE: all experts in round 1, at most all later; clients send activation probabilities and a loss.

    Both are measured on the validation part. The server keeps them for each client, together with the client's current
    set of experts and its last proven one.
    """
    experts = options.get("num_experts", 4)
    every = Load(loras=1, mlps=experts, router_rows=experts)
    told = Load(numbers=experts + 1)
    search = PlannedPhase(name="search", trained=every, mixed=experts, up=every + told, validates=True)
    train = replace(search, name="train", down=every)
    return PlannedMethod(
        rounds=((search,), (train,)),
        server=every + Load(numbers=3 * experts + 1) * num_clients,
        leaves=("text_adapter", "experts", "router"),
        one_model=False,
        upper_bound=True,
    )


def _pilot(options: Options, num_tasks: int, num_clients: int) -> PlannedMethod:
    """Plan Pilot: stage 1 and stage 2 in round 1, stage 2 in later rounds; see `pilot.methods.pilot`."""
    stage1 = options.get("stage1", True)
    crossing = num_tasks - 1 if options.get("cross_task_adapters", True) else 0
    peers = num_tasks - 1 if options.get("experts", "all_tasks") == "all_tasks" else 0
    client_mlp = 1 if stage1 and options.get("client_features_in_stage2", "add") == "add" else 0
    kept = Load(mlps=crossing + (1 if stage1 else 0), router_rows=num_tasks)
    stage2 = PlannedPhase(
        name="stage2",
        trained=Load(loras=1, mlps=1 + crossing, router_rows=num_tasks),
        frozen=Load(mlps=peers + client_mlp),
        mixed=num_tasks,
        down=Load(loras=1, mlps=1 + peers),
        up=PLAIN,
        private=kept,
    )
    if stage1:
        mining = PlannedPhase(name="stage1", share=0.5, trained=Load(loras=1, mlps=2), up=PLAIN, private=MLP)
        first: tuple[PlannedPhase, ...] = (mining, replace(stage2, share=0.5))
    else:
        first = (replace(stage2, down=NOTHING, private=kept + Load(mlps=peers)),)
    texts = num_clients if options.get("adaptive_text_aggregation", True) else 1
    own = {"client_adapter": stage1, "cross_task_adapter": crossing, "router": True}
    return PlannedMethod(
        rounds=(first, (stage2,)),
        server=Load(loras=texts, mlps=num_tasks),
        leaves=("text_adapter", "task_adapter"),
        stays=tuple(group for group, there in own.items() if there),
        one_model=False,
    )


def _pilot_fedavg_text(options: Options, num_tasks: int, num_clients: int) -> PlannedMethod:
    return _pilot({**options, "adaptive_text_aggregation": False}, num_tasks, num_clients)


def _pilot_momentum(options: Options, num_tasks: int, num_clients: int) -> PlannedMethod:
    """Plan Pilot with server momentum: the server also keeps momentum of the same size and the initial model."""
    plain = _pilot(options, num_tasks, num_clients)
    return replace(plain, server=plain.server * 2 + PLAIN)


_ADAPTIVE = _constant(_averaging(server=PLAIN * 3))
"""Plan of the adaptive server optimisers: the server keeps the model and two moments."""

TABLE: dict[str, Entry] = {
    "pilot": _pilot,
    "fedavg": _constant(_averaging()),
    "fedprox": _constant(_averaging(held=DIFFERENCE)),
    "fedmoe": _fedmoe,
    "fedavgm": _constant(_averaging(server=PLAIN * 2)),
    "fedadam": _ADAPTIVE,
    "fedyogi": _ADAPTIVE,
    "fedadagrad": _ADAPTIVE,
    # Both controls, their difference, and the sum of gradients.
    "scaffold": _constant(
        _averaging(
            PLAIN * 2, PLAIN * 2 + Load(numbers=1), leaves=(*BOTH, "control_change"), stays=("own_control",),
            private=PLAIN, held=PLAIN * 4,
        )
    ),
    "feddyn": _constant(
        _averaging(
            server=PLAIN * 2 + Load(numbers=1), stays=("own_dynamic",), private=PLAIN, held=PLAIN + DIFFERENCE
        )
    ),
    "ditto": _constant(_ditto()),
    "fedper": _constant(
        _averaging(LORA, LORA, leaves=("text_adapter",), stays=("connector",), private=MLP, one_model=False)
    ),
    "pfedme": _constant(_averaging(stays=("personal",), private=PLAIN, held=DIFFERENCE, one_model=False)),
    "feddat": _constant(_feddat()),
    "fedmosaic": _fedmosaic,
    "fedit": _constant(
        _averaging(
            LORA, LORA, leaves=("text_adapter",), stays=("connector",), trained=LORA, frozen=MLP, private=MLP
        )
    ),
    "ffa_lora": _constant(
        _averaging(
            LORA_B + MLP, LORA_B + MLP, leaves=(B, "connector"), stays=(A,), trained=LORA_B + MLP, frozen=LORA_A,
            private=LORA_A,
        )
    ),
    "fedsa_lora": _constant(
        _averaging(LORA_A + MLP, LORA_A + MLP, leaves=(A, "connector"), stays=(B,), private=LORA_B, one_model=False)
    ),
    "flora": _constant(_averaging(PLAIN, MLP + Load(offsets=1), down=MLP + Load(offsets=1), folded=1)),
    "flexlora": _ranks,
    "fedex_lora": _constant(_averaging(PLAIN, PLAIN + Load(offsets=1), down=PLAIN + Load(offsets=1), folded=1)),
    "hetlora": _hetlora,
    "taskavg": _taskavg,
    "clustered": _clustered,
    "pilot_fedavg_text": _pilot_fedavg_text,
    "pilot_exact_ata": _pilot,
    "pilot_shared_a": _pilot,
    "pilot_task_text": _pilot,
    "pilot_momentum": _pilot_momentum,
    "pilot_gap_ata": _pilot,
    "local": _constant(_alone(pooled=False)),
    "central": _constant(_alone(pooled=True)),
    "untuned": _constant(PlannedMethod()),
    "majority": _constant(PlannedMethod(one_model=False)),
}  # fmt: skip
