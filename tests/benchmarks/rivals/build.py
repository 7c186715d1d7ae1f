"""Build the simulators' environments: `python tests/benchmarks/rivals/build.py [NAME ...]`, by default all of them.

Each is a folder `build/rivals/NAME` with the packages of `NAME/requirements.txt`, and of what they need, all that the
environment that runs this script lacks. Torch and this suite come from that environment; torch is never replaced.
"""

import argparse
import subprocess
import sys
import sysconfig
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
NAMES = ("flower", "pfl", "nvflare", "fluke")


def build(name: str, target: Path) -> None:
    """Build one environment in `target`, which may exist."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(target)], check=True)
    packages = target / Path(sysconfig.get_path("purelib")).relative_to(sys.prefix)
    shared = sysconfig.get_path("purelib")
    (packages / "shared.pth").write_text(f"import site; site.addsitedir({shared!r})\n", encoding="utf-8")
    constraints = target / "constraints.txt"
    constraints.write_text(f"torch=={version('torch').partition('+')[0]}\n", encoding="utf-8")
    python, requirements = target / "bin" / "python", HERE / name / "requirements.txt"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    subprocess.run([*pip, "--constraint", str(constraints), "--requirement", str(requirements)], check=True)


def main() -> None:
    """Build the environments named on the command line."""
    parser = argparse.ArgumentParser(description="Build the simulators' environments.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(NAMES)}")
    parser.add_argument("--folder", type=Path, default=HERE.parents[2] / "build" / "rivals", help="where to build them")
    options = parser.parse_args()
    if unknown := sorted(set(options.names) - set(NAMES)):
        parser.error(f"expected some of {', '.join(NAMES)}, got {unknown[0]}")
    for name in options.names or NAMES:
        build(name, options.folder / name)
        print(f"built {options.folder / name}", flush=True)


if __name__ == "__main__":
    main()
