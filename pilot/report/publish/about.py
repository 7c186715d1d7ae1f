"""Statements for publication that no run records: who, when, where, under which licence, and what is known of data."""

import datetime
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from pilot.config.base import Model
from pilot.config.files import load_file
from pilot.errors import UserError
from pilot.report.numbers.load import Run

Text = Annotated[str, Field(min_length=1)]
Address = Annotated[str, Field(pattern=r"^https?://\S+$")]
HubName = Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]


class Author(Model):
    """Who made the data and ran the runs; `id` is an address such as an ORCID."""

    name: Text
    id: Address | None = None
    kind: Literal["Person", "Organization"] = "Person"

    def to_json(self) -> dict[str, Any]:
        """Return the author as an object of schema.org."""
        return {"@type": self.kind, "name": self.name} | ({} if self.id is None else {"@id": self.id, "url": self.id})


class DataStatement(Model):
    """What is stated of one data set, beside what its card records."""

    licence: Address | None = None
    limitations: Text | None = None
    biases: Text | None = None
    personal_information: Text | None = None
    use_cases: Text | None = None
    social_impact: Text | None = None
    synthetic: bool | None = None


class About(Model):
    """Content of the file of `--about`; what is left out is not stated anywhere.

    Attributes:
        author: who made the data and ran the runs.
        date: day of publication; by default the current day, in UTC.
        url: page on which data or results are published.
        licence: licence of the results, and of data without another statement.
        version: version of the published data sets.
        citation: how to cite data and results.
        benchmark: data set on the Hugging Face Hub whose leaderboard takes the scores.
        data: statements by task, and for `partition`.
    """

    author: Author | None = None
    date: datetime.date = Field(default_factory=lambda: datetime.datetime.now(datetime.UTC).date())
    url: Address | None = None
    licence: Address | None = None
    version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")] = "1.0.0"
    citation: Text | None = None
    benchmark: HubName | None = None
    data: Mapping[str, DataStatement] = Field(default_factory=dict)


def load_about(path: Path | None) -> About:
    """Read the file of `--about`; without one, nothing is stated.

    Raises:
        UserError: the file cannot be read, or a field is wrong or unknown.
    """
    if path is None:
        return About()
    if path.suffix not in (".yaml", ".yml"):
        raise UserError(f"{path}: --about: expected a file whose name ends in .yaml. Rename it.")
    try:
        return load_file(About, "about", str(path))
    except ValueError as error:  # of a date such as 2026-13-01
        raise UserError(f"{path}: cannot be read ({error}). Write dates as in `date: 2026-11-30`.") from error


def chosen_clients(run: Run, client: int | None) -> list[int]:
    """Return the clients of a run, or the one that was chosen.

    Raises:
        UserError: the run has no such client.
    """
    known = sorted({each for task in run.tasks for each in task.clients})
    if client is not None and client not in known:
        raise UserError(f"{run.path}: no client {client} in this run. Expected --client in {known}.")
    return known if client is None else [client]


def portable_name(text: str) -> str:
    """Return a text as the name of a file or folder on any system."""
    return re.sub(r"[^a-z0-9+_-]+", "-", text.lower()).strip("-")
