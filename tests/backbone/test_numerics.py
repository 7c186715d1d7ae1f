"""Products are float32 on every processor: none may round its factors to bfloat16 unasked."""

from typing import Any

import pytest
import torch

from pilot.backbone.numerics import Numerics, configure_torch, default_matmul_precision, fast_matmul_precision


def test_products_are_float32_here() -> None:
    configure_torch(Numerics())
    made = torch.Generator().manual_seed(0)
    for rows, inner, columns in ((1200, 128, 352), (600, 352, 128), (64, 1024, 64)):
        a, b = (torch.randn(shape, generator=made) for shape in ((rows, inner), (inner, columns)))
        exact = a.double() @ b.double()
        assert float((a @ b - exact).abs().max() / exact.abs().max()) < 5e-6  # bfloat16: 2e-3


@pytest.mark.parametrize(
    ("has", "expected"),
    [
        ({"architecture": "x86_64", "avx512_f": True, "avx512_bf16": True, "amx_tile": False}, "medium"),
        ({"architecture": "x86_64", "avx512_f": True, "amx_tile": True}, "highest"),
        ({"architecture": "x86_64", "avx512_f": False, "amx_tile": False}, "highest"),
        ({"architecture": "aarch64", "bf16": True}, "highest"),
    ],
)
def test_the_fast_setting_is_for_processors_that_do_not_round(
    has: dict[str, Any], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    assert fast_matmul_precision() == expected


def test_the_stock_precision_holds_only_as_long_as_it_is_asked_for() -> None:
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with pytest.raises(KeyError), default_matmul_precision():
            assert torch.get_float32_matmul_precision() == "highest"
            raise KeyError
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
