"""Bad input of `pilot-bench publish`: one message that names the file or field, exit code 2, and nothing written."""

import shutil
from pathlib import Path

import pytest

from pilot.errors import UserError
from pilot.report.publish.write import publish

from ..command_line import call
from .conftest import STATEMENTS as ABOUT

pytestmark = pytest.mark.slow

RUN = "runs/pilot/seed0"
DAMAGED = {
    "a missing sample file": ("eee", f"{RUN}/eval/samples.jsonl", None),
    "no scores by example": ("eee", f"{RUN}/eval/per_example.jsonl", None),
    "a damaged sample file": ("eee", f"{RUN}/eval/samples.jsonl", b"{}\n"),
    "missing questions": ("eee", "data/scene-vqa/records.parquet", None),
    "damaged metrics": ("hf-eval-results", f"{RUN}/eval/metrics.json", b"{"),
    "an unfinished run": ("ro-crate", f"{RUN}/manifest.json", None),
    "a damaged evaluation": ("ro-crate", f"{RUN}/eval/cross-task/samples.jsonl", b"{}\n"),
    "a damaged schedule": ("ro-crate", f"{RUN}/participation.json", b"{}\n"),
    "a missing card": ("ro-crate", "data/scene-vqa/card.md", None),
    "a damaged card": ("croissant", "data/scene-vqa/card.json", b"{"),
    "damaged records": ("croissant", "data/scene-ground/records.parquet", b"PAR1"),
    "a damaged partition": ("croissant", "partition/assignment.parquet", b"PAR1"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_missing_or_damaged_file_is_named(case: str, publishable: Path, statements: Path, tmp_path: Path) -> None:
    form, name, content = DAMAGED[case]
    copy = Path(shutil.copytree(publishable, tmp_path / "smoke/smoke"))
    (copy / name).unlink() if content is None else (copy / name).write_bytes(content)
    done = call("publish", copy, "--format", form, "--to", tmp_path / "out", "--about", statements)
    assert done.returncode == 2 and done.stderr.count("error: ") == 1, done.stderr
    assert Path(name).name in done.stderr and not (tmp_path / "out").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["smoke"], "nothing is left behind"


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("licence: free\n", (), "field licence"),
        ("autor: {name: A}\n", (), "autor"),
        ("date: 2026-13-01\n", (), "month must be"),
        ("author: {name: A}\n", (), "field benchmark"),
        (ABOUT, ("--client", 9), "no client 9"),
        (ABOUT, ("--format", "croissant", "--client", 1), "--client: not valid"),
        (ABOUT, ("--to", "."), "--to: exists"),
    ],
)
def test_bad_statements_and_options(
    text: str, options: tuple[object, ...], message: str, publishable: Path, tmp_path: Path
) -> None:
    (tmp_path / "about.yaml").write_text(text)
    usual = ("--format", "hf-eval-results", "--to", tmp_path / "out", "--about", tmp_path / "about.yaml")
    done = call("publish", publishable, *usual, *options)
    assert done.returncode == 2 and message in done.stderr, done.stderr
    assert not (tmp_path / "out").exists()


def test_two_scenarios_make_no_crate(publishable: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        shutil.copytree(publishable, tmp_path / "results/smoke" / name)
    with pytest.raises(UserError, match="ro-crate: expected runs of one scenario"):
        publish(tmp_path / "results", "ro-crate", tmp_path / "out")
    assert not (tmp_path / "out").exists()
