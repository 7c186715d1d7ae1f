"""Whether the packages of `smol` are here: continuous integration does not install them."""

import pytest

from pilot.backbone.smol import package_files
from pilot.errors import UserError


def _missing() -> str:
    try:
        package_files()
    except UserError as error:
        return str(error)
    return ""


needs_packages = pytest.mark.skipif(bool(_missing()), reason=_missing() or "the packages are here")
"""Skips a test where they are not."""
