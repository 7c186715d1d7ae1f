"""What Flower's command line gets to read."""

import os
import sys
import tomllib
from pathlib import Path

import pytest
from flwr.cli.build import build_fab_from_disk
from flwr.cli.config_utils import load_and_validate
from hypothesis import given
from hypothesis import strategies as st

from pilot.deployment import flower_command
from pilot.deployment.flower_command import FlowerCommand, error_message, write_app, write_toml
from pilot.errors import UserError
from pilot.io.processes import without_colours

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x7f"))
VALUES = st.one_of(TEXT, st.integers(-(2**62), 2**62), st.booleans(), st.floats(allow_nan=False, allow_infinity=False))


@given(values=st.dictionaries(st.from_regex(r"[a-z][a-z-]{0,8}", fullmatch=True), VALUES))
def test_toml_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, str | int | float | bool]
) -> None:
    path = tmp_path_factory.mktemp("toml") / "values.toml"
    write_toml(path, values)
    read = tomllib.loads(path.read_text(encoding="utf-8"))
    assert read == values
    assert {key: type(value) for key, value in read.items()} == {key: type(value) for key, value in values.items()}


def test_app_is_valid_to_flower_and_holds_no_code(tmp_path: Path) -> None:
    write_app(tmp_path, {"scenario": 'a "quoted" name', "seed": 3, "resume": True})
    config, _ = load_and_validate(tmp_path / "pyproject.toml")
    assert config["tool"]["flwr"]["app"]["config"] == {"scenario": 'a "quoted" name', "seed": 3, "resume": True}
    assert config["tool"]["flwr"]["app"]["components"]["serverapp"] == "pilot.deployment.app:server"
    assert b".py" not in build_fab_from_disk(tmp_path).replace(b"pyproject", b"")


@pytest.mark.parametrize(
    ("said", "matters"),
    [
        ('{"success": false, "error-message": "Using SuperLink: pilot\\n\\nIt is\\n away."}', "It is away."),
        ("Traceback (most recent call last):\n  File x\nConnectionError: nobody\n", "ConnectionError: nobody"),
        ("Error: [code: 7] The key\nis registered.", "Error: [code: 7] The key is registered."),
        ("", ""),
    ],
)
def test_one_sentence_is_left_of_what_flower_says(said: str, matters: str) -> None:
    assert error_message(said) == matters


def test_a_failed_command_is_one_line_and_a_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flower = FlowerCommand(tmp_path, dict(os.environ))
    code = "for line in range(70): print('at', line)\nraise RuntimeError('what matters')"
    with pytest.raises(UserError) as caught:
        flower._run([sys.executable, "-c", code], "submitting the run")
    assert str(caught.value) == f"submitting the run failed: RuntimeError: what matters. The log is {flower.log}."
    assert len(flower.log.read_text().splitlines()) > 70
    monkeypatch.setattr(flower_command, "COMMAND_SECONDS", 0.2)
    with pytest.raises(UserError, match="asking for run 7 failed: no answer within 0 s"):
        flower._run([sys.executable, "-c", "import time; time.sleep(60)"], "asking for run 7")


@pytest.mark.parametrize("said", ["Loading project", "[]", "{}", '{"runs": []}', '{"runs": [{"status": "x"}]}'])
def test_an_answer_that_is_no_json_is_one_line_and_a_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    flower = FlowerCommand(tmp_path, dict(os.environ))
    monkeypatch.setattr(FlowerCommand, "_run", lambda *_: said)
    with pytest.raises(UserError, match=r"submitting the run failed: not the JSON .* The log is .*failed-command\.log"):
        flower.submit(tmp_path / "app", {})
    with pytest.raises(UserError, match="asking for run 7 failed: not the JSON"):
        flower.status("7")
    assert said in flower.log.read_text()


def test_without_colours() -> None:
    assert without_colours("\x1b[92mINFO \x1b[0m:  up") == "INFO :  up"
    assert without_colours("plain [text] m") == "plain [text] m"
