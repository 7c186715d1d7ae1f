"""Training of one run, from a run specification to a run directory, from the start or resumed."""

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pilot.backbone.backbone import Backbone
from pilot.backbone.feature_files import open_features
from pilot.backbone.from_profile import load_backbone
from pilot.backbone.server_backbone import ServerBackbone
from pilot.config.identity import identity_digest
from pilot.errors import UserError
from pilot.federation.assemble import (
    make_participants,
    make_plan,
    needs_validation,
    num_steps,
    participation_json,
    privacy_json,
)
from pilot.federation.blind import write_blind_run
from pilot.federation.checkpoint import (
    Progress,
    load_last,
    load_progress,
    load_round,
    prune_rounds,
    save_progress,
    versions_to_keep,
)
from pilot.federation.client import ClientModel, build_client_model
from pilot.federation.driver import Driver
from pilot.federation.identity import CLIENTS, archive_different_run, archive_unusable_run
from pilot.federation.kept_messages import FOLDER as MESSAGES
from pilot.federation.kept_messages import KeepingTransport
from pilot.federation.ledger import Ledger
from pilot.federation.nodes import Register
from pilot.federation.shards import Example, LazyExamples, records_of_part
from pilot.federation.spec import RunSpec, run_config, scenario_digests, write_manifest
from pilot.federation.store import ClientStore
from pilot.federation.timing import Timing
from pilot.federation.transport import LocalTransport, Transport
from pilot.federation.unfinished import remove_phase_checkpoints
from pilot.io.atomic import remove, remove_folder, remove_temporary_files, write_json, write_jsonl
from pilot.io.layout import EVAL
from pilot.io.lock import locked
from pilot.methods.base import Method, Phase
from pilot.methods.blind import Blind


def train_run(
    spec: RunSpec,
    scenario_dir: Path,
    run_dir: Path,
    resume: bool,
    progress: Callable[[int, int], None],
    replace: bool = False,
) -> None:
    """Train in this process and write the run directory; `manifest.json` is written last.

    With `resume`, a checkpoint of the same identity is continued, and a different run is kept
    (see `archive_different_run`); otherwise the run starts from scratch.

    Raises:
        UserError: another process trains in `run_dir`, it holds a different run, or an input of training is damaged.
    """
    method = spec.make_method()

    def load(part: str) -> dict[int, Sequence[Example]]:
        shards = records_of_part(spec.scenario, scenario_dir, part, frame=spec.profile.frame)
        return _pool({k: LazyExamples(backbone, features, records) for k, records in shards.items()}, method)

    with locked(run_dir):
        digests = scenario_digests(scenario_dir)
        if isinstance(method, Blind):
            ServerRun(spec, Register(digests, {}, {}), run_dir, resume, progress, replace).archive_different_run()
            if not resume:
                remove_folder(run_dir / EVAL)
            write_blind_run(spec, digests, run_dir)
            return
        features, backbone = open_features(scenario_dir / "features"), load_backbone(spec.profile, lean=True)
        examples, stores = load("train"), run_dir / CLIENTS
        held_out = load("validation") if needs_validation(spec, method) else {}
        participants = make_participants(
            spec, backbone, features, examples, lambda client: stores / str(client), held_out, digests
        )
        register = Register(digests, {k: len(v) for k, v in examples.items()}, {})
        run = ServerRun(spec, register, run_dir, resume, progress, replace)
        run_server(run, backbone, LocalTransport(participants))


@dataclass(frozen=True)
class ServerRun:
    """Inputs of the server's side of a run.

    Attributes:
        register: the server's information about the clients' data.
        resume: whether to continue from a checkpoint of the same identity, if there is one.
        progress: called with optimiser steps done and in total.
        replace: with `resume`, whether to rename the folder of a different run instead of refusing.
        warn: called with each warning.
    """

    spec: RunSpec
    register: Register
    run_dir: Path
    resume: bool
    progress: Callable[[int, int], None]
    replace: bool = False
    warn: Callable[[str], None] = field(default=lambda text: print(f"warning: {text}", file=sys.stderr, flush=True))

    def config(self) -> dict[str, Any]:
        """Return the content of the run's `config.json`."""
        return run_config(self.spec, vars(self.spec.make_method()), self.register.digests)

    def archive_different_run(self) -> None:
        """Keep a run that cannot be resumed, unless this one starts from scratch; raises as the functions do."""
        if not self.resume:
            return
        archive_different_run(self.run_dir, self.config(), self.replace, self.warn)
        if not isinstance(self.spec.make_method(), Blind):  # which has no checkpoints
            archive_unusable_run(self.run_dir, self.config(), self.replace, self.warn)


