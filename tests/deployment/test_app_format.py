"""The app's description in pyproject.toml, by the rules of the installed Flower: format 1, and what its hub accepts."""

import re
import subprocess
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from flwr.common.config import validate_config
from flwr.supercore import constant
from flwr.supercore.fab_format_version import normalize_and_validate_fab_format
from pathspec import GitIgnoreSpec

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_format_and_versions() -> None:
    found = normalize_and_validate_fab_format(PROJECT)
    assert (found.fab_format_version, found.flwr_version_target) == (1, version("flwr"))
    assert validate_config(PROJECT, check_module=True, project_dir=ROOT) == (True, [], [])


def test_settings_are_literal_values() -> None:
    """Those of a run are named in the file; `flwr run . --run-config` replaces some."""
    config = PROJECT["tool"]["flwr"]["app"]["config"]
    assert {"scenario", "profile", "method", "seed", "results"} <= config.keys()
    assert all(isinstance(value, str | int | float | bool) for value in config.values())


def test_the_hub_takes_what_the_page_archives() -> None:
    """By number and size of the files that `flwr app publish` sends; docs/federation.md names them."""
    page = (ROOT / "docs/federation.md").read_text(encoding="utf-8")
    (names,) = re.findall(r"^git archive --prefix=hub/ HEAD (.*) \| tar x$", page, re.MULTILINE)
    listed = subprocess.run(["git", "ls-files", "-z", "--", *names.split()], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a clone")
    sent = GitIgnoreSpec.from_lines(constant.APP_PUBLISH_INCLUDE_PATTERNS)
    files = [ROOT / name for name in listed.stdout.split("\0")[:-1] if sent.match_file(name)]
    sizes = [file.stat().st_size for file in files]
    assert 500 < len(files) <= constant.MAX_FILE_COUNT and sum(sizes) <= constant.MAX_TOTAL_BYTES
    assert max(sizes) <= constant.MAX_FILE_BYTES and len(PROJECT["project"]["name"]) <= constant.MAX_NAME_LENGTH
