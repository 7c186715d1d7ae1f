"""The page of all methods: equations and deviations from their docstrings, and what each shares, keeps and costs."""

import ast
import dataclasses
import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pilot.cli.listing import PROFILE, ROUND, SCENARIO, catalogue, method_file
from pilot.config.load import load_profile
from pilot.config.profile import Profile
from pilot.methods.catalogue import FAMILIES, OTHERS

INTRODUCTION = f"""\
# Methods

This page is generated from the methods' docstrings when the site is built; `pilot-bench list methods` prints the same
summaries and costs. Every trained method gets the same number of optimiser steps. Notation: k is a client,
n<sub>k</sub> its number of examples, n their sum, θ the trained parameters, θ<sub>g</sub> the global model,
L<sub>ce</sub> the cross-entropy of the answer's tokens; LoRA's product is B A.

- **Leaves the client**: the parameter groups that the method declares; the server refuses all others.
- **MB down, MB up**: for one client in round {ROUND} of {SCENARIO} with the profile `{PROFILE}`; ≤ is an upper bound
  for methods whose clients differ.
- **One model**: whether all clients end with the same model.

Measured times and memory are in `tables/timing.csv` of a [result folder](results.md).
"""
GREEK = {
    **{"alpha": "α", "beta": "β", "gamma": "γ", "eta": "η", "theta": "θ", "lambda": "λ", "mu": "μ", "phi": "φ"},
    **{"psi": "ψ", "tau": "τ", "Theta": "Θ", "Delta": "Δ", "sum": "Σ", "eps": "ε"},
}
_NAME = re.compile(rf"(?<![A-Za-z0-9_])({'|'.join(GREEK)})(?=\d?(?![A-Za-z0-9]))")
PARTS: dict[str, dict[str, tuple[tuple[str, str], ...]]] = {
    "pilot": {
        "Losses": tuple(
            ("pilot/connector/losses.py", name) for name in ("difference_loss", "load_balance_loss", "router_z_loss")
        ),
        "CT-MoA": (("pilot/connector/ct_moa.py", ""),),
        "Adaptive text aggregation": (("pilot/methods/text_aggregation.py", ""),),
    }
}
"""Additional docstrings on a method's page: heading -> (file, function), with an empty name for the module's."""
_SCRIPT = re.compile(
    r"(?<![\w^])([A-Za-z\u0391-\u03c9]\d?[~^]?)_(\w{1,6})\b|(?<=\u2016)_(\w)(?!\w)|(?<=\S)\^([T2])(?!\w)"
)
_SPECIAL = re.compile(r"([\\*_<\[\]#|])")


def methods_page() -> str:
    """Return the page as Markdown: a table of all methods, then a section for each."""
    entries, profile = catalogue("methods"), load_profile(PROFILE)
    own = {name: entry for name, entry in entries.items() if entry["entry_point"] is None}
    parts = [INTRODUCTION]
    for family, names in _families(own).items():
        parts += [f"## {family}\n", _table({name: own[name] for name in names})]
    for family, names in _families(own).items():
        parts += [f"## {family}: definitions\n", *(_section(name, own[name], profile) for name in names)]
    return "\n".join(parts)


def _families(names: Iterable[str]) -> dict[str, list[str]]:
    """Group names by family; names without a family are in `OTHERS`."""
    placed = {family: [name for name in members if name in names] for family, members in FAMILIES.items()}
    known = {name for members in placed.values() for name in members}
    return {family: members for family, members in (placed | {OTHERS: sorted(set(names) - known)}).items() if members}


def _table(entries: Mapping[str, Mapping[str, Any]]) -> str:
    head = (
        "| method | leaves the client | stays | MB down | MB up | one model |\n| --- | --- | --- "
        + "| ---: " * 2
        + "| --- |"
    )
    rows = [
        f"| [`{name}`](#{name}) | {_groups(entry['leaves'], entry['pooled'])} | {_groups(entry['stays'])} "
        f"| {_megabytes(entry, 'down')} | {_megabytes(entry, 'up')} | {'yes' if entry['one_model'] else 'no'} |"
        for name, entry in entries.items()
    ]
    return "\n".join([head, *rows, ""])


def _groups(groups: Sequence[str], pooled: bool = False) -> str:
    return "all training data" if pooled else ", ".join(f"`{group}`" for group in groups) or "–"


def _megabytes(entry: Mapping[str, Any], way: str) -> str:
    value = entry[f"megabytes_{way}"]
    return f"{'≤ ' if entry['upper_bound'] and value else ''}{value:.2f}"


