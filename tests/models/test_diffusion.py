"""The diffusion model: scaling and its inverse, preconditioning, loss, conditions; and Gaussian data, where the best is known."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from models.diffusion import KEPT_CONDITIONS, DiffusionConfig, GalaxyDiffusion, details_of
from models.samplers import sample, sigma_steps

SMALL = DiffusionConfig(
    bands=("g", "r"),
    pixels=8,
    softening=(0.01, 0.02),
    sigma_data=(0.5, 2.0),
    sigma_min=0.01,
    sigma_max=50.0,
    patch=2,
    widths=(16,),
    depths=(1,),
    attended=0,
)
ASKED = replace(SMALL, conditions=("magnitude",), condition_centre=(17.0,), condition_spread=(0.5,))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=seeded(seed))


def test_flux_comes_back_from_the_scaling() -> None:
    model = GalaxyDiffusion(SMALL)
    flux = torch.cat([drawn(4, 2, 8, 8), 1e3 * drawn(4, 2, 8, 8, seed=1), 1e-4 * drawn(4, 2, 8, 8, seed=2)])
    torch.testing.assert_close(model.to_flux(model.to_scaled(flux)), flux, rtol=1e-5, atol=1e-7)


def test_clipped_flux_is_scaled_as_published() -> None:
    model = GalaxyDiffusion(replace(SMALL, scaling="clip"))
    flux = torch.tensor([-1.0, 0.0, 2.75, 5.5, 9.0]).expand(1, 2, 1, 5)
    scaled = model.to_scaled(flux)
    torch.testing.assert_close(scaled, torch.tensor([-1.0, -1.0, 0.0, 1.0, 1.0]).expand(1, 2, 1, 5))
    torch.testing.assert_close(model.to_flux(scaled), flux.clamp(0, 5.5))


def test_a_new_model_gives_the_best_estimate_that_knows_only_the_spread() -> None:
    """Its network says nothing yet, and the skip is the Wiener gain of each band."""
    model, noisy, sigma = GalaxyDiffusion(SMALL), drawn(3, 2, 8, 8), torch.tensor([0.01, 1.0, 50.0])
    spread = torch.tensor([0.5, 2.0])[:, None, None]
    gain = spread**2 / (spread**2 + sigma[:, None, None, None] ** 2)
    torch.testing.assert_close(model.denoise(noisy, sigma), gain * noisy)


def test_half_precision_rounds_no_pixel() -> None:
    """What the network says may be coarse; the image that it corrects may not."""
    model = GalaxyDiffusion(replace(SMALL, mixing=(0.6, 0.8, 0.8, -0.6)))
    noisy, sigma = drawn(3, 2, 8, 8), torch.tensor([0.01, 1.0, 50.0])
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model.denoise(noisy, sigma)
    torch.testing.assert_close(rounded, model.denoise(noisy, sigma))


def test_mixed_bands_are_what_the_spread_is_of() -> None:
    """With the mixing of sum and difference, a new model takes more noise out of what has the lesser spread."""
    half = math.sqrt(0.5)
    model = GalaxyDiffusion(replace(SMALL, mixing=(half, half, half, -half), sigma_data=(3.0, 0.1)))
    noisy = drawn(2, 2, 8, 8)
    denoised = model.denoise(noisy, torch.ones(2))
    torch.testing.assert_close(denoised.sum(dim=1), noisy.sum(dim=1) * 9 / 10)
    torch.testing.assert_close(denoised[:, 0] - denoised[:, 1], (noisy[:, 0] - noisy[:, 1]) * 0.01 / 1.01)
    mixed = torch.tensor([3.0, 0.1])[:, None, None] * drawn(512, 2, 8, 8)
    scaled = torch.stack([mixed[:, 0] + mixed[:, 1], mixed[:, 0] - mixed[:, 1]], dim=1) * half
    with torch.no_grad():
        loss = float(model.loss({"flux": model.to_flux(scaled)}, generator=seeded(1)))
    assert abs(loss - 1.0) < 0.02


def test_details_are_what_is_not_smooth_in_units_of_the_noise() -> None:
    slope = torch.linspace(0, 10, 16).expand(1, 1, 16, 16)
    inner = (..., slice(3, -3), slice(3, -3))
    torch.testing.assert_close(details_of(slope, torch.ones(1))[inner], torch.zeros(1, 2, 10, 10), atol=1e-5, rtol=0)
    noise = drawn(64, 1, 16, 16)
    near, wide = details_of(0.03 * noise, torch.full((64,), 0.03)).std(dim=(0, 2, 3))
    # the variance of a pixel less the mean of nine, drawn in a little
    assert 0.9 < float(near) / (8 / 9) ** 0.5 < 1.0
    assert 0.2 < float(wide) < 0.33
    assert details_of(1e6 * noise, torch.ones(64)).abs().max() <= 4.0


def test_the_loss_of_a_new_model_is_one_at_every_level() -> None:
    """Preconditioning gives the network's answer unit size: with data of the stated spread the untaught error is 1."""
    model = GalaxyDiffusion(SMALL)
    spread = torch.tensor([0.5, 2.0])[:, None, None]
    flux = model.to_flux(spread * drawn(512, 2, 8, 8))
    with torch.no_grad():
        loss = float(model.loss({"flux": flux}, generator=seeded(1)))
    assert abs(loss - 1.0) < 0.02


