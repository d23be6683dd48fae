"""The U-Net: what it keeps, what it is told, and what it begins as."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models.unet import FREQUENCIES, UNet, UNetConfig, turns_of

SMALL = UNetConfig(channels=2, patch=2, widths=(16, 32), depths=(2, 1), attended=1, conditions=3)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def details_of(x: Tensor) -> Tensor:
    """Return two details, which depend on an image as any would."""
    return torch.cat([x.sin(), x.cos()], dim=1)


def awake(config: UNetConfig = SMALL) -> UNet:
    """Return a network none of whose weights are nothing."""
    network = UNet(config, generator=torch.Generator().manual_seed(1)).requires_grad_(False)
    for parameter in network.parameters():
        parameter.add_(0.05 * drawn(*parameter.shape, seed=2))
    return network


@pytest.mark.parametrize("patch", [1, 2, 4])
@pytest.mark.parametrize("sides", [(16, 16), (32, 16)])
def test_images_keep_their_shape(patch: int, sides: tuple[int, int]) -> None:
    config = UNetConfig(channels=2, patch=patch, widths=(16, 32), depths=(1, 1), attended=1)
    x = drawn(3, 2, *sides)
    assert awake(config)(x, details_of(x), torch.zeros(3)).shape == x.shape


def test_a_new_network_answers_nothing() -> None:
    x = drawn(2, 2, 8, 8)
    assert (UNet(SMALL)(x, details_of(x), torch.zeros(2), drawn(2, 3)) == 0).all()


def test_images_of_a_batch_do_not_see_each_other() -> None:
    network, x, level, condition = awake(), drawn(3, 2, 8, 8), drawn(3), drawn(3, 3)
    together = network(x, details_of(x), level, condition)
    for row in range(3):
        part = slice(row, row + 1)
        torch.testing.assert_close(network(x[part], details_of(x[part]), level[part], condition[part]), together[part])


def test_of_details_as_much_is_taken_as_the_features_say() -> None:
    """Where the answer's other part is nothing, its share of each detail is a number for each pixel."""
    network, x, level = awake(), drawn(1, 2, 8, 8), drawn(1)
    for part in (network.last.weight, network.last.bias, network.seen.weight, network.taken.weight):
        torch.nn.init.zeros_(part)
    torch.nn.init.ones_(network.taken.bias)
    details = details_of(x)
    torch.testing.assert_close(network(x, details, level), details[:, :2] + details[:, 2:])


def test_level_and_condition_change_the_answer() -> None:
    network, x, level, condition = awake(), drawn(2, 2, 8, 8), drawn(2), drawn(2, 3)
    answer = network(x, details_of(x), level, condition)
    assert not torch.allclose(network(x, details_of(x), level + 0.1, condition), answer)
    assert not torch.allclose(network(x, details_of(x), level, condition + 0.5), answer)
    assert not torch.allclose(network(x, details_of(x), level), answer)


def test_a_condition_that_is_not_told_is_as_none_given() -> None:
    network, x, level, condition = awake(), drawn(2, 2, 8, 8), drawn(2), drawn(2, 3)
    mixed = network(x, details_of(x), level, condition, asked=torch.tensor([True, False]))
    torch.testing.assert_close(mixed[0], network(x, details_of(x), level, condition)[0])
    torch.testing.assert_close(mixed[1], network(x, details_of(x), level)[1])


def test_levels_are_told_apart_over_their_whole_range() -> None:
    level = torch.linspace(-1.5, 2.0, 400)
    told = turns_of(level)
    assert told.shape == (400, 2 * FREQUENCIES)
    distance = torch.cdist(told, told)
    neighbours = distance.diagonal(offset=1)
    assert (neighbours > 0.05).all()
    far = (level[:, None] - level).abs() > 0.1
    assert (distance[far] > 1.0).all()


def test_the_default_fits_sixteen_megabytes() -> None:
    with torch.device("meta"):
        network = UNet(UNetConfig())
    count = sum(parameter.numel() for parameter in network.parameters())
    assert 3_500_000 < count < 4_000_000


@pytest.mark.parametrize(
    "given",
    [{"widths": (20,), "depths": (1,)}, {"widths": (16, 32), "depths": (1,)}, {"patch": 0}, {"depths": (0, 1, 1)}],
)
def test_sizes_that_make_no_network_are_refused(given: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"widths|patch"):
        UNetConfig(**given)  # type: ignore[arg-type]