def run_server(run: ServerRun, backbone: Backbone | ServerBackbone, transport: Transport) -> None:
    """Run the rounds over `transport` and write the run directory, wherever the clients run.

    The caller must hold the folder's lock.

    Raises:
        UserError: the folder holds a different run, or a finished one without checkpoints, or a client's private state
            is missing or altered at the end.
    """
    config, run_dir, folder = run.config(), run.run_dir, run.run_dir / "checkpoint"
    digest = identity_digest(config)
    run.archive_different_run()
    remove(run_dir / "manifest.json")
    write_json(run_dir / "config.json", config)
    start = load_progress(folder, digest, transport.verify, run.warn) if run.resume else None
    if start is None:
        for name in (EVAL, MESSAGES):
            remove_folder(run_dir / name)
    if not run.resume:
        _remove_all_phase_checkpoints(run_dir / CLIENTS)
    remove_temporary_files(run_dir)
    prune_rounds(folder, start or Progress())
    timing = Timing(run_dir / "timing.json", start is not None, run.warn)
    if kept := run.spec.profile.kept_rounds:
        transport = KeepingTransport(transport, run_dir / MESSAGES, kept)
    driver = _driver(run, backbone, transport, start)
    write_json(run_dir / "participation.json", participation_json(run.spec, driver.plan))

    def checkpoint(now: Progress) -> None:
        save_progress(folder, now, digest)
        write_jsonl(run_dir / "rounds.jsonl", now.history)
        timing.write(driver.clock)

    driver.checkpoint = checkpoint
    final = driver.run(start)
    write_jsonl(run_dir / "rounds.jsonl", final.history)
    write_json(run_dir / "ledger.json", driver.ledger.to_json())
    privacy = privacy_json(run.spec, driver.plan, final.history)
    if privacy is not None:
        write_json(run_dir / "privacy.json", privacy)
    _clean_stores(run_dir / CLIENTS, final)
    timing.write(driver.clock)
    for versions in (final.versions, *final.evaluated.values()):
        if not (problem := transport.verify(versions, wait=False)):
            continue
        raise UserError(
            f"{run_dir}: incomplete run, since private states are missing or altered: {problem.rstrip('.')}. "
            "Run the same command again: it resumes from the previous round."
        )
    write_manifest(run_dir, config)


def _driver(
    run: ServerRun, backbone: Backbone | ServerBackbone, transport: Transport, start: Progress | None
) -> Driver:
    plan = make_plan(run.spec, run.spec.make_method(), backbone, run.register.num_examples)
    total = num_steps(run.spec, plan)
    done = [sum(client["steps"] for row in start.history for client in row["clients"]) if start else 0]

    def advance(count: int) -> None:
        done[0] += count
        run.progress(done[0], total)

    size = backbone.num_language_parameters
    ledger = Ledger.from_json(start.ledger, size) if start else Ledger(size)
    return Driver(plan, transport, ledger, advance)


def _clean_stores(stores: Path, final: Progress) -> None:
    """Remove unfinished phases, private states that no kept checkpoint names, and folders that are then empty."""
    _remove_all_phase_checkpoints(stores)
    for folder in sorted(stores.glob("[0-9]*")):
        keep = versions_to_keep(final.versions, *final.kept, client=int(folder.name))
        ClientStore(folder).keep(keep)
        if not any(folder.iterdir()):
            folder.rmdir()


def _remove_all_phase_checkpoints(stores: Path) -> None:
    """Remove the unfinished phases of all clients."""
    for folder in sorted(stores.glob("[0-9]*")):
        remove_phase_checkpoints(folder)


def client_models(
    spec: RunSpec, backbone: Backbone, run_dir: Path, round_number: int | None = None
) -> dict[tuple[int, ...], Callable[[], ClientModel]]:
    """Return the run's models after training: for each group of clients that share a model, a function that loads it.

    Only one model can be loaded at a time, since the LoRA is part of the backbone.

    Args:
        spec: the run's specification.
        backbone: the backbone that it was trained on.
        run_dir: its folder.
        round_number: an evaluated round, for the models after that round; by default the last one.

    Raises:
        UserError: no round was finished, or the checkpoint is damaged. A loader raises it if the client's private state
            is damaged, or is missing (after a deployment it is on the client's node). A method's single model needs
            none.
    """
    method, folder = spec.make_method(), run_dir / "checkpoint"
    progress = load_last(folder) if round_number is None else load_round(folder, round_number)
    phase = method.final_phase(round_number or spec.profile.rounds) or Phase("none", frozenset(), frozenset())
    everyone = tuple(range(len(spec.scenario.client_tasks)))
    infos = spec.clients(method)
    if method.single_model and method.exchanges:  # all of it is sent to a client that holds nothing
        new = dataclasses.replace(infos[0], client=len(infos))
        model = method.payload(progress.server, new, phase)
        return {everyone: lambda: build_client_model(backbone, method, phase, new, {}, model)}
    owners = {everyone: infos[0]} if method.single_model else {(info.client,): info for info in infos}

    def loader(client: int) -> Callable[[], ClientModel]:
        info = infos[client]
        store, version = ClientStore(run_dir / CLIENTS / str(client)), progress.versions.get(client)
        payload = method.payload(progress.server, info, phase)
        return lambda: build_client_model(backbone, method, phase, info, store.load(version), payload)

    return {clients: loader(info.client) for clients, info in owners.items()}


def _pool(examples: Mapping[int, Sequence[Example]], method: Method) -> dict[int, Sequence[Example]]:
    if not method.pooled:
        return dict(examples)
    return {0: [example for client in sorted(examples) for example in examples[client]]}
