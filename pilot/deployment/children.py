"""Small things about child programs: their end, and the colours that they print."""

import ctypes
import signal
import sys

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def end_with_parent() -> None:
    """For `preexec_fn`: on Linux, the program is killed when the process that started it ends in any way."""
    if _LIBC:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def without_colours(text: str) -> str:
    """Text without a terminal's colour codes."""
    first, *parts = text.split("\x1b[")
    return first + "".join(part.partition("m")[2] for part in parts)
