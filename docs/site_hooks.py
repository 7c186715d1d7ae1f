"""Hooks of the documentation site: generated pages, formulas without JavaScript, links out of docs/."""

import html
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from method_page import methods_page
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
ROOT_PAGES = {"changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md"}
_LINK = re.compile(r"(!?)\[([^\]\n]+)\]\((?![a-z]+:|#)([^)\s#]+)(#[^)\s]*)?\)")
_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page of all methods, and the pages made from files in the repository's root."""
    files.append(File.generated(config, "methods.md", content=methods_page()))
    for page, name in ROOT_PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / name).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Keep links between pages; replace a link to a file of the repository that is not a page with its path."""
    start = ROOT if page.file.src_uri in ROOT_PAGES else ROOT / "docs"
    return _LINK.sub(lambda link: _relinked(link, start, files), markdown)


def _relinked(link: re.Match[str], start: Path, files: Files) -> str:
    """Rewrite a link of a page whose file is in `start`; leave a broken one unchanged for `--strict` to report."""
    image, text, target, anchor = link[1], link[2], link[3], link[4] or ""
    place = (start / target).resolve()
    if not place.is_relative_to(ROOT):
        return link[0]
    path = place.relative_to(ROOT).as_posix()
    pages = {name: page for page, name in ROOT_PAGES.items()}
    known = pages.get(path, path.removeprefix("docs/"))
    if files.get_file_from_path(known) is not None:
        return f"{image}[{text}]({known}{anchor})"
    if place.exists() and not image:
        return f"{text} (`{path}`)" if path not in text else f"`{path}`"
    return link[0]


def on_page_content(content: str, **_: Any) -> str:
    """Convert formulas to MathML, which browsers render natively."""
    return _FORMULA.sub(
        lambda formula: convert(html.unescape(formula[2]), display="block" if formula[1] == "div" else "inline"),
        content,
    )
