"""Creation of methods from names and options; the table of names is in `pilot.methods.catalogue`."""

import dataclasses
from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from pydantic import TypeAdapter, ValidationError

from pilot.errors import UserError
from pilot.methods.base import Method
from pilot.methods.catalogue import METHODS, known_methods
from pilot.methods.plugins import GROUP, plugins


def load_plugin(name: str) -> type[Method]:
    """Load the class of a method of another package.

    Raises:
        UserError: it cannot be imported, or is not a method of that name.
    """
    point = plugins()[name]
    where = f"method {name!r}: entry point {point.value} (group {GROUP})"
    try:
        loaded = point.load()
    except Exception as error:
        raise UserError(f"{where}: cannot be imported ({type(error).__name__}: {error}).") from error
    if not (isinstance(loaded, type) and issubclass(loaded, Method)):
        raise UserError(f"{where}: expected a subclass of pilot.methods.base.Method, got {loaded!r}.")
    if getattr(loaded, "name", None) != name:
        raise UserError(f"{where}: its attribute name is {getattr(loaded, 'name', None)!r}, expected {name!r}.")
    return loaded


def method_class(name: str) -> type[Method]:
    """Return the class of a method of this package or of another one.

    Raises:
        UserError: the method does not exist, or it is another package's and cannot be used or has the name of a method
            of this package.
    """
    if name in METHODS and name in plugins():
        raise UserError(
            f"method {name!r}: entry point {plugins()[name].value} (group {GROUP}) has the name of a method of this "
            "suite. Rename the entry point, or uninstall its package."
        )
    if name in METHODS:
        module, _, attribute = METHODS[name].partition(":")
        own: type[Method] = getattr(import_module(module), attribute)
        return own
    if name in plugins():
        return load_plugin(name)
    known = known_methods()
    raise UserError(f"unknown method {name!r}{_hint(name, known)} Known methods: {', '.join(known)}.")


def make_method(name: str, options: Mapping[str, Any]) -> Method:
    """Create a method with the given options and defaults for the others.

    Raises:
        UserError: the method or an option does not exist, or a value is invalid.
    """
    method = method_class(name)
    fields = [field.name for field in dataclasses.fields(method)]
    for option in options:
        if option not in fields:
            known = ", ".join(fields) or "none"
            raise UserError(f"method {name}: unknown option {option!r}{_hint(option, fields)} Known options: {known}.")
    try:
        made: Method = TypeAdapter(method).validate_python(dict(options))
    except ValidationError as error:
        reasons = "; ".join(f"{'.'.join(map(str, e['loc'][:1])) or 'options'}: {e['msg']}" for e in error.errors())
        raise UserError(f"method {name}: {reasons}.") from error
    return made


def _hint(name: str, known: Mapping[str, object] | list[str]) -> str:
    close = get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else "."