def test_training_on_gaussian_data_reaches_the_best_denoiser() -> None:
    """Pixels share a normal mean and have unit scatter about it: the best estimate is linear, and known."""
    spread = math.sqrt(5.0)
    config = replace(SMALL, bands=("r",), softening=(1.0,), sigma_data=(spread,), sigma_max=20.0, patch=4, widths=(32,))
    model = GalaxyDiffusion(config, generator=seeded(3))
    optimiser, generator = torch.optim.Adam(model.parameters(), 3e-3), seeded(4)
    for _ in range(200):
        optimiser.zero_grad()
        model.loss({"flux": model.to_flux(correlated(64, generator))}, generator=generator).backward()
        optimiser.step()
    clean = correlated(1024, seeded(5))
    for level in (1.0, 4.0):
        sigma = torch.full((len(clean),), level)
        noisy = clean + level * drawn(*clean.shape, seed=6)
        with torch.no_grad():
            error = float((model.denoise(noisy, sigma) - clean).square().mean())
        untaught = 5 * level**2 / (5 + level**2)
        assert error < 1.25 * least_error(level) < 0.8 * untaught


def correlated(count: int, generator: torch.Generator) -> Tensor:
    return 2 * torch.randn(count, 1, 1, 1, generator=generator) + torch.randn(count, 1, 8, 8, generator=generator)


def least_error(level: float) -> float:
    """Return the mean squared error of the best estimate: of the shared mean, and of the scatter about it."""
    pixels = 64
    shared = 4 * pixels + 1  # variance along the direction of the mean
    gone = level**2
    return (shared * gone / (shared + gone) + (pixels - 1) * gone / (1 + gone)) / pixels


def test_conditions_are_told_in_their_units() -> None:
    model = GalaxyDiffusion(ASKED, generator=seeded(1)).requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(0.05 * drawn(*parameter.shape, seed=2))
    noisy, sigma = drawn(2, 2, 8, 8), torch.tensor([1.0, 2.0])
    wanted = torch.tensor([[16.5], [18.0]])
    other = replace(ASKED, condition_centre=(0.0,), condition_spread=(1.0,))
    standard = GalaxyDiffusion(other)
    standard.load_state_dict(model.state_dict())
    torch.testing.assert_close(model.denoise(noisy, sigma, wanted), standard.denoise(noisy, sigma, (wanted - 17) / 0.5))
    assert not torch.allclose(model.denoise(noisy, sigma, wanted), model.denoise(noisy, sigma))


def test_conditions_of_training_galaxies_are_kept_and_drawn() -> None:
    model = GalaxyDiffusion(ASKED)
    kept = 17 + drawn(KEPT_CONDITIONS, 1)
    model.keep_conditions(kept)
    found = model.draw_conditions(64, generator=seeded())
    assert found is not None
    assert found.shape == (64, 1)
    assert torch.isin(found, kept).all()
    assert GalaxyDiffusion(SMALL).draw_conditions(4, generator=seeded()) is None


def test_levels_are_spread_as_stated_within_each_batch() -> None:
    """Four in five are log-normal and one in five even in the logarithm, from the lowest to the highest."""
    config = replace(SMALL, level_centre=0.5, level_spread=0.2)
    levels = GalaxyDiffusion(config).draw_levels(1000, seeded()).log()
    low, high = math.log(config.sigma_min), math.log(config.sigma_max)
    assert (levels >= low - 1e-4).all()
    assert (levels <= high + 1e-4).all()
    near = (levels - 0.5).abs() < 0.6
    beside = 0.2 * (1 - 1.2 / (high - low))
    assert abs(float((~near).float().mean()) - beside) < 0.01
    assert abs(float(levels[near].mean()) - 0.5) < 0.02
    above = float((levels > 0.5 + 0.6).float().mean()) / (high - 1.1)
    below = float((levels < 0.5 - 0.6).float().mean()) / (-0.1 - low)
    assert abs(above / below - 1) < 0.1


def test_the_loss_is_the_same_for_the_same_draws() -> None:
    model, batch = GalaxyDiffusion(ASKED), {"flux": drawn(4, 2, 8, 8), "conditions": torch.full((4, 1), 17.0)}
    first, again, other = (model.loss(batch, generator=seeded(seed)).item() for seed in (1, 1, 2))
    assert first == again != other


def test_a_model_samples_images_of_its_own_size_and_of_others() -> None:
    model = GalaxyDiffusion(SMALL).eval()
    levels = sigma_steps(4, sigma_min=SMALL.sigma_min, sigma_max=SMALL.sigma_max)
    for side in (8, 16):
        with torch.inference_mode():
            assert sample(model.denoise, drawn(2, 2, side, side), levels).isfinite().all()


@pytest.mark.parametrize(
    ("noisy", "condition", "words"),
    [
        ((1, 3, 8, 8), None, "wanted are \\(n, 2, y, x\\)"),
        ((2, 8, 8), None, "wanted are"),
        ((1, 2, 8, 7), None, "multiples of 2"),
        ((1, 2, 8, 8), (1, 2), "one row each of \\('magnitude',\\)"),
        ((2, 2, 8, 8), (1, 1), "for 2 images"),
    ],
)
def test_images_and_conditions_of_another_shape_are_refused(
    noisy: tuple[int, ...], condition: tuple[int, ...] | None, words: str
) -> None:
    wanted = None if condition is None else torch.zeros(condition)
    with pytest.raises(ValueError, match=words):
        GalaxyDiffusion(ASKED).denoise(torch.zeros(noisy), torch.ones(noisy[0]), wanted)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"softening": (0.1,)}, "softening: one number for each"),
        ({"conditions": ("size",)}, "condition_centre, condition_spread"),
        ({"sigma_min": 0.0}, "above 0"),
        ({"pixels": 9}, "take a multiple of 2"),
        ({"mixing": (1.0, 0.0, 1.0, 0.0)}, "rows of a rotation of 2 bands"),
        ({"mixing": (1.0,)}, "rows of a rotation"),
        ({"scaling": "log"}, "there are asinh and clip"),
    ],
)
def test_settings_that_do_not_fit_are_refused(given: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        replace(SMALL, **given)  # type: ignore[arg-type]
