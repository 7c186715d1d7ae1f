"""Order of methods and protocols in all tables and figures, and the reference rows."""

from collections.abc import Iterable

from pilot.config.variant import base_name
from pilot.methods.catalogue import CORE, FAMILIES
from pilot.methods.catalogue import REFERENCES as LAST

REFERENCES = ("central", "full", "untuned", "majority")
"""Methods that federated methods are read against; never bold or †."""

REFERENCE_NOTES = {
    "central": "all clients' data pooled, the same total number of optimiser steps",
    "full": "the connector and the whole LLM trained and averaged, without LoRA",
    "untuned": "the backbone as shipped, no training",
    "majority": "blind: most frequent training answer, mean training box, medoid training caption",
}

PROTOCOLS = ("personalised", "local", "worst_client")

_FIRST, _LAST = tuple(FAMILIES[CORE]), tuple(FAMILIES[LAST])


def is_reference(method: str, untrained: bool) -> bool:
    """Return whether a method is a reference: pooled data, no training of ours, or imported answers."""
    return method in REFERENCES or untrained


def method_key(name: str) -> tuple[int, str]:
    """Return a sort key: pilot, fedavg, fedprox, fedmoe, others by name, local, central, full, untuned, majority.

    Variants sort with their base.
    """
    base = base_name(name.split(" ", 1)[0])
    if base in _FIRST:
        return _FIRST.index(base), name
    if base in _LAST:
        return len(_FIRST) + 1 + _LAST.index(base), name
    return len(_FIRST), name


def sort_methods(names: Iterable[str]) -> list[str]:
    """Return the distinct names in `method_key` order."""
    return sorted(set(names), key=method_key)
