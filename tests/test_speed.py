"""What `doctor` says of the processor, and its estimate against the whole runs that it comes from."""

import time
from pathlib import Path

import pytest

from pilot.cli.speed import FAST, SLOW, estimate, measure_rate, processor_features


def test_the_estimate_goes_through_what_was_measured() -> None:
    """3,021 s of CPU at 80 GFLOP/s; 1,985 s of CPU, and 1,064 s on two cores, at 157."""
    assert estimate(SLOW[0], 1).cpu_minutes * 60 == pytest.approx(3021)
    fast = estimate(FAST[0], 2)
    assert fast.cpu_minutes * 60 == pytest.approx(1985)
    low, high = fast.minutes
    assert (low * 1.3 * 60, high / 1.3 * 60) == pytest.approx((1064, 1064), abs=1)


def test_between_and_beyond() -> None:
    """w = (50.350 - 33.083) / (1/80 - 1/157) = 2,816.5 minutes x GFLOP/s, a = 33.083 - 17.939 = 15.144."""
    assert estimate(145, 1).cpu_minutes == pytest.approx(15.144 + 2816.5 / 145, abs=0.01)
    assert estimate(1e9, 1).cpu_minutes == pytest.approx(15.144, abs=0.01)
    many = [estimate(100, cores).minutes[0] for cores in (1, 2, 4, 8, 64)]
    assert many == sorted(many, reverse=True) and many[0] == pytest.approx(2 * many[1])
    assert many[-1] == pytest.approx(43.309 * 257 / 1985 / 1.3, abs=0.01), "a run's stages follow one another"


def test_instructions(tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(
        "processor\t: 0\nmodel name\t: Some CPU\nflags\t: fpu avx avx2 avx512f amx_tile\n\nprocessor\t: 1\n"
    )
    assert processor_features(file) == ("Some CPU", ["AVX2", "AVX-512", "AMX"])
    file.write_text("flags : avx2 avx512f_not\n")
    assert processor_features(file) == ("", ["AVX2"])
    assert processor_features(tmp_path / "none") == ("", [])


def test_rate_is_measured_in_a_moment() -> None:
    began = time.thread_time()
    assert 1 < measure_rate(0.05) < 5000
    assert time.thread_time() - began < 3
