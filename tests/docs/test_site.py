"""The documentation as a site: strict build, nothing from another host, every method, and looked at in a browser."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml

from docs.method_page import as_markdown, methods_page
from pilot.cli.listing import catalogue
from pilot.evaluation.metrics import METRICS, metric_bounds
from pilot.methods.catalogue import METHODS

from .. import browser
from ..marks import few_of
from .pages import ROOT, page_name

PAGES = ("index", "first-hour", "methods", "studies", "faq", "results")
WIDTHS = (1280, 390)
SEEN = [("index", 1280), ("methods", 390)]


class Requests(HTMLParser):
    """What a browser asks for when it opens a page: sources, style sheets, icons, not links to follow."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Collect addresses."""
        values = dict(attributes)
        loads = [values.get("src"), values.get("srcset"), values.get("poster"), values.get("data")]
        if tag == "link" and values.get("rel") not in ("canonical", "next", "prev", "alternate"):
            loads.append(values.get("href"))
        if tag == "use" or tag == "image":
            loads.append(values.get("href") or values.get("xlink:href"))
        self.found += [load for load in loads if load]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built strictly: any warning would be an error."""
    folder = tmp_path_factory.mktemp("site") / "site"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_pages_of_the_navigation_are_all_pages() -> None:
    """A page that nobody can find is as good as none; those that are made have no file in docs/."""
    text = re.sub(r"!!python\S*", "", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    sections = yaml.safe_load(text)["nav"]
    listed = {
        page if isinstance(page, str) else next(iter(page.values()))
        for s in sections
        for page in next(iter(s.values()))
    }
    made = {"methods.md", "changelog.md", "contributing.md", "promises.md"}
    assert listed - made == {page_name(path) for path in (ROOT / "docs").rglob("*.md")}
    assert made <= listed


def test_every_method_has_a_section_and_a_row() -> None:
    page = methods_page()
    headings = re.findall(r"^### `(\w+)` \{#(\w+)\}$", page, re.MULTILINE)
    assert {name for name, _ in headings} == {*METHODS} and all(name == anchor for name, anchor in headings)
    assert len(headings) == len(METHODS)
    assert sorted(re.findall(r"^\| \[`(\w+)`\]", page, re.MULTILINE)) == sorted(name for name, _ in headings)
    costs = catalogue("methods")["scaffold"]
    assert f"| `own_control` | {costs['megabytes_down']:.2f} | {costs['megabytes_up']:.2f} | yes |" in page
    assert "| `eta_g` | `1.0` | the server's learning rate, above 0; 1 takes the mean of the models. |" in page
    assert "MISSING" not in page and "default_factory" not in page


def test_docstrings_as_markdown() -> None:
    """Equations become blocks that keep their columns, Greek letters and subscripts appear, names in code stay."""
    text = "A* sum_k n_k, see `theta_k`.\n\n    theta  = 1   one\n    lambda = 2   two"
    assert as_markdown(text) == (
        "A\\* Σ<sub>k</sub> n<sub>k</sub>, see `theta_k`.\n\n```text\nθ      = 1   one\nλ = 2        two\n```\n"
    )


def test_every_metric_is_on_its_page() -> None:
    page = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`[^|]*) \| [^|]+ \| 0 to ", page, re.MULTILINE)
    named = [name for row in rows for name in re.findall(r"`([^`]+)`", row)]
    assert sorted(named) == sorted(METRICS)
    largest = dict(re.findall(r"^\| `([^`|]+)` \| [^|]+ \| 0 to (\d+)", page, re.MULTILINE))
    assert {name: float(top) for name, top in largest.items()} == {name: metric_bounds(name)[1] for name in largest}


@pytest.mark.slow
def test_nothing_comes_from_another_host(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        asked = Requests()
        asked.feed(page.read_text(encoding="utf-8"))
        outside = [address for address in asked.found if re.match(r"(?:[a-z]+:)?//", address)]
        assert asked.found and not outside, f"{page.name}: {outside}"
    for sheet in site.rglob("*.css"):
        assert not re.findall(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//[^)\s]+", sheet.read_text(encoding="utf-8")), (
            sheet
        )


@pytest.mark.slow
def test_formulas_need_no_script(site: Path) -> None:
    text = (site / "studies.html").read_text(encoding="utf-8")
    assert "<math" in text and "arithmatex" not in text and "\\lVert" not in text


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """One browser for all pages."""
    with browser.browser() as started:
        yield started


@pytest.mark.browser
@pytest.mark.parametrize(("name", "width"), few_of(SEEN, product(PAGES, WIDTHS)))
def test_a_page_in_a_browser(site: Path, chromium: Any, name: str, width: int) -> None:
    """No message, no failed or foreign request, nothing wider than the window, in light and dark."""
    for theme in ("light", "dark"):
        watched = browser.watch(chromium, width, theme=theme)
        watched.page.goto((site / f"{name}.html").as_uri(), wait_until="load")
        assert watched.page.inner_text("h1").strip("¶\n ")
        scheme = watched.page.get_attribute("body", "data-md-color-scheme")
        assert scheme == {"light": "default", "dark": "slate"}[theme]
        assert watched.problems == [] and watched.sideways <= 0
        assert {request.split(":")[0] for request in watched.requests} <= {"file", "data", "blob"}
        watched.page.close()


@pytest.mark.browser
def test_search_finds_without_a_server(site: Path, chromium: Any) -> None:
    watched = browser.watch(chromium)
    watched.page.goto((site / "index.html").as_uri())
    watched.page.click("label.md-search__icon[for=__search], .md-search__input")
    watched.page.keyboard.type("hetlora")
    watched.page.wait_for_selector(".md-search-result__item", timeout=60_000)
    assert "HetLoRA" in watched.page.inner_text(".md-search-result__list")
    assert watched.problems == []
