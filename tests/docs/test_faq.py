"""docs/faq.md quotes messages as they are: each is made to appear and held against the page."""

import inspect
import re
from pathlib import Path

import pytest

from .mistakes import MISTAKES, ROOT

PAGE = (ROOT / "docs/faq.md").read_text(encoding="utf-8")
QUOTES = dict(re.findall(r"^### (.+?)\n+```text\n(.*?)\n```$", PAGE, re.MULTILINE | re.DOTALL))


def test_every_quote_has_its_mistake() -> None:
    assert list(QUOTES) == list(MISTAKES)
    assert PAGE.count("```text") == len(QUOTES)


@pytest.mark.slow
@pytest.mark.parametrize("heading", list(MISTAKES))
def test_the_message_is_as_quoted(
    heading: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the page has an ellipsis anything may stand; everything else is the message, whatever its line breaks."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PILOT_DATASETS", raising=False)
    monkeypatch.delenv("PILOT_MODELS", raising=False)
    monkeypatch.delenv("PILOT_SPICE_JARS", raising=False)
    given = {"monkeypatch": monkeypatch, "capsys": capsys}
    mistake = MISTAKES[heading]
    said = mistake(**{name: given[name] for name in inspect.signature(mistake).parameters})
    quoted = " ".join(QUOTES[heading].split())
    pattern = ".+".join(re.escape(piece.strip()) for piece in quoted.split("…"))
    assert re.fullmatch(pattern, " ".join(said.split())), said
    fixed = quoted.replace("…", "")
    assert len(fixed) > 40, "a quote that is all ellipsis says nothing"
