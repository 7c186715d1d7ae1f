"""lm-eval task files (YAML) and the functions they call."""

from pathlib import Path

FOLDER = Path(__file__).parent


def task_names() -> list[str]:
    """List the suite's lm-eval tasks, sorted; each file is named after its task."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))
