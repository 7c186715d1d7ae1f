"""The account of a pipeline's time, from benchmark files as Snakemake writes them."""

from pathlib import Path

import pytest

from pilot.bench.pipeline import as_text, bench_pipeline, read_rules, summarise_times
from pilot.errors import UserError

HEADER = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"
FILES = {
    "data.tsv": "5.0\t0:00:05\t242.9\t1\t1\t1\t0\t0\t88.6\t4.0\n",
    "train-pilot-0.tsv": "40.0\t0:00:40\t700.5\t1\t1\t1\t0\t0\t99.0\t39.0\n",
    "train-pilot-1.tsv": "42.0\t0:00:42\t690.0\t1\t1\t1\t0\t0\t99.0\t41.0\n",
    "tables.tsv": "0.2\t0:00:00\tNA\tNA\tNA\tNA\tNA\tNA\t-\tNA\n",
}


@pytest.fixture
def benchmarks(tmp_path: Path) -> Path:
    """A folder of benchmark files; the last job was too short to be sampled."""
    for name, row in FILES.items():
        (tmp_path / name).write_text(HEADER + row)
    return tmp_path


def test_jobs_are_summed_by_rule(benchmarks: Path) -> None:
    train, data, tables = read_rules(benchmarks)
    assert (train.name, train.num_jobs, train.seconds, train.cpu_seconds) == ("train", 2, 82.0, 80.0)
    assert (train.longest_seconds, train.memory_mb) == (42.0, 700.5)
    assert (data.name, data.cpu_seconds, tables.name, tables.cpu_seconds) == ("data", 4.0, "tables", 0.0)


def test_account(benchmarks: Path) -> None:
    # 5 + 40 + 42 + 0.2 s of jobs on two cores: 43.6 s at best; 90 s of 2 x 50 s were used
    found = summarise_times(50.0, 90.0, 2, read_rules(benchmarks))
    assert found == {
        "seconds": 50.0, "cpu_seconds": 90.0, "busy_share": 0.9, "floor_seconds": 43.6, "ratio": 50 / 43.6,
    }  # fmt: skip


def test_text_says_whether_jobs_are_left(benchmarks: Path) -> None:
    rules = read_rules(benchmarks)
    report = {
        "rules": [vars(rule) for rule in rules], "settings": {"cores": 2}, "machine": {"processor": "any"},
        "nothing_left_to_do": True,
    } | summarise_times(50.0, 90.0, 2, rules)  # fmt: skip
    text = as_text(report)
    assert "train            2     82.0     80.0       42.0    700" in text
    assert "whole scenario: 50.0 s; CPU time 90.0 s on 2 cores, 90.0% of their time" in text
    assert text.splitlines()[-3].endswith("nothing to do")
    assert "JOBS REMAIN" in as_text(report | {"nothing_left_to_do": False})


def test_a_run_that_is_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "embedded" / "scenario2").mkdir(parents=True)
    with pytest.raises(UserError, match="exists already"):
        bench_pipeline("scenario2", "embedded", 2, tmp_path)
