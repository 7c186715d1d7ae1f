"""Runs on `smol`: they survive kills with the same bytes, and are exported in the suite's format (docs/smol.md)."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pilot.errors import UserError
from pilot.export.mixture import load
from pilot.export.write import export_model

from ..families import images
from ..marks import few_of
from ..small import Small, contents
from ..smol_packages import needs_packages

pytestmark = [pytest.mark.slow, needs_packages]


class Killed(Exception):
    """Ends training where a kill would."""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Small]:
    """The small scenario for the profile that ships, cut to one client per task and two steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PILOT_MODELS", str(tmp_path_factory.getbasetemp() / "smol-models"))
        text = Path("pipelines/profiles/smol.yaml").read_text(encoding="utf-8")
        for before, after in (
            ("rounds: 6", "rounds: 1"),
            ("local_steps: 12", "local_steps: 2"),
            ("batch_size: 8", "batch_size: 1"),
        ):
            assert before in text
            text = text.replace(before, after)
        made = Small(tmp_path_factory.mktemp("smol"), text, clients_per_task=1)
        made.build()
        yield made


@pytest.mark.parametrize("method", few_of(["pilot"], ["fedavg"]))
def test_a_round_survives_a_kill(small: Small, method: str, tmp_path: Path) -> None:
    whole, steps = contents(small.run(method)), 0

    def die(done: int, total: int) -> None:
        nonlocal steps
        steps += 1
        if steps == {"pilot": 4, "fedavg": 2}[method]:
            raise Killed

    with pytest.raises(Killed):
        small.train(tmp_path / "run", method, progress=die)
    assert small.train(tmp_path / "run", method) == whole


def test_an_export_is_in_the_suites_format(small: Small, tmp_path: Path) -> None:
    run = small.run("fedavg")
    with pytest.raises(UserError, match=r"--merged: no class of transformers reads smol \(model_type pilot_smol\)"):
        export_model(run, 0, tmp_path / "merged", "merged")
    exported = load(export_model(run, 0, tmp_path / "model"))
    answers = exported.answer(images()[:1], ["Is there a dog?"], 4)
    assert len(answers) == 1 and "pilot.export" in (tmp_path / "model" / "README.md").read_text()
