"""`pilot-bench bench rivals`: this suite against a plain loop, and against simulators whose environment is built.

The page is docs/notes/rivals.md.
"""

import runpy
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from pilot.bench.rivals.agreement import TOLERANCE, difference
from pilot.bench.rivals.bench import Sizes, bench_rivals, measure
from pilot.bench.rivals.inputs import draw_schedule, repeat_clients, repeat_shards, run_config, sampled_profile
from pilot.bench.rivals.job import VARIABLE, Job, Trained
from pilot.bench.rivals.process import Watch, run_watched
from pilot.bench.rivals.sides import OURS, PLAIN, SIDES, Side, choose_sides
from pilot.bench.rivals.text import as_text, behind
from pilot.cli.main import app
from pilot.errors import UserError
from pilot.federation.shards import records_of_part

from ..docs.pages import commands
from ..small import Small, quiet

RIVALS = [side for side in SIDES if side.is_rival]
TINY = Sizes(repeats=1, factors=(2,), sampled=3, rounds=2)


def bench(small: Small, sides: list[Side]) -> dict[str, Any]:
    """The report on twice as many clients, of which three take part in each round."""
    return bench_rivals(small.scenario, small.profile, small.folder, sides, TINY, quiet)


def check_ours_is_the_plain_loop(report: dict[str, Any]) -> None:
    """Both sides have the same states to the last bit, and times that fit together."""
    (row,) = report["sizes"]
    assert (row["clients"], row["sampled"], row["failed"]) == (12, 3, {})
    for name in (OURS, PLAIN):
        side = row["sides"][name]
        assert side["agreement"] == {"round_1": 0.0, "round_2": 0.0, "replayed": 0.0}
        assert 0 < side["overhead_seconds"] < side["round_seconds"] < side["seconds"]
        assert side["startup_seconds"] + side["round_seconds"] < side["seconds"]
    assert "pilot-bench is ahead" in as_text(report)


