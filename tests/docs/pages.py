"""The commands in the fenced blocks of README.md, CONTRIBUTING.md and all pages of docs/, one statement each."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LANGUAGES = ("sh", "bash", "console", "shell")
_BLOCK = re.compile(r"^([ \t]*)```([^\n`]*)\n(.*?)^[ \t]*```[ \t]*$", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"""(?:^|\s)#(?=\s|$)(?=(?:[^'"]|'[^']*'|"[^"]*")*$).*$""")
_OPENS, _CLOSES = re.compile(r"^\s*(?:for|while|until|if)\b"), re.compile(r"^\s*(?:done|fi)\b")


@dataclass(frozen=True)
class Command:
    """A statement of a page: one simple command, or a loop with everything in it."""

    page: str
    line: int
    text: str

    @property
    def program(self) -> str:
        """Its first word that is no assignment."""
        words = [word for word in self.text.split() if not re.match(r"^\w+=", word)]
        return words[0] if words else "="

    def __str__(self) -> str:
        """For messages and names of tests."""
        return f"{self.page}:{self.line}: {' '.join(self.text.split())}"


def pages() -> list[Path]:
    """Every page that a reader takes commands from."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def page_name(page: Path) -> str:
    """A page by its path in docs/; README.md and CONTRIBUTING.md by their names."""
    return page.relative_to(ROOT / "docs" if page.is_relative_to(ROOT / "docs") else ROOT).as_posix()


def commands() -> list[Command]:
    """The statements of all pages, in their order."""
    return [command for page in pages() for command in commands_of(page_name(page), page.read_text(encoding="utf-8"))]


def commands_of(page: str, text: str) -> Iterator[Command]:
    """The statements of one page."""
    for block in _BLOCK.finditer(text):
        if block[2].strip() in LANGUAGES:
            yield from _statements(page, text[: block.start(3)].count("\n") + 1, block[3])


def _statements(page: str, first: int, block: str) -> Iterator[Command]:
    """Lines joined where they go on: behind a backslash, and up to the end of a loop."""
    open_, start, depth = "", first, 0
    for number, line in enumerate(block.splitlines(), start=first):
        stripped = _COMMENT.sub("", line).rstrip()
        start = start if open_ else number
        depth += bool(_OPENS.match(stripped)) - bool(_CLOSES.match(stripped))
        if stripped.endswith("\\"):
            open_ += stripped[:-1] + " "
        elif depth:
            open_ += stripped + "\n"
        else:
            for part in (open_ + stripped).split(" && "):
                if part.strip():
                    yield Command(page, start, part.strip())
            open_ = ""
    assert not open_, f"{page}:{start}: the block ends inside a statement"


def mentions() -> list[Command]:
    """Commands of `pilot-bench` and Snakemake that stand in backquotes inside a sentence; they may be cut short."""
    found = []
    for page in pages():
        text = _BLOCK.sub(lambda block: "\n" * block[0].count("\n"), page.read_text(encoding="utf-8"))
        for mention in re.finditer(r"`((?:pilot-bench|snakemake) [^`]+)`", text):
            found.append(
                Command(page_name(page), text[: mention.start()].count("\n") + 1, " ".join(mention[1].split()))
            )
    return found
