"""The published DDPM: its size, the numbers of the original, its schedule, and its reading as a denoiser."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from models.ddpm_published import PublishedDDPM, PublishedDDPMConfig, cosine_betas
from models.published import LayoutMismatch, read_published, write_published
from models.samplers import posterior, sample, sigma_steps

SMALL = PublishedDDPMConfig(width=8, multipliers=(1, 2), timesteps=12)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=seeded(seed))


def small() -> PublishedDDPM:
    return PublishedDDPM(SMALL, generator=seeded(1)).eval().requires_grad_(False)


def apart(found: Tensor, known: Tensor) -> float:
    assert found.shape == known.shape
    return float((found - known).abs().max())


@pytest.fixture(scope="module")
def folder(shared_data: Path) -> Path:
    return shared_data / "checkpoints" / "ddpm_tiny"


@pytest.fixture(scope="module")
def known(folder: Path) -> dict[str, Tensor]:
    content = np.load(folder / "io.npz")
    return {name: torch.from_numpy(np.asarray(content[name])) for name in content}


@pytest.fixture(scope="module")
def original(folder: Path) -> PublishedDDPM:
    found = read_published(folder / "00000012-model.pt")
    assert (found.layout, found.history) == ("ddpm", {"step": 12})
    assert isinstance(found.model, PublishedDDPM)
    assert found.model.config == PublishedDDPMConfig(width=8)
    return found.model.eval().requires_grad_(False)


def test_the_noise_it_tells_is_that_of_the_original(original: PublishedDDPM, known: dict[str, Tensor]) -> None:
    assert apart(original(known["x"], known["t"]), known["eps_of_x"]) <= 2e-5


def test_noising_is_that_of_the_original(original: PublishedDDPM, known: dict[str, Tensor]) -> None:
    assert apart(original.add_noise(known["x"], known["t"], known["noise"]), known["x_t"]) <= 2e-5


def test_a_step_back_is_that_of_the_original(original: PublishedDDPM, known: dict[str, Tensor]) -> None:
    mean, log_variance = original.step_back(known["x_t"], known["t"])
    assert apart(mean, known["posterior_mean"]) <= 2e-5
    assert apart(log_variance, known["posterior_log_variance"]) <= 2e-5


def test_the_loss_is_that_of_the_original(original: PublishedDDPM, known: dict[str, Tensor]) -> None:
    noise = original(original.add_noise(known["x"], known["t"], known["noise"]), known["t"])
    assert abs(float((noise - known["noise"]).abs().mean()) - float(known["l1_loss"])) <= 2e-5


def test_the_schedule_is_that_of_the_original(original: PublishedDDPM, known: dict[str, Tensor]) -> None:
    assert apart(cosine_betas(1000).float(), known["betas"]) == 0
    made = PublishedDDPM(PublishedDDPMConfig(width=8))
    for name, values in made.named_buffers():
        torch.testing.assert_close(values, original.get_buffer(name), rtol=1e-6, atol=1e-7)


def test_it_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        model = PublishedDDPM(PublishedDDPMConfig())
    assert sum(parameter.numel() for parameter in model.parameters()) == 29_803_467


def test_a_file_written_is_read_as_it_was_and_named_as_published(tmp_path: Path) -> None:
    write_published(small(), tmp_path / "model.pt", "ddpm", history={"step": 750_001})
    found = read_published(tmp_path / "model.pt")
    assert found.history == {"step": 750_001}
    weights = small().state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in found.model.state_dict().items())
    content = torch.load(tmp_path / "model.pt", weights_only=True)
    assert content.keys() == {"step", "model", "ema"}
    assert {f"module.{name}" for name in weights} == set(content["ema"]) == set(content["model"])


def test_a_file_of_other_names_and_shapes_is_refused(tmp_path: Path) -> None:
    write_published(small(), tmp_path / "model.pt", "ddpm")
    content = torch.load(tmp_path / "model.pt", weights_only=True)
    del content["ema"]["module.denoise_fn.mid_attn.fn.g"]
    content["ema"]["module.denoise_fn.extra"] = torch.zeros(1)
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(
        LayoutMismatch, match=r"unknown weight denoise_fn\.extra; missing weight denoise_fn\.mid_attn\.fn\.g"
    ):
        read_published(tmp_path / "model.pt")


def test_the_posterior_is_that_of_the_other_form() -> None:
    """Scaled down, images of clean + sigma x noise are the model's own, and so is a draw of the step before."""
    model, clean, x = small(), drawn(2, 3, 8, 8).clamp(-1, 1), drawn(2, 3, 8, 8, seed=1)
    for step in (11, 5):
        steps = torch.full((2,), step)
        mean = model.posterior_mean_coef1[step] * clean + model.posterior_mean_coef2[step] * x
        kept, before = model.alphas_cumprod[step], model.alphas_cumprod_prev[step]
        sigma, after = (math.sqrt((1 - share) / share) for share in (float(kept), float(before)))
        other = posterior(x / kept.sqrt(), clean, sigma, after, generator=seeded(3))
        noise = drawn(2, 3, 8, 8, seed=3)
        own = mean + (0.5 * model.posterior_log_variance_clipped[steps][0]).exp() * noise
        torch.testing.assert_close(other * before.sqrt(), own, rtol=1e-4, atol=1e-5)


