"""Operations counted by formula: by hand, and beside what torch counts as it goes."""

from __future__ import annotations

import pytest
import torch
from series_cases import series
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from models.earthpt import EarthPT, EarthPTConfig
from models.earthpt_published import PublishedEarthPT, PublishedEarthPTConfig
from models.flops import earthpt_flops, multiplied_weights, peak_flops, published_flops, training_flops
from models.tokens import Tokens


def full(count: int, steps: int) -> Tokens:
    """Return series without gaps or padding."""
    batch = series(count=count, looks=steps)
    return Tokens(batch.values.nan_to_num(0.0), batch.position, torch.ones_like(batch.valid))


def counted(model: EarthPT | PublishedEarthPT, batch: Tokens) -> int:
    """Return what torch counts in one step of training."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model.loss(batch, generator=torch.Generator().manual_seed(0)).backward()
    return counter.get_total_flops()


def test_a_token_by_hand() -> None:
    # 2 layers of 12 D^2, D = 8; 6 N = 9216; attention 12 x 2 x 8 x 16
    assert training_flops(2 * 12 * 8**2, layers=2, width=8, steps=16) == 9216 + 3072


def test_the_weights_of_the_published_model_by_hand() -> None:
    model = PublishedEarthPT(PublishedEarthPTConfig(2, 2, 8))
    assert multiplied_weights(model) == 2 * 12 * 8**2 + 14 * 8 + 8 * 8 + 8 * 10
    assert published_flops(model, series=3, steps=5) == 15 * (6 * multiplied_weights(model) + 12 * 2 * 8 * 5)


@pytest.mark.parametrize(("layers", "width", "steps"), [(4, 64, 48), (2, 32, 96)])
def test_the_formula_of_the_published_model_is_what_torch_counts(layers: int, width: int, steps: int) -> None:
    model = PublishedEarthPT(PublishedEarthPTConfig(layers, 4, width))
    assert published_flops(model, series=3, steps=steps) == pytest.approx(counted(model, full(3, steps)), rel=0.03)


@pytest.mark.parametrize("config", [EarthPTConfig(), EarthPTConfig(2, 2, 32, pointers=3, queries=20)])
def test_the_formula_of_earthpt_is_what_torch_counts(config: EarthPTConfig) -> None:
    model = EarthPT(config)
    assert earthpt_flops(model, series=3, steps=60) == pytest.approx(counted(model, full(3, 60)), rel=0.03)


@pytest.mark.parametrize(
    ("name", "tera"),
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H200", 989),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A100 80GB PCIe", 312),
        ("NVIDIA L4", 121),
        ("Tesla T4", 65),
        ("NVIDIA GeForce RTX 4090", 165),
    ],
)
def test_peaks_are_those_of_the_makers(name: str, tera: float) -> None:
    assert peak_flops(name) == tera * 1e12


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA H100 PCIe",
        "NVIDIA H100 80GB HBM3 MIG 1g.10gb",
        "NVIDIA L40S",
        "NVIDIA T400 4GB",
        "NVIDIA GeForce RTX 4090 D",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA A10",
        "",
    ],
)
def test_a_gpu_that_is_not_in_the_table_has_no_peak(name: str) -> None:
    assert peak_flops(name) is None
