"""Every method by name. A new one is a file, a line here, and its files in `pilot/provenance.py`."""

import dataclasses
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from pydantic import TypeAdapter, ValidationError

from baselines.central import Central
from baselines.fedavg import FedAvg
from baselines.fedmoe import FedMoE
from baselines.fedprox import FedProx
from baselines.local import Local
from baselines.untuned import Untuned
from pilot.errors import UserError
from pilot.methods.base import Method
from pilot.methods.pilot import Pilot

METHODS: dict[str, type[Method]] = {
    "pilot": Pilot,
    "fedavg": FedAvg,
    "fedprox": FedProx,
    "fedmoe": FedMoE,
    "local": Local,
    "central": Central,
    "untuned": Untuned,
}


def make_method(name: str, options: Mapping[str, Any]) -> Method:
    """The method of that name with these options, the rest at their defaults.

    Raises:
        UserError: no such method or option, or a value that does not fit.
    """
    if name not in METHODS:
        raise UserError(f"method {name!r} is not known{_hint(name, METHODS)} Known methods: {', '.join(METHODS)}.")
    method = METHODS[name]
    fields = [field.name for field in dataclasses.fields(method)]
    for option in options:
        if option not in fields:
            known = ", ".join(fields) or "none"
            raise UserError(f"method {name}: no option {option!r}{_hint(option, fields)} Its options: {known}.")
    try:
        made: Method = TypeAdapter(method).validate_python(dict(options))
    except ValidationError as error:
        reasons = "; ".join(f"{'.'.join(map(str, e['loc'][:1])) or 'options'}: {e['msg']}" for e in error.errors())
        raise UserError(f"method {name}: {reasons}.") from error
    return made


def _hint(name: str, known: Mapping[str, object] | list[str]) -> str:
    close = get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else "."
