"""The product's own Flower app, with every message written to the results folder as it passes the server."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from flwr.app import Context, Message
from flwr.serverapp import Grid, ServerApp

from pilot.deployment import app

client = app.client
server = ServerApp()


class Recorder:
    """Stands before a grid; keeps the name and bytes of every tensor and every other value."""

    def __init__(self, grid: Grid, folder: Path) -> None:
        self._grid, self._folder, self._count = grid, folder, 0
        folder.mkdir(parents=True, exist_ok=True)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._grid, name)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Record what goes to nodes."""
        kept = list(messages)
        for message in kept:
            self._write("down", message)
        return self._grid.push_messages(kept)

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Record what comes from nodes."""
        replies = list(self._grid.pull_messages(message_ids))
        for message in replies:
            self._write("up", message)
        return replies

    def _write(self, direction: str, message: Message) -> None:
        self._count += 1
        path = self._folder / f"{self._count:04}-{direction}"
        if message.has_error():
            path.with_suffix(".json").write_text(json.dumps({"error": message.error.reason}))
            return
        content = message.content
        values = {name: dict(record) for name, record in content.config_records.items()}
        tensors = {name: list(record) for name, record in content.array_records.items()}
        path.with_suffix(".json").write_text(json.dumps({"values": values, "tensors": tensors}, default=str))
        path.with_suffix(".bin").write_bytes(
            b"".join(array.data for record in content.array_records.values() for array in record.values())
        )


@server.main()
def main(grid: Grid, context: Context) -> None:
    """As the product's own, seen through the recorder."""
    options = context.run_config
    folder = Path(str(options["results"])) / "messages" / str(options["method"])
    app.main(Recorder(grid, folder), context)  # type: ignore[arg-type]
