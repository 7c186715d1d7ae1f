"""A failed job says why in the terminal, and its log stays."""

from pathlib import Path

import pytest

from .workflow import PARTS, copy_repository, snakemake

WRONG = 'from pilot.errors import UserError\n\nraise UserError("no room for the data")\n'
RESULTS = "my results & more"
"""A name that a shell takes apart unless it is quoted."""
LOG = f"{RESULTS}/smoke/smoke/logs/data.log"


@pytest.mark.slow
def test_a_failed_job(tmp_path: Path) -> None:
    copy = copy_repository(tmp_path / "copy", methods="fedavg")
    arguments = (f"{RESULTS}/smoke/smoke/data/manifest.json", "--cores", "1", "--config", f"results={RESULTS}")
    source = copy / "pilot/data/build.py"
    text = source.read_text()
    source.write_text(WRONG)
    failed = snakemake(*arguments, folder=copy)
    assert failed.code == 1
    assert "returned non-zero exit status 2." in failed.errors  # the command's own, not that of the pipe to the log
    assert "\nerror: no room for the data\n" in failed.errors
    assert f"{LOG} (check log file(s) for error details)" in failed.errors
    assert (copy / LOG).read_text() == "error: no room for the data\n"
    assert not (copy / RESULTS / "smoke/smoke/data/manifest.json").exists()

    source.write_text(text)
    done = snakemake(*arguments, folder=copy)
    assert done.code == 0, done.text
    progress = (copy / LOG).read_text()
    assert progress.startswith("building data of smoke: ") and "no room" not in progress
    assert progress in done.errors  # what people see while a job runs is what its log holds
    assert {path.name for path in copy.iterdir()} == {*PARTS, "Snakefile", ".snakemake", RESULTS}
