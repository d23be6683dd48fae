"""`BENCH_FULL` against the real cutouts of the Legacy Surveys. They are few: what is held is what they can tell."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from astropy.io import fits
from galaxy_statistics import corner_skies, patch_features, patches, sources_per_arcmin2, spectrum_slope
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score

from tasks.sky.generator import BENCH_FULL, draw, read_psf_images
from tasks.sky.morphology import measure_shapes, measure_skies

LOG = logging.getLogger(__name__)
FOLDER = Path("galaxies") / "legacy_grz_cutouts"
SCALE = 0.262


@pytest.fixture(scope="module")
def field(shared_data: Path) -> np.ndarray:
    """Return the one real cutout of native pixels, g, r, z: two galaxies of 16th magnitude in 1.25 arcmin^2."""
    with fits.open(shared_data / FOLDER / "decals_59.1067_-30.4848_img_ivar.fits") as planes:
        return np.stack([plane.data for plane in planes if plane.data is not None][::2]).astype(float)


@pytest.fixture(scope="module")
def fields(shared_data: Path) -> np.ndarray:
    """Return generated images like it: small galaxies, and its own point spread function."""
    images = read_psf_images(shared_data / FOLDER / "decals_59.1067_-30.4848_psf.fits")
    prior = replace(
        BENCH_FULL,
        psf=replace(BENCH_FULL.psf, image_share=1.0),
        surroundings=replace(BENCH_FULL.surroundings, trail=0.0, gap=0.0),
    )
    generator = torch.Generator().manual_seed(21)
    found: list[np.ndarray] = []
    while len(found) < 8:
        galaxies = draw(16, prior, generator=generator, pixels=256, pixel_scale_arcsec=SCALE, psf_images=images)
        small = galaxies.truth.radius_arcsec * galaxies.truth.axis_ratio.sqrt() < 4.0
        found += list(galaxies.flux[small].numpy().astype(float))
    return np.stack(found[:8])


@pytest.mark.slow
def test_noise_sky_and_neighbours_are_those_of_a_real_field(field: np.ndarray, fields: np.ndarray) -> None:
    """In corners of 17 arcsec: noise to 15 %, correlation of neighbours to 0.06, sky to 0.15 of the noise; twice the sources or half."""
    for band, name in enumerate("grz"):
        real, made = corner_skies(field[band], 64), corner_skies(fields[:, band], 64)
        scatter, correlation, median = (
            float(np.median(values)) for values in (made.scatter, made.correlation, made.median)
        )
        LOG.info(
            "%s noise %.5f real %.5f; correlation %.3f real %.3f; sky %.5f real %.5f",
            *(name, scatter, real.scatter, correlation, real.correlation, median, real.median),
        )
        assert scatter == pytest.approx(real.scatter, rel=0.15)
        assert correlation == pytest.approx(real.correlation, abs=0.06)
        assert median == pytest.approx(real.median, abs=0.15 * real.scatter)
    real_density = sources_per_arcmin2(field[1], SCALE)
    density = float(np.median([sources_per_arcmin2(image[1], SCALE) for image in fields]))
    LOG.info("sources per arcmin^2 %.1f real %.1f", density, real_density)
    assert 0.5 < density / real_density < 2.0


@pytest.mark.slow
@pytest.mark.parametrize(("name", "scale"), [("decals_dr3_b", 0.101), ("decals_dr3_d", 0.130)])
def test_resampled_pixels_share_their_noise_as_real_ones(shared_data: Path, name: str, scale: float) -> None:
    """To 0.12: the viewer's finer pixels are correlated by 0.6 to 0.7."""
    real = fits.getdata(shared_data / FOLDER / f"{name}.fits").astype(float)
    plain = replace(BENCH_FULL, surroundings=None)
    made = draw(4, plain, generator=torch.Generator().manual_seed(3), pixels=128, pixel_scale_arcsec=scale)
    noise = (made.flux - made.clean).numpy().astype(float)
    for band in range(3):
        corner = real[band, :70, :70]
        generated = float(np.median(measure_skies(noise[:, band]).correlation))
        found = float(measure_skies(corner).correlation)
        LOG.info("%s band %d correlation %.2f real %.2f", name, band, generated, found)
        assert generated == pytest.approx(found, abs=0.12)


@cache
def undamaged(scale: float) -> np.ndarray:
    """Return images in r, 212 pixels a side, without trails and gaps."""
    prior = replace(BENCH_FULL, surroundings=replace(BENCH_FULL.surroundings, trail=0.0, gap=0.0))
    made = draw(70, prior, generator=torch.Generator().manual_seed(4), pixels=212, pixel_scale_arcsec=scale)
    return made.flux[:, 1].numpy().astype(float)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "scale"), [("decals_dr3_a", 0.2), ("decals_dr3_b", 0.2), ("decals_dr3_d", 0.26)])
def test_real_galaxies_lie_among_generated_ones(shared_data: Path, name: str, scale: float) -> None:
    """Concentration, asymmetry, Gini, M20 and slope within the middle 96 % of generated galaxies of half to twice the size."""
    real = fits.getdata(shared_data / FOLDER / f"{name}.fits")[1].astype(float)
    binned = real.reshape(212, 2, 212, 2).sum(axis=(1, 3))
    images = undamaged(scale)
    shapes, mine = measure_shapes(images), measure_shapes(binned[None])
    size = shapes.half_light / mine.half_light
    alike = np.flatnonzero((size > 0.5) & (size < 2))
    assert len(alike) >= 25
    measured = {
        key: (getattr(shapes, key)[alike], float(getattr(mine, key)[0]))
        for key in ("concentration", "asymmetry", "gini", "m20")
    }
    measured["slope"] = ([spectrum_slope(images[k], scale) for k in alike], spectrum_slope(binned, scale))
    for key, (values, value) in measured.items():
        low, middle, high = np.quantile(values, [0.02, 0.5, 0.98])
        place = float(np.mean(np.asarray(values) < value))
        LOG.info("%s %s real %.3f at %.2f of %.3f to %.3f, median %.3f", name, key, value, place, low, high, middle)
        assert low <= value <= high


@pytest.mark.slow
def test_a_classifier_of_patches_is_not_sure(field: np.ndarray, fields: np.ndarray) -> None:
    """One real image gives 16 patches: the figure is reported, and says only what 16 can."""
    real = np.array([patch_features(patch) for patch in patches(field, 64)])
    made = np.array([patch_features(patch) for image in fields for patch in patches(image, 64)])
    rows = np.arange(16) // 4
    scores: list[float] = []
    truth: list[int] = []
    # a row of real patches is judged by what was learned from the other rows, and generated images likewise by fours
    for row in range(4):
        left_out = np.arange(len(made)) // 16 % 4 == row
        features = np.concatenate([real[rows != row], made[~left_out]])
        labels = np.r_[np.ones((rows != row).sum()), np.zeros((~left_out).sum())]
        forest = RandomForestClassifier(300, class_weight="balanced", min_samples_leaf=2, random_state=row)
        forest.fit(features, labels)
        for kind, part in ((1, real[rows == row]), (0, made[left_out])):
            scores += forest.predict_proba(part)[:, 1].tolist()
            truth += [kind] * len(part)
    area = float(roc_auc_score(truth, scores))
    LOG.info("AUC of real against generated patches: %.2f (16 and %d)", area, len(made))
    assert area < 0.97
