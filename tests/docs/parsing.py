"""Whether a program would take a command line, by its own parser; nothing is run."""

import re
import shlex
import subprocess
from collections.abc import Callable
from functools import partial

import click
import typer.main

from pilot.runs.workflow import rules

from .pages import ROOT, Command


def takes(command: Command) -> None:
    """Fail where the program of a command, or of one in a loop, has no such sub-command or option."""
    words = [word for word in shlex.split(command.text, comments=True) if not re.match(r"^[A-Z_]+=", word)]
    name = words[0].rsplit("/", 1)[-1]
    assert name in PARSERS, f"{command}: nothing is known about the options of {name}"
    PARSERS[name](words[1:])


def typer_takes(load: Callable[[], typer.Typer], words: list[str]) -> None:
    """Typer's parser: every group, then the command with its options and types."""
    group: click.Command = typer.main.get_command(load())
    context, rest = None, words
    while isinstance(group, click.Group):
        context = group.make_context(group.name or "", rest, parent=context, resilient_parsing=False)
        name, found, rest = group.resolve_command(context, [*context._protected_args, *context.args])
        assert found is not None, f"no sub-command {name}"
        group = found
    group.make_context(group.name, list(rest), parent=context)


def has_options(words: list[str]) -> None:
    """For a command that is cut short: its sub-commands and options are there, whatever else stands around them."""
    command: click.Command = typer.main.get_command(_pilot_bench())
    rest = list(words)
    while isinstance(command, click.Group) and rest and not rest[0].startswith(("-", ".")):
        name = rest.pop(0)
        assert name in command.commands, f"{words}: no sub-command {name}"
        command = command.commands[name]
    known = {name for option in command.params for name in (*option.opts, *option.secondary_opts)} | {"--help"}
    if not command.context_settings.get("ignore_unknown_options"):
        assert {word for word in rest if word.startswith("-")} <= known, f"{words}: expected options among {known}"


def _pilot_bench() -> typer.Typer:
    from pilot.cli.main import app

    return app


def snakemake_takes(words: list[str]) -> list[str]:
    """Snakemake's parser, and whether every target is a rule or a file; returns the targets."""
    from snakemake.cli import get_argument_parser

    parsed = get_argument_parser().parse_args(words)
    swallowed = [entry for entry in parsed.config or () if "=" not in entry]
    assert not swallowed, f"--config takes {swallowed} for settings: write -- before the targets"
    targets = sorted(parsed.targets)
    unknown = [target for target in targets if "/" not in target and target not in rules()]
    assert unknown == [], "no rules of the workflow"
    return targets


def make_takes(words: list[str]) -> None:
    """A target of the Makefile; `make -n` says what it would do, and does nothing."""
    done = subprocess.run(["make", "-n", *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout, done.stderr


PARSERS: dict[str, Callable[[list[str]], None]] = {
    "pilot-bench": partial(typer_takes, _pilot_bench),
    "make": make_takes,
}
