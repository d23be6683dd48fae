"""Tiles cover all that is wanted, share what they share, and a denoiser that knows no neighbours is not changed by them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tasks.sky.inpainting_tiles import tile_starts, tiled


@given(st.integers(1, 12), st.integers(0, 400))
def test_tiles_lie_inside_cover_all_and_overlap_by_half(half: int, more: int) -> None:
    side, length = 2 * half, 2 * half + more
    starts = tile_starts(length, side)
    assert starts[0] == 0
    assert starts[-1] == length - side
    assert (length - side) // 2 in starts
    assert max(np.diff(starts), default=0) <= half


def test_an_axis_shorter_than_a_tile_is_refused() -> None:
    with pytest.raises(ValueError, match="30 pixels hold no tile of 32"):
        tile_starts(30, 32)


def halved(noisy: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
    return noisy / (1 + sigma[:, None, None, None])


def test_a_denoiser_of_single_pixels_gives_the_same_in_tiles() -> None:
    noisy = torch.randn((3, 2, 41, 70), generator=torch.Generator().manual_seed(1))
    sigma = torch.tensor([0.5, 1.0, 2.0])
    found = tiled(halved, side=16, wanted=np.ones((41, 70), dtype=bool))(noisy, sigma, None)
    torch.testing.assert_close(found, halved(noisy, sigma))


def test_only_tiles_that_hold_something_wanted_are_worked_on() -> None:
    seen = []

    def counting(noisy: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        seen.append(len(noisy))
        return torch.zeros_like(noisy)

    wanted = np.zeros((160, 160), dtype=bool)
    wanted[10, 12] = True
    noisy = torch.ones((2, 1, 160, 160))
    found = tiled(counting, side=32, wanted=wanted)(noisy, torch.ones(2), None)
    assert sum(seen) == 2
    assert found[..., 10, 12].abs().max() == 0
    assert (found[..., 100:, 100:] == 1).all()


def test_where_tiles_disagree_the_step_from_one_to_the_other_is_gentle() -> None:
    def numbered(noisy: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        return torch.arange(len(noisy)).float()[:, None, None, None].expand(noisy.shape)

    found = tiled(numbered, side=32, wanted=np.ones((32, 96), dtype=bool))(
        torch.zeros((1, 1, 32, 96)), torch.ones(1), None
    )
    assert found[0, 0, 16].diff().abs().max() < 0.15