def _section(name: str, entry: Mapping[str, Any], profile: Profile) -> str:
    """Return a method's section: docstring, options, what it shares and costs, and its file."""
    file = method_file(name)
    costs = (
        f"Leaves the client: {_groups(entry['leaves'], entry['pooled'])}; stays: {_groups(entry['stays'])}; "
        f"{_megabytes(entry, 'down')} MB down, {_megabytes(entry, 'up')} MB up."
    )
    parts = [f"### `{name}` {{#{name}}}\n", as_markdown(_docstring(file))]
    for heading, places in PARTS.get(name, {}).items():
        parts.append(f"#### {heading}\n")
        parts += [_titled(function) + as_markdown(_docstring(place, function)) for place, function in places]
    return "\n".join([*parts, _options(name, profile), f"{costs} In `{file}`.\n"])


def _titled(function: str) -> str:
    return f"**{function.replace('_', ' ').capitalize()}.** " if function else ""


def _docstring(file: str, function: str = "") -> str:
    """Return the docstring of a module or of a function in it, without the sections Args, Returns and Raises."""
    tree = ast.parse((Path(__file__).resolve().parents[1] / file).read_text(encoding="utf-8"))
    nodes = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == function]
    text = ast.get_docstring(nodes[0] if function else tree) or ""
    return re.split(r"\n\n(?:Args|Returns|Raises):\n", text)[0]


def as_markdown(text: str) -> str:
    """Convert a docstring to Markdown: indented equations become blocks, Greek names letters; the rest is escaped."""
    blocks = []
    for block in re.split(r"\n\s*\n", text):
        lines = block.split("\n")
        if all(line.startswith("    ") for line in lines):
            blocks.append("```text\n" + "\n".join(_aligned(line[4:]) for line in lines) + "\n```\n")
        else:
            blocks.append(_prose(block) + "\n")
    return "\n".join(blocks)


def _prose(block: str) -> str:
    """Convert a paragraph or list; leave text in backquotes unchanged."""
    pieces = block.split("`")
    pieces[::2] = [_plain(piece) for piece in pieces[::2]]
    lines = "`".join(pieces).split("\n")
    # Keep the line break before an indented line, which is an equation inside a paragraph.
    return "\n".join(f"{line}  " if following.startswith("  ") else line for line, following in _pairs(lines))


def _plain(piece: str) -> str:
    """Escape Markdown in text; turn x_k into a subscript, x^2 and x^T into a superscript."""
    escaped, end = "", 0
    text = _letters(piece)
    for match in _SCRIPT.finditer(text):
        low, high = match[2] or match[3], match[4]
        script = f"<sub>{low}</sub>" if low else f"<sup>{high}</sup>"
        escaped += _SPECIAL.sub(r"\\\1", text[end : match.start()]) + (match[1] or "") + script
        end = match.end()
    return escaped + _SPECIAL.sub(r"\\\1", text[end:])


def _pairs(lines: Sequence[str]) -> list[tuple[str, str]]:
    listed = any(line.startswith("- ") for line in lines)
    return [(line, "" if listed else nxt) for line, nxt in zip(lines, [*lines[1:], ""], strict=True)]


def _letters(text: str) -> str:
    return _NAME.sub(lambda match: GREEK[match[1]], text).replace("||", "‖")


def _aligned(line: str) -> str:
    """Insert Greek letters into a line of equations; keep its columns aligned."""
    pieces = re.split(r"( {2,})", line)
    for place in range(0, len(pieces) - 1, 2):
        text = _letters(pieces[place])
        pieces[place] = text + " " * (len(pieces[place]) - len(text))
    return "".join([*pieces[:-1], _letters(pieces[-1])])


def _options(name: str, profile: Profile) -> str:
    """Return a table of the method's fields with their defaults, the profile's values and their meanings."""
    from pilot.registry import method_class

    method = method_class(name)
    fields, set_to = dataclasses.fields(method), profile.options_of(name)
    if not fields:
        return ""
    meanings: dict[str, str] = {}
    for parent in reversed(method.__mro__):
        meanings |= _attributes(parent.__dict__.get("__doc__") or "")
    columns = {
        "option": [f"`{field.name}`" for field in fields],
        "default": [f"`{field.default}`" for field in fields],
        f"`{profile.name}`": [f"`{set_to[field.name]}`" if field.name in set_to else "" for field in fields],
        "meaning": [_prose(meanings.get(field.name, "")) for field in fields],
    }
    shown = {head: cells for head, cells in columns.items() if any(cells)}
    rows = [list(shown), ["---"] * len(shown), *map(list, zip(*shown.values(), strict=True))]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


def _attributes(docstring: str) -> dict[str, str]:
    """Parse the section `Attributes:` of a docstring: name -> meaning."""
    _, _, section = inspect.cleandoc(docstring).partition("Attributes:\n")
    found = re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", section, re.MULTILINE)
    return {name: " ".join(meaning.split()) for name, meaning in found}
