"""Named coordinates in a model's answer: `{"x": 0.1, "y": 0.2, "width": 0.3, "height": 0.1}`, `left=0.1 right=0.4 ...`.

A name refers to the number after it, a list of names to as many numbers after it, and the name of a corner to the two
numbers, or the names x and y, after it. Four numbers in brackets have the list of four names beside them; a format such
as `xywh` is such a list. Names whose meaning is not certain (`x_mid`, `tlbr`, a key that is not known) leave an answer
without a box. Single words, as in "the dog on the left", are not names.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

Role = tuple[str, int | str]
"""Axis, and `size`, `centre` or the rank of an edge (x or x0, x1, x2, right; the lower of two is the box's start)."""

END = 3
_WORDS = frozenset("left right top bottom upper lower width height row column l t r b".split())
"""Names that are also ordinary words, or letters of others."""
_JOINING = frozenset("and then to the corner coordinate coordinates".split())
"""Words that a list of names may contain."""
_AXIS, _EDGE = "x|y|row|col|column", "min|max|start|begin|end|center|centre"
_CORNER = r"\b(?i:(?:top|upper|bottom|lower)[-_ ]?(?:left|right))\b"
_SPACED = rf"\b(?i:(?:{_AXIS}) (?:{_EDGE})|(?:{_EDGE}) (?:{_AXIS}))\b"
_WORD = r"(?<![A-Za-z0-9_])[A-Za-z][A-Za-z0-9]*(?:_[A-Za-z0-9]+|-[A-Za-z][A-Za-z0-9]*)*(?![A-Za-z0-9_])"
_TOKEN = re.compile(f"(?P<corner>{_CORNER})|{_SPACED}|{_WORD}")
_AROUND = re.compile(r"(?i)^b?box[-_]|[-_](?:coord(?:inate)?|pos(?:ition)?)$")
_FORMAT = re.compile(r"([xy](?:min|max|[012])|c[xy]|[xy]c?|[whltrb])" * 4 + "n?")
_AMBIGUOUS = ("tl", "tr", "bl", "br")
"""Beginnings of formats in which two letters may be a corner, x before y, or two edges, y before x."""
_PARTS = re.compile(r"[-_ ]|(?<=[a-z])(?=[A-Z])|(?=[0-9])|(?<=[0-9])")
_KEY = re.compile(r"[\"']?\s*[=:]\s*[\"']?")


def _roles() -> dict[str, Role]:
    """Build the table of roles by name; names are in lower case and without separators."""
    roles: dict[str, Role] = {}
    corners = [(v, h) for v in ("top", "upper", "bottom", "lower", *"tubl") for h in ("left", "right", *"lr")]
    for axis, names, sides, ends, size in (
        ("x", ("x", "col", "column"), ("left", "l"), ("right", "r"), "width"),
        ("y", ("y", "row"), ("top", "upper", "t"), ("bottom", "lower", "b"), "height"),
    ):
        first = [each for word in ("min", "start", "begin") for name in names for each in (name + word, word + name)]
        last = [each for word in ("max", "end") for name in names for each in (name + word, word + name)]
        first += [*names, f"{axis}0", *sides, axis + sides[0], sides[0] + axis]
        last += [*ends, axis + ends[0], ends[0] + axis]
        for v, h in corners:
            (last if (h[0] == "r" if axis == "x" else v[0] in "bl") else first).extend([v + h + axis, axis + v + h])
        centre = [name for word in ("c", "center", "centre", "mid") for name in (word + axis, axis + word)]
        roles |= {name: (axis, 0) for name in first} | {name: (axis, END) for name in last}
        roles |= {f"{axis}1": (axis, 1), f"{axis}2": (axis, 2), size: (axis, "size"), size[0]: (axis, "size")}
        roles |= {name: (axis, "centre") for name in centre}
    return roles


_ROLES = _roles()


@dataclass
class _Run:
    """Consecutive names and the numbers that follow them."""

    names: list[tuple[str, Role]] = field(default_factory=list)
    numbers: list[str] = field(default_factory=list)

    @property
    def roles(self) -> list[Role]:
        """Roles of the numbers, from the nearest names; empty if there are too few names."""
        enough = 0 < len(self.numbers) <= len(self.names)
        return [role for _, role in self.names[-len(self.numbers) :]] if enough else []


def roles_beside(before: str, after: str, number: re.Pattern[str]) -> tuple[list[Role], bool]:
    """Return the roles of four numbers in brackets from the texts around them, and whether these are unclear.

    Names with numbers of their own do not count, and neither does what follows the next number.
    """
    following = next(number.finditer(after), None)
    runs = _runs(before, number) + _runs(after[: following.start()] if following else after, number)
    runs = [run for run in runs if len(run.names) != len(run.numbers)]
    lists = {tuple(role for _, role in run.names) for run in runs if _is_list(run) or _technical([run])}
    if len(lists) == 1 and len(roles := lists.pop()) == 4:
        return list(roles), False
    return [], len(_technical(runs)) > 1


def roles_of_numbers(text: str, number: re.Pattern[str]) -> tuple[list[Role], bool]:
    """Return the roles of a text's numbers if all are named, and whether several names cover only some of them."""
    runs = _runs(text, number)
    roles = [role for run in runs for role in run.roles]
    if len(roles) == sum(len(run.numbers) for run in runs):
        return roles, False
    return [], max(len({*roles}), len(_technical(runs))) > 1


def _technical(runs: Sequence[_Run]) -> set[str]:
    """Return the names that cannot be ordinary words; width and height together are none."""
    names = {name for run in runs for name, _ in run.names}
    sizes = {"width", "height"}
    return {name for name in names if name not in _WORDS and name != "corner"} | (sizes if sizes <= names else set())


def _is_list(run: _Run) -> bool:
    """Check for the names of a box's coordinates; "top row, left column" are not."""
    roles = [role for _, role in run.names]
    return len(roles) == 4 and (len({*roles}) == 4 or roles[:2] == roles[2:])


def box_from_roles(roles: Sequence[Role], numbers: Sequence[str], unit: int) -> list[str]:
    """Return x1, y1, x2, y2 from four named numbers; empty if they are not in 0..unit or the names make no box."""
    if list(roles[:2]) == list(roles[2:]):  # x and y of two points
        roles = [*roles[:2], *((axis, END) for axis, order in roles[2:] if order == 0)]
    if len({*roles}) < len(numbers) or not all(0 <= float(number) <= unit for number in numbers):
        return []
    values = {role: Decimal(repr(float(number))) for role, number in zip(roles, numbers, strict=True)}
    across, down = (_span({role: value for (of, role), value in values.items() if of == axis}) for axis in "xy")
    return [str(value) for pair in zip(across, down, strict=False) for value in pair]


def _span(values: Mapping[int | str, Decimal]) -> tuple[Decimal, ...]:
    """Return start and end on an axis, without rounding; empty if the names do not determine them."""
    edges = sorted(role for role in values if isinstance(role, int))
    if len(values) != 2 or edges == [END]:
        return ()
    if len(edges) == 2:
        return values[edges[0]], values[edges[1]]
    if "size" not in values:
        return ()
    begin = values[edges[0]] if edges else values["centre"] - values["size"] / 2
    return begin, begin + values["size"]


def _runs(text: str, number: re.Pattern[str]) -> list[_Run]:
    """Split a text into runs of names and the numbers after them, in order; most other words end a list of names."""
    found = sorted([*_TOKEN.finditer(text), *number.finditer(text)], key=lambda match: match.start())
    several = len(re.findall(_CORNER, text)) > 1
    runs, corner, parted = [_Run()], dict[str, Role](), False
    for match in found:
        if match.re is number:
            runs[-1].numbers.append(match[0])
            continue
        named = [] if match["corner"] else list(_names(text, match, number))
        if not match["corner"] and not named:
            parted = parted or match[0].lower() not in _JOINING
            continue
        if runs[-1].numbers or parted or match["corner"]:
            runs.append(_Run())
        names, parted = runs[-1].names, False
        if match["corner"]:
            low = match[0].lower()
            corner = {"x": ("x", END if "right" in low else 0), "y": ("y", END if low[0] in "bl" else 0)}
            names += [("corner", role) for role in corner.values()]
            continue
        for name, (axis, order) in named:
            if names and names[0][0] == "corner" and order != "size":
                names.clear()
            names.append((name, corner[axis] if several and corner and order in (0, 1, 2, END) else (axis, order)))
    return runs


def _names(text: str, match: re.Match[str], number: re.Pattern[str]) -> Iterator[tuple[str, Role]]:
    """Yield the coordinates that a word names with their roles; with an axis of its own if its meaning is not known."""
    word = _AROUND.sub("", match[0])
    name = re.sub("[-_ ]", "", word).lower()
    if name in _ROLES:
        yield name, _ROLES[name]
    elif units := _FORMAT.fullmatch(name):
        for place, unit in enumerate(units.groups()):
            yield f"{name}.{place}", ("?", place) if name.startswith(_AMBIGUOUS) else _ROLES[unit]
    elif (
        {*_PARTS.split(word)} & {*_AXIS.split("|"), "X", "Y"}
        or re.fullmatch("[xy][a-z]", name)
        or ((key := _KEY.match(text, match.end())) and number.match(text, key.end()))
    ):
        yield name, ("?", name)
