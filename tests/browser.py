"""Headless Chromium for tests of pages: Debian's `chromium`, driven by Playwright."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@dataclass
class Watched:
    """A page, and what it did that nobody wants: messages of errors and warnings, and requests beyond the file."""

    page: Any
    problems: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    @property
    def sideways(self) -> int:
        """Pixels by which the page is wider than its window."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - window.innerWidth"))


def require_chromium() -> None:
    """Skip the test without Chromium; where CI is set, fail, since `.ci/run` installs it."""
    if CHROMIUM is None:
        message = "no Chromium on the PATH (Debian: apt-get install chromium)"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)


@contextmanager
def browser() -> Iterator[Any]:
    """A Chromium for several pages."""
    require_chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield chromium
        finally:
            chromium.close()


def watch(chromium: Any, width: int = 1280, height: int = 900, theme: str = "light") -> Watched:
    """A new page of that size and theme (`light`, `dark`), whose problems and requests are collected."""
    page = chromium.new_page(viewport={"width": width, "height": height}, color_scheme=theme)
    watched = Watched(page)
    page.on("console", lambda said: watched.problems.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: watched.problems.append(str(error)))
    page.on("requestfailed", lambda request: watched.problems.append(f"failed: {request.url[:200]}"))
    page.on("request", lambda request: watched.requests.append(request.url[:200]))
    return watched
