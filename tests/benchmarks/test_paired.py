"""The timing core: order, spreads, agreement; products and memory counted exactly."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from pilot.bench.kernels import references
from pilot.bench.kernels.compare import peak_bytes
from pilot.bench.kernels.paired import Spread, alternate, largest_difference, ratios
from pilot.bench.kernels.products import Product, flops, make_product_runner, record_products
from pilot.bench.kernels.references import reference
from pilot.bench.kernels.report import Report, Row
from pilot.errors import UserError


def test_spread_by_hand() -> None:
    assert Spread.of([4.0, 1.0, 3.0, 2.0, 5.0]) == Spread(3.0, 2.0, 4.0)
    assert Spread.of([7.0]) == Spread(7.0, 7.0, 7.0)


def test_sides_take_every_place_in_turn() -> None:
    called: list[str] = []

    def side(name: str) -> Callable[[], None]:
        return lambda: called.append(name)

    seconds = alternate({name: side(name) for name in "abc"}, repeats=3, warm_up=1)
    assert "".join(called) == "cab" + "abc" + "bca" + "cab"
    assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3, "c": 3}
    assert all(value > 0 for values in seconds.values() for value in values)


def test_short_calls_are_timed_many_at_a_time() -> None:
    called: list[int] = []
    alternate({"a": lambda: called.append(1)}, repeats=2, warm_up=1, min_seconds=0.001)
    assert len(called) > 10


def test_ratios_are_paired() -> None:
    # 6/2, 8/4, 9/1: median 3; the ratio of the medians would be 4.
    assert ratios({"a": [6.0, 8.0, 9.0], "b": [2.0, 4.0, 1.0]}, "a", "b").median == 3.0


def test_difference_is_relative_to_each_tensor() -> None:
    ours = {"x": torch.tensor([10.0, 20.5]), "y": torch.tensor([0.0])}
    plain = {"x": torch.tensor([10.0, 20.0]), "y": torch.tensor([0.0])}
    assert largest_difference("bench", ours, plain, 0.1) == pytest.approx(0.025)
    with pytest.raises(UserError, match=r"bench: ours and the reference differ by 2.5e-02 of the largest value in x"):
        largest_difference("bench", ours, plain, 0.01)
    with pytest.raises(UserError, match="differ by nan"):
        largest_difference("bench", plain | {"y": torch.tensor([torch.nan])}, plain, 0.1)
    with pytest.raises(UserError, match="differ by nan .* in x"):
        largest_difference("bench", plain | {"x": plain["x"] * torch.nan}, plain, 0.1)
    with pytest.raises(UserError, match=r"only one side has \['y'\]"):
        largest_difference("bench", {"x": plain["x"]}, plain, 0.1)
    with pytest.raises(UserError, match="x has shapes"):
        largest_difference("bench", plain | {"x": torch.zeros(1)}, plain, 0.1)


def test_products_by_hand() -> None:
    # 2 * 3 * 4 * 5 = 120, twice, in batches of 6: 1440.
    product = Product(3, 4, 5, times=2, batch=6, right_transposed=True)
    assert product.flops == 1440 and flops([product, product]) == 2880
    assert record_products(make_product_runner([product])) == [product]


def test_every_product_is_recorded_forward_and_backward() -> None:
    """As PyTorch's own counter does, and forms that write into given memory too."""
    weight = torch.randn(8, 4, requires_grad=True)
    bias = torch.randn(8, requires_grad=True)
    inputs, keys = torch.randn(6, 4, requires_grad=True), torch.randn(2, 3, 8)

    def work() -> None:
        hidden = torch.nn.functional.linear(inputs, weight, bias).view(2, 3, 8)
        (hidden @ keys.transpose(1, 2)).sum().backward()

    with FlopCounterMode(display=False) as counter:
        work()
    found, first = record_products(work), Product(6, 4, 8, right_transposed=True)
    assert flops(found) == counter.get_total_flops() > 0
    assert first in found
    x, w, out = inputs.detach(), weight.detach().t(), torch.zeros(6, 8)
    assert record_products(lambda: torch.mm(x, w, out=out)) == [first]
    assert record_products(lambda: out.addmm_(x, w)) == [first]


def test_peak_memory_of_tensors() -> None:
    """Three of 4 MiB, never more than two at once; what was there before does not count."""
    before = torch.ones(2**20)

    def work() -> torch.Tensor:
        first = before * 2
        second = first + 1
        del first
        return second * 2

    assert peak_bytes(work) == pytest.approx(8 * 2**20, abs=2**10)


def test_missing_references_are_explained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert callable(reference("ct_moa").forward)
    monkeypatch.setattr(references, "FOLDER", tmp_path)
    with pytest.raises(UserError, match="run this from a clone"):
        reference("ct_moa")


def test_report_as_table_and_json() -> None:
    spread = Spread(0.0025, 0.002, 0.003)
    row = Row({"B": 4}, {"ours": spread, "loop": Spread(1.5, 1, 2)}, {"loop / ours": Spread(600, 590, 610)}, 2e-7, 9)
    report = Report("ct-moa", {"repeats": 9}, [row], {"exponent": 1.0}, ["A note."])
    lines = report.as_text().splitlines()
    assert lines[0].split() == ["B", "ours", "loop", "loop", "/", "ours", "differ", "n"]
    assert lines[1].split() == ["4", "2.50", "ms", "1.50", "s", "600.00", "[590.00,", "610.00]", "2e-07", "9"]
    assert lines[2:4] == ["exponent: 1", "settings: repeats 9"] and lines[-1] == "A note."
    content = json.loads(json.dumps(report.to_json()))
    assert content["rows"][0]["seconds"]["ours"] == {"median": 0.0025, "lower": 0.002, "upper": 0.003}
    assert content["machine"]["threads"] == 1 and {"torch", "transformers", "peft"} <= content["machine"].keys()
