"""The report of `bench federation` as text."""

from collections.abc import Iterator, Mapping
from typing import Any

MEBIBYTE = 2**20


def as_text(report: Mapping[str, Any]) -> str:
    """Format all measurements as tables, with the fitted exponents and the machine."""
    parts = (_averaging, _ata, _recall, _search, _simulation, _machine)
    return "\n\n".join("\n".join(part(report)) for part in parts)


def _averaging(report: Mapping[str, Any]) -> Iterator[str]:
    yield "One round of FedAvg through the driver, updates streamed (growth of the server's memory)"
    yield f"{'clients':>9} {'parameters':>12} {'seconds':>9} {'CPU s':>9} {'peak MiB':>9} {'max error':>10}"
    for row in (*report["averaging"], *report["small_updates"]):
        yield (
            f"{row['clients']:>9} {row['parameters']:>12} {row['seconds']:>9.2f} {row['cpu_seconds']:>9.2f} "
            f"{_mib(row['peak_bytes']):>9} {row['error']:>10.1e}"
        )
    fits = report["fits"]
    yield (
        f"CPU time ~ clients^{fits['averaging_time_exponent']:.2f}, memory ~ clients^"
        f"{fits['averaging_memory_exponent']:.2f}; kept per client: {fits['bookkeeping_bytes_per_client']:.0f} bytes"
    )


def _ata(report: Mapping[str, Any]) -> Iterator[str]:
    bound = _mib(report["ata"][0]["memory_bound"])
    yield f"Adaptive text aggregation in blocks, adapters on disk, memory bound {bound} MiB"
    head = ("clients", "parameters", "per block", "neighbours", "mixing", "CPU s", "seconds", "peak MiB")
    yield " ".join(f"{name:>12}" for name in head)
    for row in report["ata"]:
        yield (
            f"{row['clients']:>12} {row['parameters']:>12} {row['rows_per_block']:>12} "
            f"{row['neighbours']['cpu_seconds']:>12.2f} {row['mixing']['cpu_seconds']:>12.2f} "
            f"{row['cpu_seconds']:>12.2f} {row['seconds']:>12.2f} "
            f"{_mib(row['peak_bytes']):>12}"
        )
    fits = report["fits"]
    yield (
        f"CPU time ~ clients^{fits['ata_time_exponent']:.2f}, between the last two "
        f"{fits['ata_time_exponent_last']:.2f} (K^2 d is 2)"
    )


def _recall(report: Mapping[str, Any]) -> Iterator[str]:
    yield "True 3 nearest neighbours found from sketches of s numbers: share (recall)"
    for case in report["recall"]:
        noise = "independent Gaussian" if case["noise"] is None else f"3 tasks, {case['noise']:.0%} noise"
        yield f"{case['clients']} clients, {case['parameters']} parameters, {noise}"
        overfetches = sorted({row["overfetch"] for row in case["table"]})
        yield f"{'':>6} {'sketches':>9}  re-ranked, candidates per neighbour"
        yield f"{'s':>6} {'alone':>9} " + " ".join(f"{number:>7}" for number in overfetches if number > 1)
        for size in sorted({row["size"] for row in case["table"]}):
            shares = {row["overfetch"]: row["recall"] for row in case["table"] if row["size"] == size}
            values = (f"{shares[number]:>7.4f}" for number in overfetches if number > 1)
            yield f"{size:>6} {shares[1]:>9.4f} " + " ".join(values)
        chosen, exact = case["chosen"], case["exact"]
        yield (
            f"s {chosen['size']}, {chosen['overfetch']} candidates per neighbour, re-ranked: recall "
            f"{chosen['recall']:.4f}, {_cost(chosen)}; exact in blocks: {_cost(exact)}"
        )


def _search(report: Mapping[str, Any]) -> Iterator[str]:
    yield "Search for candidates in given sketches"
    yield f"{'clients':>9} {'s':>6} {'seconds':>9} {'CPU s':>9} {'peak MiB':>9}"
    for row in report["search"]:
        yield (
            f"{row['clients']:>9} {row['size']:>6} {row['seconds']:>9.2f} {row['cpu_seconds']:>9.2f} "
            f"{_mib(row['peak_bytes']):>9}"
        )
    fits = report["fits"]
    yield (
        f"CPU time ~ clients^{fits['search_time_exponent']:.2f}, between the last two "
        f"{fits['search_time_exponent_last']:.2f}"
    )


def _simulation(report: Mapping[str, Any]) -> Iterator[str]:
    yield "Flower's simulation (Ray) beside the local transport: clients that return the payload"
    yield f"{'clients':>9} {'parameters':>12} {'start-up s':>11} {'round s':>9} {'local round s':>14}"
    for row in report["simulation"]:
        yield (
            f"{row['clients']:>9} {row['parameters']:>12} {row['startup_seconds']:>11.1f} "
            f"{row['round_seconds']:>9.2f} {row['local_round_seconds']:>14.3f}"
        )


def _machine(report: Mapping[str, Any]) -> Iterator[str]:
    yield "machine: " + ", ".join(f"{name} {value}" for name, value in report["machine"].items())


def _cost(row: Mapping[str, Any]) -> str:
    return f"{row['cpu_seconds']:.1f} CPU s, {_mib(row['peak_bytes'])} MiB"


def _mib(number: int) -> str:
    return f"{number / MEBIBYTE:.0f}"
