"""Spatial relations with a margin: each is true, false, or None where people could disagree.

Positions are pixels of the 80x80 scene. Questions and expressions use a relation only where it is certain: true for
exactly one item, and None for no item.
"""

from collections.abc import Callable, Iterable, Sequence

from pilot.data.scenes.scene import SIZE, Item

SIDES = ("left", "right", "top", "bottom")
DIRECTIONS = ("to the left of", "to the right of", "above", "below")
OPPOSITE = {
    "to the left of": "to the right of", "to the right of": "to the left of",
    "above": "below", "below": "above",
}  # fmt: skip
CORNERS = ("top left", "top right", "bottom left", "bottom right")
MARGIN = 6
"""Minimum difference in pixels between an extreme item and the next."""
DIRECTION_MARGIN = 10
SIZE_RATIO = 1.35
"""Minimum ratio between the areas of the largest (smallest) item and the next."""
_WITHIN, _BEYOND = 0.42 * SIZE, 0.54 * SIZE

Relation = Callable[[Item], bool | None]


def the_one(items: Iterable[Item], relation: Relation) -> Item | None:
    """Return the only item for which `relation` is true, if it is certainly false for all others."""
    found = None
    for item in items:
        value = relation(item)
        if value is None or (value and found is not None):
            return None
        found = item if value else found
    return found


def in_corner(item: Item, corner: str) -> bool | None:
    """Check whether the item's centre is in a corner's quarter of the image."""
    vertical, horizontal = corner.split()
    x, y = item.centre
    across, down = (x if horizontal == "left" else SIZE - x), (y if vertical == "top" else SIZE - y)
    if max(across, down) <= _WITHIN:
        return True
    return False if max(across, down) >= _BEYOND else None


def closest_to_edge(item: Item, items: Sequence[Item], side: str) -> bool | None:
    """Check whether the item is closest to a side of the image, by both its centre and its edge on that side."""
    others = [other for other in items if other is not item]
    nearer = [_nearness(other, side) for other in others]
    own = _nearness(item, side)
    if all(min(own[i] - other[i] for i in range(2)) >= MARGIN for other in nearer):
        return True
    return False if any(min(other[i] - own[i] for i in range(2)) >= MARGIN for other in nearer) else None


def extreme_in_size(item: Item, items: Sequence[Item], *, largest: bool) -> bool | None:
    """Check whether the item's box has the largest (smallest) area."""
    areas = [other.area if largest else 1 / other.area for other in items if other is not item]
    own = item.area if largest else 1 / item.area
    if all(own >= SIZE_RATIO * area for area in areas):
        return True
    return False if any(area >= SIZE_RATIO * own for area in areas) else None


def lies(item: Item, direction: str, anchor: Item) -> bool | None:
    """Check whether the item is in `direction` from the anchor.

    True: at least ten pixels in that direction, centre to centre, and at least two pixels more than across it. False:
    at most two pixels in that direction.
    """
    dx, dy = item.centre[0] - anchor.centre[0], item.centre[1] - anchor.centre[1]
    along, across = (dx, dy) if "the" in direction else (dy, dx)
    along = -along if direction in ("to the left of", "above") else along
    if along >= DIRECTION_MARGIN and along >= abs(across) + 2:
        return True
    return False if along <= 2 else None


def _nearness(item: Item, side: str) -> tuple[float, float]:
    """Return how near an item's centre and its edge on that side are to a side (greater is nearer)."""
    axis, sign = (0 if side in ("left", "right") else 1), (-1 if side in ("left", "top") else 1)
    return sign * item.centre[axis], float(sign * item.box[axis if sign < 0 else axis + 2])
