"""Overhead of Flower's simulation engine (Ray) per round, with clients that send back the payload without training."""

import time
from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise
from statistics import median
from typing import Any

from pilot.bench.scale.streaming import TASK, ShiftedClients
from pilot.federation.checkpoint import Progress
from pilot.federation.driver import Driver
from pilot.federation.participation import Participation, schedule
from pilot.federation.transport import Transport


def simulation(clients: int, width: int, rounds: int) -> dict[str, Any]:
    """Time rounds of FedAvg over Flower's simulation and over a local transport, with the same driver and sizes.

    Start-up ends with the first round, which includes the nodes' hello messages; the median is over the other rounds.
    """
    made = ShiftedClients(clients, width)
    began = time.perf_counter()
    stamps = _simulated(made, rounds)
    local = [time.perf_counter(), *_rounds(made, made, rounds)]
    return {
        "clients": clients, "parameters": width, "rounds": rounds, "startup_seconds": stamps[0] - began,
        "round_seconds": median(b - a for a, b in pairwise(stamps)),
        "local_round_seconds": median(b - a for a, b in pairwise(local)),
    }  # fmt: skip


def _rounds(made: ShiftedClients, transport: Transport, rounds: int) -> list[float]:
    """Run the rounds; return the time at which each one ended."""
    driver, stamps = made.driver(), list[float]()
    full_participation = schedule(Participation(), list(made.num_examples), rounds, 0)
    plan = replace(driver.plan, rounds=rounds, schedule=full_participation)

    def note(now: Progress) -> None:
        stamps.append(time.perf_counter())

    Driver(plan, transport, driver.ledger, checkpoint=note).run(made.start())
    return stamps


def _simulated(made: ShiftedClients, rounds: int) -> list[float]:
    from flwr.app import Context
    from flwr.serverapp import Grid, ServerApp
    from flwr.simulation import run_simulation

    from pilot.federation.flower.server import simulation_backend
    from pilot.federation.flower.transport import FlowerTransport

    app, stamps = ServerApp(), list[float]()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        stamps.extend(_rounds(made, FlowerTransport(grid, {}, {}), rounds))

    run_simulation(
        app, _make_echo_app(made.num_examples.values()), len(made.num_examples), backend_config=simulation_backend()
    )
    return stamps


def _make_echo_app(num_examples: Iterable[int]) -> Any:
    """Make a ClientApp that sends back the payload it received; the partition id is the client's number."""
    from flwr.app import Context, Message
    from flwr.clientapp import ClientApp

    from pilot.federation.client import ClientReport
    from pilot.federation.flower.messages import pack_result, unpack_state
    from pilot.federation.flower.wire import pack
    from pilot.federation.participant import ClientResult
    from pilot.methods.base import Update

    app, counts = ClientApp(), list(num_examples)

    @app.query("hello")
    def hello(message: Message, context: Context) -> Message:
        client = int(str(context.node_config["partition-id"]))
        return Message(pack({"client": client, "refused": ""}), reply_to=message)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        client = int(str(context.node_config["partition-id"]))
        update = Update(client, TASK, counts[client], unpack_state(message.content, "payload"))
        report = ClientReport(0, {}, {}, 0, {}, 0, 0)
        return Message(pack_result(ClientResult(update, report, None, 0.0, 0.0)), reply_to=message)

    return app
