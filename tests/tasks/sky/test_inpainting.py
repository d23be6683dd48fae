"""In-painting: the exact posterior where it is known, known pixels bit for bit, any size and scale, clear refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from galaxy_models import GaussianModel, gaussian_cutout

from storage.cutouts import BandFacts, Cutout
from tasks.errors import ConfigurationError, SourceRejected
from tasks.sky.inpainting import InpaintRule, draw_unknown, inpaint, levels_of

MODEL = GaussianModel(bands=("g", "r"))
QUICK = InpaintRule(draws=3, steps=6, resamplings=1)


def trail(rows: int, columns: int, half: float = 2.0) -> np.ndarray:
    y, x = np.indices((rows, columns))
    return np.abs(y * columns - x * rows) <= half * np.hypot(rows, columns)


def test_draws_have_mean_and_variance_of_the_exact_posterior() -> None:
    covariance = MODEL.covariance(16)
    image = MODEL.draw(1, 16, 16, generator=torch.Generator().manual_seed(3))[0]
    known = torch.ones((2, 16, 16), dtype=torch.bool)
    known[0, torch.as_tensor(trail(16, 16))] = False
    known[1, 6:10, 3:9] = False
    seen, values = known.flatten(), image.flatten().double()
    gain = covariance[~seen][:, seen] @ torch.linalg.inv(covariance[seen][:, seen])
    mean = gain @ values[seen]
    spread = (covariance[~seen][:, ~seen] - gain @ covariance[seen][:, ~seen]).diagonal().sqrt()
    rule = InpaintRule(draws=100, steps=30, resamplings=8)
    generator = torch.Generator().manual_seed(1)
    draws = draw_unknown(MODEL.denoise, image, known, levels_of(MODEL.config, 30), rule=rule, generator=generator)
    assert torch.equal(draws[:, known], image[known].expand(100, -1))
    found = draws[:, ~known].double()
    assert ((found.mean(dim=0) - mean) / spread).square().mean().sqrt() < 0.35
    assert 0.75 < (found.var(dim=0) / spread.square()).mean() < 1.2
    # going back and forth is what brings the draws there
    once = replace(rule, resamplings=1)
    generator = torch.Generator().manual_seed(1)
    rough = draw_unknown(MODEL.denoise, image, known, levels_of(MODEL.config, 30), rule=once, generator=generator)
    assert ((rough[:, ~known].double().mean(dim=0) - mean) / spread).square().mean().sqrt() > 0.5


def test_stretches_of_several_steps_end_with_known_pixels_too() -> None:
    image = MODEL.draw(1, 16, 16, generator=torch.Generator().manual_seed(4))[0]
    known = torch.ones((2, 16, 16), dtype=torch.bool)
    known[:, 5:9] = False
    heard = []
    rule = InpaintRule(draws=2, steps=7, resamplings=3, jump=3)
    draws = draw_unknown(
        MODEL.denoise,
        image,
        known,
        levels_of(MODEL.config, 7),
        rule=rule,
        generator=torch.Generator().manual_seed(1),
        on_step=lambda done, total: heard.append((done, total)),
    )
    assert torch.equal(draws[:, known], image[known].expand(2, -1))
    assert draws.isfinite().all()
    assert heard[-1] == (21, 21)


@pytest.mark.parametrize("factor", [1, 3])
def test_the_mean_is_near_the_truth_and_all_else_is_bit_for_bit(factor: int) -> None:
    cutout = gaussian_cutout(MODEL, 16, 16, seed=5, factor=factor)
    hole = np.kron(trail(16, 16), np.ones((factor, factor), dtype=bool))
    mask = np.stack([hole, np.zeros_like(hole)])
    spoilt = replace(cutout, flux=np.where(mask, np.float32(9.0), cutout.flux))
    made = inpaint(MODEL, spoilt, mask, rule=InpaintRule(draws=8, steps=12, resamplings=2))
    for image in (made.mean, made.cutout.flux, *(made.filled(draw) for draw in made.draws)):
        assert image[~mask].tobytes() == cutout.flux[~mask].tobytes()
    error = np.sqrt(np.mean((made.mean - cutout.flux)[mask] ** 2))
    assert error < 0.6 * cutout.flux.std()
    assert made.spread[~mask].max() == 0
    assert 0.4 < made.spread[mask].mean() / error < 2.5
    assert made.cutout.valid.all()


def test_an_image_larger_than_the_model_is_filled_in_tiles() -> None:
    cutout = gaussian_cutout(MODEL, 40, 56, seed=6)
    mask = np.broadcast_to(trail(40, 56), (2, 40, 56))
    made = inpaint(MODEL, cutout, mask, rule=InpaintRule(draws=4, steps=10, resamplings=2))
    error = np.sqrt(np.mean((made.mean - cutout.flux)[mask] ** 2))
    assert error < 0.8 * cutout.flux.std()
    assert made.mean[~mask].tobytes() == cutout.flux[~mask].tobytes()


def test_the_same_seed_gives_the_same_and_another_another() -> None:
    cutout = gaussian_cutout(MODEL, 16, 16, seed=7)
    mask = trail(16, 16)
    first, again = (inpaint(MODEL, cutout, mask, rule=QUICK).draws for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.allclose(first, inpaint(MODEL, cutout, mask, rule=replace(QUICK, seed=1)).draws)


def test_bands_may_come_in_any_order_and_units_of_their_own() -> None:
    cutout = gaussian_cutout(MODEL, 16, 16, seed=8)
    mask = np.zeros(cutout.flux.shape, dtype=bool)
    mask[0, 4:8, 4:8] = True
    straight = inpaint(MODEL, cutout, mask, rule=QUICK)
    counts = replace(
        cutout,
        flux=(cutout.flux[::-1] * 10).copy(),
        bands=(BandFacts("r", zero_point=25.0), BandFacts("g", zero_point=25.0)),
        flux_unit="counts",
    )
    turned = inpaint(MODEL, counts, mask[::-1], rule=QUICK)
    np.testing.assert_allclose(turned.draws / 10, straight.draws, rtol=1e-3, atol=1e-5)


def test_a_single_draw_has_no_spread_and_says_so() -> None:
    made = inpaint(MODEL, gaussian_cutout(MODEL, 16, 16), trail(16, 16), rule=replace(QUICK, draws=1))
    assert np.isnan(made.spread[made.mask]).all()
    assert (made.cutout.ivar == 0).all()


def test_what_is_not_valid_is_not_leant_on_and_stays() -> None:
    cutout = gaussian_cutout(MODEL, 16, 16, seed=9)
    flux, valid = cutout.flux.copy(), cutout.valid.copy()
    flux[:, 12:], valid[:, 12:] = 1e6, False
    mask = np.zeros(flux.shape, dtype=bool)
    mask[:, 4:7, 5:9] = True
    made = inpaint(MODEL, replace(cutout, flux=flux, valid=valid), mask, rule=QUICK)
    assert np.abs(made.draws).max() < 10 * np.abs(cutout.flux).max()
    assert made.cutout.flux[~mask].tobytes() == flux[~mask].tobytes()
    assert not made.cutout.valid[:, 12:].any()


def _without_zero_point(cutout: Cutout) -> Cutout:
    return replace(cutout, flux_unit="counts", bands=(BandFacts("g", calibrated=False), BandFacts("r")))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda cutout: replace(cutout, bands=(BandFacts("g"), BandFacts("i"))),
            "has bands g, i; the model is of g, r: r missing",
        ),
        (_without_zero_point, "no zero point of g"),
        (lambda cutout: replace(cutout, valid=np.zeros_like(cutout.valid)), "no pixel is known outside the mask"),
        (lambda cutout: replace(cutout, flux=np.full_like(cutout.flux, np.nan)), "no pixel is known outside the mask"),
        (lambda cutout: replace(cutout, pixel_scale_arcsec=9.0), "pixels of 9 arcsec"),
    ],
)
def test_an_image_that_cannot_be_filled_says_why(change, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(SourceRejected, match=message):
        inpaint(MODEL, change(gaussian_cutout(MODEL, 16, 16)), trail(16, 16), rule=QUICK)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.ones((16, 15), dtype=bool), r"a mask of shape \(16, 15\) for an image of \(2, 16, 16\)"),
        (np.zeros((16, 16), dtype=bool), "marks no pixel"),
        (np.ones((2, 16, 16), dtype=bool), "marks every pixel"),
    ],
)
def test_a_mask_that_does_not_fit_says_why(mask: np.ndarray, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        inpaint(MODEL, gaussian_cutout(MODEL, 16, 16), mask, rule=QUICK)


def test_a_rule_without_a_step_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="steps 0"):
        InpaintRule(steps=0)
