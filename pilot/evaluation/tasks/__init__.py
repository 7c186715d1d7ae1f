"""lm-eval task files (YAML) and the functions they call."""

from pathlib import Path

FOLDER = Path(__file__).parent


def task_names() -> list[str]:
    """The lm-eval tasks of the suite, sorted: every file is named after its task."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))
