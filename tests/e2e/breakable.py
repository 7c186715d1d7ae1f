"""A deployment on this machine whose processes tests kill and start again."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from pilot.deployment.local import LocalDeployment, _node_id
from pilot.errors import UserError
from pilot.io.processes import Process

REJOIN_SECONDS = 300.0
"""Time limit for rejoining: Flower accepts a node with the same key 60 s after its predecessor's last heartbeat."""


class BreakableDeployment(LocalDeployment):
    """A deployment with what can happen to its processes."""

    def restart_superlink(self) -> None:
        """Restart a killed SuperLink, and the nodes, which it no longer knows.

        The run has ended; submitted again with `resume`, it continues from its last finished round.
        """
        self._start_superlink()
        for node in self._node.values():
            node.kill()
        self._start_nodes()

    def launch_unregistered_node(self, name: str, key: Path | None, authority: Path | None = None) -> Process:
        """Start a SuperNode that is not part of the deployment, with the configuration of node 0.

        Args:
            name: name of its log.
            key: its private key, if it has one.
            authority: the certificate that it trusts; the deployment's by default.
        """
        return self._launch(name, 0, key, authority or self.certificates.authority)

    def restart_node(self, number: int) -> None:
        """Restart a killed SuperNode, repeatedly, until the SuperLink accepts it.

        Raises:
            UserError: it is not accepted in time.
        """
        until = time.monotonic() + REJOIN_SECONDS
        while time.monotonic() < until:
            seen = len(self._node[number].lines())
            node = self._node[number] = self._launch_node(number)
            while node.alive and time.monotonic() < until:
                if _node_id(node, seen):
                    return
                time.sleep(0.2)
            time.sleep(1.0)
        raise UserError(f"node {number}: not accepted within {REJOIN_SECONDS:.0f} s; see {self._node[number].log}.")

    def kill_node(self, number: int) -> None:
        """Kill a SuperNode (SIGKILL); its running task ends soon after."""
        self._node[number].kill()

    def kill_superlink(self) -> None:
        """Kill the SuperLink (SIGKILL); the ServerApp ends soon after."""
        assert self._superlink
        self._superlink.kill()

    def kill_server_app(self) -> None:
        """Kill the ServerApp's process (SIGKILL).

        Raises:
            ProcessLookupError: no such process runs.
        """
        self._kill(lambda command: "flwr-serverapp" in command)

    def kill_task(self, number: int) -> None:
        """Kill the process that handles a node's message (SIGKILL).

        Raises:
            ProcessLookupError: no such process runs.
        """
        address = f"127.0.0.1:{self._ports[f'node-{number}']} "
        self._kill(lambda command: "flwr-clientapp" in command and address in command)

    def _kill(self, wanted: Callable[[str], bool]) -> None:
        found = [process for process, command in self.processes.running().items() if wanted(command)]
        if not found:
            raise ProcessLookupError("no such process in this deployment")
        for process in found:
            os.kill(process, signal.SIGKILL)
