"""Commands that measure and present what messages reveal."""

from pathlib import Path
from typing import Annotated

import typer

from pilot.cli.options import PaperOption
from pilot.cli.progress import progress


def audit(runs: Annotated[list[Path], typer.Argument(help="Run directories whose messages were kept.")]) -> None:
    """Attack the kept messages of runs as a curious server would; write audit/findings.json of each."""
    from pilot.evaluation.audit.run import audit_run

    for run_dir in runs:
        with progress(f"auditing {run_dir}") as advance:
            found = audit_run(run_dir, advance)
        typer.echo(str(found), err=True)


def privacy(
    folders: Annotated[list[Path], typer.Argument(help="Scenario folders: the main one, then some with other noise.")],
    paper: PaperOption = False,
) -> None:
    """Write privacy/tables and privacy/figures of the first folder: quality, bytes and what messages reveal."""
    from pilot.report.tables.privacy import write_privacy

    for path in write_privacy(folders, paper):
        typer.echo(str(path), err=True)


COMMANDS = (audit, privacy)
