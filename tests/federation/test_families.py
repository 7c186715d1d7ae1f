"""Runs on every family at test size: phases train what they name, kills change nothing, answers and scores exist."""

from pathlib import Path

import pytest

from pilot.federation.training import train_run

from ..small import Small, contents, quiet

PROFILES = ("smolvlm-random", "internvl-random", "llava-onevision-random", "qwen2.5-vl-random")


class Killed(Exception):
    """Ends training where a kill would."""


@pytest.fixture(scope="module", params=PROFILES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Small:
    """The small scenario for a profile that ships, cut to one client per task."""
    root = tmp_path_factory.mktemp("family")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PILOT_MODELS", str(tmp_path_factory.getbasetemp() / "models"))
        text = Path(f"pipelines/profiles/{request.param}.yaml").read_text(encoding="utf-8")
        made = Small(root, text.replace("local_steps: 4", "local_steps: 2"), clients_per_task=1)
        made.build()
        yield made


@pytest.mark.slow
@pytest.mark.parametrize("method", ["pilot", "fedavg", "fedmoe"])
def test_a_run_survives_a_kill(family: Small, method: str, tmp_path: Path) -> None:
    whole = contents(family.run(method))
    steps = 0

    def die(done: int, total: int) -> None:
        nonlocal steps
        steps += 1
        if steps == 5:
            raise Killed

    with pytest.raises(Killed):
        train_run(family.spec(method), family.folder, tmp_path / "run", True, die)
    train_run(family.spec(method), family.folder, tmp_path / "run", True, quiet)
    assert contents(tmp_path / "run") == whole
