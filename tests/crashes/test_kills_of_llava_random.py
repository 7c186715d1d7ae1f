"""`kill -9` of every method on `llava-random`, in a step inside a client's epoch."""

from collections.abc import Iterator

import pytest

from pilot.backbone.sources import MODELS_VARIABLE

from ..federation.test_llava_random import METHODS, PROFILE
from ..marks import few_of
from ..small import Small, contents
from .fork_server import KILLED, ForkServer
from .fork_server_main import FINISHED

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def random(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Small, ForkServer]]:
    """The small scenario on a random LLaVA that keeps phases after every step."""
    root = tmp_path_factory.mktemp("random")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MODELS_VARIABLE, str(root / "models"))
        small = Small(root, PROFILE)
        small.build()
        with ForkServer(small, root, PROFILE) as server:
            yield small, server


@pytest.mark.parametrize("method", few_of([], METHODS))
def test_every_method_is_killed_and_goes_on(
    random: tuple[Small, ForkServer], tmp_path_factory: pytest.TempPathFactory, method: str
) -> None:
    """Two kills: in the third step of the run (a step is two losses), and in a later one of the resumed run."""
    small, server = random
    target = tmp_path_factory.mktemp(method)
    assert server.train(target, "step", 6, method=method) == KILLED
    assert list(target.rglob("unfinished-*.json"))
    assert server.train(target, "step", 7, method=method) == KILLED
    assert server.train(target, method=method) == FINISHED
    assert contents(target) == contents(small.run(method))
