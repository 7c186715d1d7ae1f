"""Writing of publications: a folder that is complete or absent. Nothing is sent anywhere."""

from pathlib import Path

from pilot.errors import UserError
from pilot.io.atomic import create_folder
from pilot.report.numbers.load import load_runs
from pilot.report.publish.about import load_about
from pilot.report.publish.croissant import write_croissant
from pilot.report.publish.every_eval import write_records
from pilot.report.publish.hub_results import write_hub_results
from pilot.report.publish.ro_crate import write_crate

CROISSANT, RO_CRATE, EEE = "croissant", "ro-crate", "eee"


def publish(
    results: Path, form: str, target: Path, about_file: Path | None = None, client: int | None = None
) -> list[str]:
    """Write data or results in a format of others; the same inputs and date give the same bytes.

    Args:
        results: a scenario's folder; for scores also a method's or a run's.
        form: `croissant`, `ro-crate`, `eee` or `hf-eval-results`.
        target: a folder that does not exist or is empty.
        about_file: statements; see `pilot.report.publish.about.About`.
        client: for scores, the only client whose model's are written.

    Returns:
        Notes on what the format requires but nobody stated.

    Raises:
        UserError: `target` is not empty or cannot be written, statements are wrong or missing, or a file of the results
            is missing or damaged.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target}: --to: exists and is not an empty folder. Choose another folder.")
    if client is not None and form in (CROISSANT, RO_CRATE):
        raise UserError(f"--client: not valid with --format {form}, which has all clients. Omit it.")
    about = load_about(about_file)
    notes: list[str] = []

    def fill(folder: Path) -> None:
        if form == CROISSANT:
            notes.extend(write_croissant(results, about, folder))
        elif form == RO_CRATE:
            notes.extend(write_crate(load_runs([results]), about, folder))
        else:
            write = write_records if form == EEE else write_hub_results
            notes.extend(write(load_runs([results]), about, folder, client))
        if target.is_dir():
            target.rmdir()  # empty; `create_folder` keeps one that exists

    try:
        create_folder(target, fill)
    except OSError as error:
        raise UserError(f"{target}: writing failed ({error.strerror}). Choose another folder.") from error
    return notes