@pytest.mark.slow
def test_ours_is_the_plain_loop(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without processes, whose imports take most of the time."""

    def run_here(command: list[str], file: Path, path: list[Path], limit: float) -> Watch:
        watch = Watch(time.time())
        with monkeypatch.context() as patched:
            patched.setenv(VARIABLE, str(file))
            patched.syspath_prepend(str(path[0]))
            runpy.run_path(command[1], run_name="__main__")
        watch.seconds = time.time() - watch.began
        return watch

    monkeypatch.setattr("pilot.bench.rivals.bench.run_watched", run_here)
    check_ours_is_the_plain_loop(bench(small, choose_sides([])[:2]))


@pytest.mark.exhaustive
def test_ours_is_the_plain_loop_in_processes(small: Small) -> None:
    report = bench(small, choose_sides([])[:2])
    check_ours_is_the_plain_loop(report)
    for side in report["sizes"][0]["sides"].values():
        assert side["peak_bytes"] > 2**26 and 0 < side["overhead_cpu_seconds"] < side["round_cpu_seconds"] + 1


@pytest.mark.exhaustive
@pytest.mark.engine
@pytest.mark.parametrize("side", RIVALS, ids=lambda side: side.folder)
def test_a_rival_trains_the_same(side: Side, small: Small) -> None:
    if reason := side.reason_to_skip():
        pytest.skip(reason)
    report = bench(small, choose_sides([side.folder]))
    (row,) = report["sizes"]
    assert row["failed"] == {} and report["versions"][side.name]
    agreement = row["sides"][side.name]["agreement"]
    assert 0 < agreement["round_1"] <= TOLERANCE and agreement["replayed"] <= TOLERANCE


@pytest.mark.exhaustive
def test_an_environment_is_built(tmp_path: Path) -> None:
    """The smallest one; from the package registry, with the torch of this environment."""
    script = Path(__file__).parent / "rivals" / "build.py"
    subprocess.run([sys.executable, str(script), "pfl", "--folder", str(tmp_path)], check=True)
    code = "import pfl.model.pytorch, pilot, torch; print(torch.__version__, pfl.__file__)"
    done = subprocess.run([str(tmp_path / "pfl/bin/python"), "-c", code], check=True, capture_output=True, text=True)
    found, place = done.stdout.split()
    assert found == torch.__version__ and place.startswith(str(tmp_path))


def test_the_pages_commands(monkeypatch: pytest.MonkeyPatch, small: Small) -> None:
    """The options of docs/notes/rivals.md reach the benchmark; what it would run is not run."""
    given: list[Any] = []
    monkeypatch.setattr("pilot.bench.rivals.bench.bench_rivals", lambda *arguments: given.append(arguments) or {})
    texts = [command.text for command in commands() if command.page == "notes/rivals.md"]
    texts = [text for text in texts if text.startswith("pilot-bench bench rivals ")]
    names = f"{small.folder} --scenario {small.scenario_file} --profile {small.profile_file} --json"
    for text in texts:
        arguments = shlex.split(text.replace("results/embedded/scenario2", names), comments=True)[1:]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
    assert len(given) == len(texts) >= 2
    _, profile, _, sides, sizes, _ = given[0]
    assert (sizes, len(sides)) == (Sizes(), 6) and profile.local_steps == small.profile.local_steps
    CliRunner().invoke(app, shlex.split(f"bench rivals {names} --local-steps 2"))
    assert given.pop()[1].local_steps == 2
    measured = [(arguments[4].factors, arguments[4].repeats, arguments[4].limit) for arguments in given[1:]]
    assert measured == [((factor,), 2, 300.0) for factor in (1, 10, 100)]


def test_shards_are_repeated(small: Small, tmp_path: Path) -> None:
    """Two tasks' clients 0, 1 and 2, 3 become 0 to 3 and 4 to 7: those of the first copy, then those of the second."""
    many = repeat_clients(small.scenario, 2)
    repeat_shards(small.scenario, small.folder, 2, tmp_path / "data")
    once = records_of_part(small.scenario, small.folder, "train", frame=small.profile.frame)
    twice = records_of_part(many, tmp_path / "data", "train", frame=small.profile.frame)
    origin = {0: 0, 1: 1, 2: 0, 3: 1, 4: 2, 5: 3, 6: 2, 7: 3, 8: 4, 9: 5, 10: 4, 11: 5}
    assert {client: [record.id for record in records] for client, records in twice.items()} == {
        client: [record.id for record in once[source]] for client, source in origin.items()
    }


@pytest.mark.parametrize(("clients", "sampled", "expected"), [(9, 10, 9), (90, 10, 10), (900, 10, 10)])
def test_every_round_has_its_clients(small: Small, clients: int, sampled: int, expected: int) -> None:
    """10 of 900 is no share with few decimals: 0.0111, of which the engine takes 9.99, rounded up."""
    config = run_config(small.scenario, sampled_profile(small.profile, clients, sampled, 4))
    schedule = draw_schedule(config, clients)
    assert [len(set(round_)) for round_ in schedule] == [expected] * 4


def test_measurements_by_hand() -> None:
    """Started at 100; rounds end at 105, 108 and 112, with steps of 2 and 3 s; 1 CPU second per second."""
    watch = Watch(100.0, seconds=13.0, peak_bytes=7, _cpu=[(110.0, 10.0), (114.0, 14.0)])
    log = [
        Trained(1, 4, 1.0, 1.5, 104.0), Trained(1, 2, 1.0, 1.0, 105.0),
        Trained(2, 4, 1.0, 0.5, 106.5), Trained(2, 3, 1.0, 0.5, 108.0),
        Trained(3, 0, 1.5, 1.0, 110.0), Trained(3, 1, 1.5, 1.0, 112.0),
    ]  # fmt: skip
    found = measure(watch, log, 3)
    assert found.startup_seconds == pytest.approx(4.0)
    assert found.startup_cpu_seconds == pytest.approx(4.0 - 1.5)
    assert found.round_seconds == pytest.approx(3.5)  # median of 3 and 4
    assert found.overhead_seconds == pytest.approx(1.0)  # median of 3 - 2 and 4 - 3
    assert found.round_cpu_seconds == pytest.approx(3.5)
    assert found.overhead_cpu_seconds == pytest.approx(3.5 - 1.5)
    with pytest.raises(UserError, match="a round without local training"):
        measure(watch, log[:4], 3)


def job_file(folder: Path) -> Path:
    """A job without meaning in a folder."""
    return Job({}, "", str(folder), ((0,),)).save()


CHILD = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', {!r}], start_new_session=True)"


def test_memory_of_detached_processes_counts_and_they_are_killed(tmp_path: Path) -> None:
    """The child fills 128 MiB in a session of its own, and would write a file after a minute."""
    grandchild = "import time; held = bytearray(2**27); time.sleep(60); open('late', 'w')"
    script = f"{CHILD.format(grandchild)}; import time; time.sleep(2)"
    watch = run_watched([sys.executable, "-c", script], job_file(tmp_path), [], 30)
    assert 2**27 < watch.peak_bytes < 2**28 and 2 < watch.seconds < 20
    assert watch.cpu_seconds(watch.began + 60) > 0


@pytest.mark.parametrize(
    ("script", "limit", "message"),
    [("raise SystemExit('no luck')", 30, "no luck"), ("import time; time.sleep(60)", 0.1, "not finished after 0 s")],
)
def test_a_run_that_fails_is_explained(script: str, limit: float, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        run_watched([sys.executable, "-c", script], job_file(tmp_path), [], limit)


def test_difference_of_states(tmp_path: Path) -> None:
    files = [tmp_path / f"{name}.safetensors" for name in "abc"]
    for path, tensors in zip(files, ({"x": [1.0, 2.0]}, {"x": [1.0, 2.25]}, {"x": [1.0]}), strict=True):
        save_file({name: torch.tensor(values) for name, values in tensors.items()}, path)
    assert difference(files[0], files[1]) == 0.25
    with pytest.raises(UserError, match="other names or shapes"):
        difference(files[0], files[2])
    with pytest.raises(UserError, match="did not keep"):
        difference(files[0], tmp_path / "none")


def test_being_behind_is_said() -> None:
    def side(startup: float, round_: float) -> dict[str, Any]:
        names = ("startup_cpu", "overhead", "overhead_cpu")
        agreement = {"round_1": 0.0, "round_2": 2e-5, "replayed": 2e-8}
        own = {"startup_seconds": startup, "round_seconds": round_, "round_cpu_seconds": round_, "peak_bytes": 2**20}
        return {**dict.fromkeys((f"{name}_seconds" for name in names), 0.5), **own, "load": 1.0, "agreement": agreement}

    sides = {OURS: side(2.0, 3.0), PLAIN: side(1.0, 1.0), "pfl": side(2.5, 2.0)}
    report = {
        "scenario": "s", "profile": "p", "settings": {"rounds": 3, "repeats": 1}, "machine": {"cores": 2},
        "versions": dict.fromkeys(sides, "1"), "skipped": {"fluke": "not installed"},
        "sizes": [{"clients": 9, "sampled": 9, "sides": sides, "failed": {"NVFlare": "not finished"}}],
    }  # fmt: skip
    lines = behind(report)
    assert lines == [
        "BEHIND pfl at 9 clients: a round takes 3.00 s, there 2.00 s",
        "BEHIND pfl at 9 clients: CPU of a round takes 3.00 s, there 2.00 s",
    ]
    text = as_text(report)
    assert "NVFlare: not finished" in text and "fluke: skipped, not installed" in text and "0e+00 2e-08 (2e-05)" in text
    sides["pfl"]["agreement"]["replayed"] = 2e-5
    assert "NO: 0e+00 2e-05" in as_text(report)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda small: choose_sides(["flwr"]), "--rival: expected some of flower, pfl, nvflare, fluke, got 'flwr'"),
        (lambda small: sampled_profile(small.profile, 30001, 1, 2), "no share of 30001 clients is 1 of them"),
        (
            lambda small: bench_rivals(small.scenario, small.profile, small.folder, [], Sizes(rounds=1), quiet),
            "--rounds: expected at least 2",
        ),
        (lambda small: repeat_shards(small.scenario, small.root / "none", 1, small.root / "x"), "none/data: missing"),
    ],
)
def test_refusals(act: Callable[[Small], object], message: str, small: Small) -> None:
    with pytest.raises(UserError, match=message):
        act(small)
