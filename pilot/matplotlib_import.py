"""Matplotlib, imported without the backend that `MPLBACKEND` names: figures are written as PNG and PDF, never shown.

All other modules import its names from here. Notebooks pass `module://matplotlib_inline.backend_inline` on to the
processes that they start, and Matplotlib cannot be imported if that backend is not installed.
"""

# ruff: noqa: E402

import os

_VARIABLE = "MPLBACKEND"
_named = os.environ.pop(_VARIABLE, None)
try:
    import matplotlib
finally:
    if _named is not None:
        os.environ[_VARIABLE] = _named  # a notebook's own figures still need it

from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from matplotlib.transforms import ScaledTranslation, Transform

__all__ = [
    "Axes", "AxesImage", "Figure", "FuncFormatter", "Line2D", "LogLocator", "MaxNLocator", "Normalize", "NullLocator",
    "Rectangle", "ScaledTranslation", "Transform", "matplotlib",
]  # fmt: skip
