"""`pilot-bench` in this process: what it prints and its exit code, without the seconds that a process starts in."""

import io
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from typing import NamedTuple
from unittest.mock import patch

from pilot.cli.main import main

VARIABLES = {"OMP_NUM_THREADS": "1", "COLUMNS": "200", "NO_COLOR": "1"}


class Done(NamedTuple):
    """A finished command."""

    returncode: int
    stdout: str
    stderr: str


def call(*arguments: object, **variables: str) -> Done:
    """Run `pilot-bench` with these arguments."""
    out, err = io.StringIO(), io.StringIO()
    command, environment = ["pilot-bench", *map(str, arguments)], VARIABLES | variables
    patched = patch.object(sys, "argv", command), patch.dict(os.environ, environment)
    with redirect_stdout(out), redirect_stderr(err), patched[0], patched[1]:
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
    return Done(code, out.getvalue(), err.getvalue())
