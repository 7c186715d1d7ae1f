"""Named coordinates in a model's answer: `{"x": 0.1, "y": 0.2, "width": 0.3, "height": 0.1}`, `left=0.1 right=0.4 ...`.

A name refers to the number after it, a list of names to as many numbers after it, and the name of a corner to the two
numbers, or the names x and y, after it. Single words, as in "the dog on the left", are not names.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

Role = tuple[str, int | str]
"""Axis, and `size`, `centre` or the rank of an edge (x or x0, x1, x2, right; the lower of two is the box's start)."""

END = 3
_WORDS = frozenset({"left", "right", "top", "bottom", "width", "height", "corner"})
"""Names that are also ordinary words."""
_CORNER = r"\b(?i:(?:top|upper|bottom|lower)[-_ ]?(?:left|right))\b"
_WORD = r"(?<![A-Za-z0-9_])[A-Za-z]+(?:[-_][A-Za-z]+)?[0-2]?(?![A-Za-z0-9_])"
_TOKEN = re.compile(f"(?P<corner>{_CORNER})|{_WORD}")


def _roles() -> dict[str, Role]:
    """Build the table of roles by name; names are in lower case and without separators."""
    roles: dict[str, Role] = {}
    for axis, low, high, size in (("x", "left", "right", "width"), ("y", "top", "bottom", "height")):
        first = (axis, f"{axis}0", low, f"{axis}min", f"min{axis}", f"{axis}{low}", f"{low}{axis}")
        last = (high, f"{axis}max", f"max{axis}", f"{axis}{high}", f"{high}{axis}")
        centre = [name for word in ("c", "center", "centre") for name in (word + axis, axis + word)]
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


def roles_before(text: str) -> list[Role]:
    """Return the roles of a text's last list of names, which other words may follow; empty unless it has four."""
    names = _runs(text, None)[-1].names
    return [role for _, role in names] if len(names) == 4 else []


def roles_of_numbers(text: str, number: re.Pattern[str]) -> tuple[list[Role], bool]:
    """Return the roles of a text's numbers if all are named, and whether several names cover only some of them."""
    runs = _runs(text, number)
    roles = [role for run in runs for role in run.roles]
    if len(roles) == sum(len(run.numbers) for run in runs):
        return roles, False
    technical = {name for run in runs for name, _ in run.names if name not in _WORDS}
    return [], max(len({*roles}), len(technical)) > 1


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


def _runs(text: str, number: re.Pattern[str] | None) -> list[_Run]:
    """Split a text into runs of names and the numbers after them, in order; other words end a list of names."""
    found = list(_TOKEN.finditer(text)) + ([] if number is None else list(number.finditer(text)))
    several = len(re.findall(_CORNER, text)) > 1
    runs, corner, parted = [_Run()], dict[str, Role](), False
    for match in sorted(found, key=lambda match: match.start()):
        if match.re is number:
            runs[-1].numbers.append(match[0])
            continue
        name = re.sub("[-_ ]", "", match[0]).lower()
        if not match["corner"] and name not in _ROLES:
            parted = True
            continue
        if runs[-1].numbers or parted or match["corner"]:
            runs.append(_Run())
        names, parted = runs[-1].names, False
        if match["corner"]:
            corner = {"x": ("x", END if "right" in name else 0), "y": ("y", END if name[0] in "bl" else 0)}
            names += [("corner", role) for role in corner.values()]
            continue
        if names and names[0][0] == "corner":
            names.clear()
        axis, order = _ROLES[name]
        names.append((name, corner[axis] if several and corner and isinstance(order, int) else (axis, order)))
    return runs