def test_ancestral_sampling_of_the_denoiser_is_sampling_as_published() -> None:
    model, noise = small(), drawn(2, 3, 8, 8)
    levels = torch.cat([model.sqrt_recipm1_alphas_cumprod.double().flip(0), torch.zeros(1, dtype=torch.float64)])
    told: list[tuple[int, int]] = []
    published = model.sample_as_published(noise, generator=seeded(2), on_step=lambda *step: told.append(step))
    start = noise * math.sqrt(1 + 1 / float(levels[0]) ** 2)  # noise alone, and nothing of an image
    made = sample(model.denoise, start, levels, sampler="ancestral", generator=seeded(2))
    torch.testing.assert_close(made, published, rtol=1e-3, atol=1e-3)
    assert told[-1] == (12, 12)


def test_a_level_belongs_to_a_step_and_between_two_to_a_fraction() -> None:
    model = small()
    torch.testing.assert_close(
        model.step_of(model.sqrt_recipm1_alphas_cumprod), torch.arange(12.0), rtol=1e-4, atol=1e-4
    )
    between = (model.sqrt_recipm1_alphas_cumprod[3] * model.sqrt_recipm1_alphas_cumprod[4]).sqrt()
    torch.testing.assert_close(model.step_of(between[None]), torch.tensor([3.5]))
    torch.testing.assert_close(model.step_of(torch.tensor([1e-9, 1e9])), torch.tensor([0.0, 11.0]))


def test_few_steps_make_images_within_the_range() -> None:
    model = small()
    levels = sigma_steps(5, sigma_min=SMALL.sigma_min, sigma_max=SMALL.sigma_max)
    made = sample(model.denoise, drawn(2, 3, 8, 8), levels)
    assert made.abs().max() <= 1
    flux = model.to_flux(made)
    assert ((flux >= 0) & (flux <= 5.5)).all()
    torch.testing.assert_close(model.to_scaled(flux), made)
    assert model.draw_conditions(3, generator=seeded()) is None


def test_it_learns_by_the_absolute_error_of_the_noise() -> None:
    model = PublishedDDPM(SMALL, generator=seeded(1))
    batch = {"flux": drawn(4, 3, 8, 8).abs()}
    loss = model.loss(batch, generator=seeded(2))
    assert 0.5 < loss.item() < 1.5
    loss.backward()
    assert all(parameter.grad is not None for name, parameter in model.named_parameters())
    assert model.loss(batch, generator=seeded(2)).item() == loss.item()


@pytest.mark.parametrize(
    ("shape", "condition", "words"),
    [
        ((1, 2, 8, 8), None, "wanted are"),
        ((1, 3, 8, 7), None, "multiples of 2"),
        ((1, 3, 8, 8), 1, "knows no conditions"),
    ],
)
def test_what_does_not_fit_is_refused(shape: tuple[int, ...], condition: int | None, words: str) -> None:
    asked = None if condition is None else torch.zeros(1, 1)
    with pytest.raises(ValueError, match=words):
        small().denoise(torch.zeros(shape), torch.ones(1), asked)
    with pytest.raises(ValueError, match="multiple of 8"):
        PublishedDDPMConfig(width=12)
