"""Flower's command line, as used by a deployment: register nodes, submit a run, follow it, get its status."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilot.errors import UserError
from pilot.io.atomic import write_text
from pilot.io.processes import end_with_parent, last_error_lines, without_colours

CONNECTION = "pilot"
APP = "pilot.deployment.app"
COMMAND_SECONDS = 300.0
"""Time limit for a command; on a busy machine, starting one takes tens of seconds."""
ENVIRONMENT = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
}
"""Environment variables: no telemetry, no downloads, no installation, one thread per process."""

Value = str | int | float | bool


@dataclass(frozen=True)
class RunStatus:
    """Status of a run: `finished:completed`, or another status with Flower's reason."""

    status: str
    details: str

    @property
    def completed(self) -> bool:
        """True if the ServerApp completed its work."""
        return self.status == "finished:completed"


@dataclass(frozen=True)
class FlowerCommand:
    """Flower's command `flwr`, for one SuperLink.

    Attributes:
        home: folder that replaces `~/.flwr`; its `config.toml` names the SuperLink.
        environment: complete environment of the commands.
    """

    home: Path
    environment: Mapping[str, str]

    @property
    def log(self) -> Path:
        """File with the output of the last failed command."""
        return self.home / "failed-command.log"

    def connect(self, address: str, authority: Path) -> None:
        """Write the connection settings that all commands use."""
        connection = _toml({"address": address, "root-certificates": str(authority)})
        write_text(self.home / "config.toml", f"[superlink.{CONNECTION}]\n{connection}")

    def register(self, public_keys: Sequence[Path]) -> None:
        """Register the nodes' public keys, all in one process, since starting one takes a second.

        Raises:
            UserError: Flower refuses a key, for example because it was registered before.
        """
        commands = [["supernode", "register", str(key), CONNECTION] for key in public_keys]
        code = (
            f"import sys, click\nfrom flwr.cli.app import app\ntry:\n    for each in {commands!r}:\n"
            "        app(each, standalone_mode=False)\n"
            "except click.ClickException as error:\n    sys.exit(f'Error: {error.format_message()}')"
        )
        self._run([sys.executable, "-c", code], "registering the nodes' keys")

    def submit(self, folder: Path, config: Mapping[str, Value], app: str = APP) -> str:
        """Submit a run of the installed app with this run configuration.

        Args:
            folder: folder for the app's description, which is all that is sent: the code is the installed package.
            config: the run configuration.
            app: module that holds `server` and `client`.

        Returns:
            Flower's id of the run.

        Raises:
            UserError: the SuperLink does not answer or does not take the run.
        """
        write_app(folder, config, app)
        command = ["flwr", "run", str(folder), CONNECTION, "--format", "json"]
        return str(self._run_json(command, "submitting the run", lambda said: said["run-id"]))

    def follow(self, run: str, show: Callable[[str], None]) -> RunStatus:
        """Pass the ServerApp's log to `show` line by line until the run ends; return its status.

        Raises:
            UserError: the SuperLink no longer answers.
        """
        command = ["flwr", "log", run, CONNECTION, "--stream"]
        with subprocess.Popen(
            command,
            env=dict(self.environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=end_with_parent,
        ) as process:
            assert process.stdout
            try:
                for line in process.stdout:
                    show(without_colours(line.rstrip("\n")))
            except BaseException:
                process.kill()
                raise
        return self.status(run)

    def status(self, run: str) -> RunStatus:
        """Return the status of a run.

        Raises:
            UserError: the SuperLink does not answer or does not know the run.
        """
        command = ["flwr", "list", "--run-id", run, CONNECTION, "--format", "json"]
        found: RunStatus = self._run_json(
            command, f"asking for run {run}",
            lambda said: RunStatus(str(said["runs"][0]["status"]), str(said["runs"][0]["status-details"])),
        )  # fmt: skip
        return found

    def stop(self, run: str) -> None:
        """Stop a run at once; its clients' answers are discarded."""
        self._run(["flwr", "stop", run, CONNECTION, "--format", "json"], f"stopping run {run}")

    def _run_json(self, command: Sequence[str], what: str, pick: Callable[[Any], Any]) -> Any:
        """Run a command that answers in JSON; return what `pick` takes from the answer."""
        said = self._run(command, what)
        try:
            return pick(json.loads(said))
        except (ValueError, LookupError, TypeError) as error:
            write_text(self.log, f"$ {shlex.join(command)}\n{without_colours(said)}\n")
            raise UserError(f"{what} failed: not the JSON that was expected. The log is {self.log}.") from error

    def _run(self, command: Sequence[str], what: str) -> str:
        try:
            done = subprocess.run(
                command, env=dict(self.environment), capture_output=True, text=True, stdin=subprocess.DEVNULL,
                timeout=COMMAND_SECONDS,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise UserError(f"{what} failed: no answer within {COMMAND_SECONDS:.0f} s.") from None
        if done.returncode != 0 or '"success": false' in done.stdout:
            said = without_colours(done.stdout + done.stderr).strip()
            write_text(self.log, f"$ {shlex.join(command)}\n{said}\n")
            raise UserError(f"{what} failed: {error_message(said).rstrip('.')}. The log is {self.log}.")
        return done.stdout


def error_message(said: str) -> str:
    """Extract the error message from the output of a failed Flower command, in text or as JSON."""
    try:
        text = str(json.loads(said)["error-message"])
    except (ValueError, KeyError, TypeError):
        text = last_error_lines(said.splitlines())
    return " ".join(text.strip().split("\n\n")[-1].split())


def environment(home: Path) -> dict[str, str]:
    """Return the variables that Flower's programs need in addition to this process's environment.

    The programs start each other by name, so the folder of this Python comes first in `PATH`.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return {**ENVIRONMENT, "FLWR_HOME": str(home), "PATH": path}


def write_app(folder: Path, config: Mapping[str, Value], app: str = APP) -> None:
    """Write the folder that `flwr run` reads: the installed module that holds the apps, and the run configuration."""
    write_text(folder / "pyproject.toml", _pyproject(config, app))
    write_text(folder / "README.md", "A run of pilot-bench; the code is the installed package.\n")


def write_toml(path: Path, values: Mapping[str, Value]) -> None:
    """Write a flat TOML file, as `--node-config` and `--run-config` expect it."""
    write_text(path, _toml(values))


def _toml(values: Mapping[str, Value]) -> str:
    """Format values as TOML; every JSON scalar is a TOML scalar."""
    return "".join(f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in values.items())


def _pyproject(config: Mapping[str, Value], app: str) -> str:
    return (
        '[project]\nname = "pilot-bench"\nversion = "0.1.0"\ndescription = "A run of pilot-bench"\n'
        'license = "Apache-2.0"\ndependencies = ["flwr>=1.41,<1.42"]\n\n'
        '[tool.flwr.app]\npublisher = "pilot-bench"\nfab-include = ["README.md"]\n\n'
        f'[tool.flwr.app.components]\nserverapp = "{app}:server"\nclientapp = "{app}:client"\n\n'
        f"[tool.flwr.app.config]\n{_toml(config)}"
    )
