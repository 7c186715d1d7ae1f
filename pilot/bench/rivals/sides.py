"""The sides of the comparison: this suite, a plain loop, and simulators, each with its own environment."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from pilot.bench.kernels.references import repository_root
from pilot.errors import UserError

OURS, PLAIN = "pilot-bench", "plain"


@dataclass(frozen=True)
class Side:
    """One side.

    Attributes:
        name: as in reports.
        folder: folder below `tests/benchmarks/rivals/`, and of the environment below `build/rivals/`.
        distribution: distribution whose version is reported; empty for none.
    """

    name: str
    folder: str
    distribution: str = ""

    @property
    def is_rival(self) -> bool:
        """True for a simulator with an environment of its own."""
        return self.name not in (OURS, PLAIN)

    @property
    def python(self) -> Path:
        """The Python of the side's environment."""
        if not self.is_rival:
            return Path(sys.executable)
        return repository_root() / "build" / "rivals" / self.folder / "bin" / "python"

    @property
    def command(self) -> list[str]:
        """The command that runs a job."""
        return [str(self.python), str(code_folder() / self.folder / "run.py")]

    def reason_to_skip(self) -> str:
        """Return why the side cannot be run here; empty if it can."""
        if self.python.is_file():
            return ""
        return f"not installed; build it with `python tests/benchmarks/rivals/build.py {self.folder}`"

    def version(self) -> str:
        """Return the installed version of the side's distribution.

        Raises:
            UserError: it is not installed.
        """
        if not self.distribution:
            return ""
        code = f"import importlib.metadata as m; print(m.version({self.distribution!r}))"
        done = subprocess.run([str(self.python), "-c", code], capture_output=True, text=True, check=False)
        if done.returncode:
            raise UserError(f"{self.python}: {self.distribution} is not installed. Build the environment again.")
        return done.stdout.strip()


SIDES = (
    Side(OURS, "pilot_bench", "pilot-bench"), Side(PLAIN, "plain"), Side("Flower", "flower", "flwr"),
    Side("pfl", "pfl", "pfl"), Side("NVFlare", "nvflare", "nvflare"), Side("fluke", "fluke", "fluke-fl"),
)  # fmt: skip


def code_folder() -> Path:
    """Return the folder with the sides' code.

    Raises:
        UserError: the package is not installed from a clone.
    """
    return repository_root() / "tests" / "benchmarks" / "rivals"


def choose_sides(names: list[str]) -> list[Side]:
    """Return the named simulators, by default all of them, after this suite and the plain loop.

    Raises:
        UserError: an unknown name.
    """
    rivals = [side for side in SIDES if side.is_rival]
    known = {side.folder: side for side in rivals}
    if unknown := [name for name in names if name not in known]:
        raise UserError(f"bench rivals: --rival: expected some of {', '.join(known)}, got {unknown[0]!r}. Correct it.")
    chosen = [known[name] for name in names] if names else rivals
    return [side for side in SIDES if not side.is_rival] + chosen
