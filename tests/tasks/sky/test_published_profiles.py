"""Pix2Prof as a method: the published inputs and nothing else, radii by number of sample, both ways to run it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sky_cases import sersic_cutout

from models.earthpt_published import PublishedEarthPT, PublishedEarthPTConfig
from models.pix2prof import SHORTEST, Pix2Prof, Pix2ProfConfig
from storage.cutouts import Cutout
from storage.errors import NotFound
from storage.location import resolve
from tasks.earth.model_files import save_network
from tasks.errors import ConfigurationError, SourceRejected, UsageError
from tasks.sky.methods import Weights, open_method, pin_model
from tasks.sky.profile import Profile, RadiusFlag
from tasks.sky.profile_table import from_table, to_table
from tasks.sky.published_profiles import PIXEL_SCALE_ARCSEC, load_pix2prof
from tasks.sky.qa_plots import draw_object


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a warehouse with a small Pix2Prof and a small EarthPT."""
    root = tmp_path_factory.mktemp("warehouse")
    earthpt = PublishedEarthPT(PublishedEarthPTConfig(1, 2, 16, 8))
    pix2prof = Pix2Prof(Pix2ProfConfig(width=4), generator=torch.Generator().manual_seed(5))
    for name, kind, model in (("earth", "earthpt-published", earthpt), ("mine", "pix2prof", pix2prof)):
        said = {"metrics": {}, "training": {}, "card": "Small."}
        save_network(resolve(str(root)), name, model, kind=kind, config=model.to_config(), **said)
    return str(root)


@pytest.fixture(scope="module")
def galaxy() -> Cutout:
    """Return a galaxy as SDSS would show it: 256 x 256 pixels, bands g, r and z."""
    return sersic_cutout(side=256, bands=("g", "r", "z"), scale=PIXEL_SCALE_ARCSEC, magnitude=14.0)


def measure(warehouse: str, cutout: Cutout, *, training_mode: bool = False) -> tuple[Profile, ...]:
    method = open_method("published", weights=Weights(warehouse, "mine", training_mode))
    assert method.name == "published"
    return method.measure(cutout, time_limit_s=60.0)


def test_what_comes_out_is_the_networks_own_at_one_pixel_a_sample(warehouse: str, galaxy: Cutout) -> None:
    found = measure(warehouse, galaxy)[1]
    flux = galaxy.flux[1].astype(np.float64)
    scaled = (np.minimum(flux, np.quantile(flux, 0.999)) - 2) / 28
    with torch.inference_mode():
        (expected,) = load_pix2prof(warehouse, "mine").roll_out(torch.from_numpy(scaled)[None, None].float())
    assert (found.state, found.method, found.band) == ("measured", "published", "r")
    assert found.mu.size > SHORTEST
    np.testing.assert_allclose(found.mu, expected, rtol=1e-5)
    np.testing.assert_allclose(found.radius_arcsec, 0.396 * (1 + np.arange(found.mu.size)))
    np.testing.assert_allclose(22.5 - 2.5 * np.log10(found.intensity), found.mu)
    assert (found.centre_x, found.centre_y) == (127.5, 127.5)
    assert found.centre_ra == pytest.approx(galaxy.ra)
    inside = found.radius_arcsec < galaxy.bands[1].psf_fwhm_arcsec
    np.testing.assert_array_equal(found.flags, np.where(inside, int(RadiusFlag.INSIDE_PSF), 0))


def test_it_claims_no_more_than_it_gives(warehouse: str, galaxy: Cutout) -> None:
    found = measure(warehouse, galaxy)[0]
    for name in ("intensity_error", "mu_error", "ellipticity", "position_angle"):
        assert np.isnan(getattr(found, name)).all()
        assert getattr(found, name).size == found.mu.size
    for name in ("sky", "sky_error", "magnitude", "total_magnitude", "half_light_radius_arcsec"):
        assert np.isnan(getattr(found, name))


def test_a_band_that_the_weights_do_not_know_is_rejected_alone(warehouse: str, galaxy: Cutout) -> None:
    assert [row.state for row in measure(warehouse, galaxy)] == ["measured", "measured", "rejected"]
    row = measure(warehouse, galaxy)[2]
    assert (row.band, row.reason) == ("z", "invalid-input")
    assert "g, r, i alone" in row.message
    bands = (replace(galaxy.bands[0], calibrated=False), *galaxy.bands[1:])
    assert "takes nanomaggies" in measure(warehouse, replace(galaxy, bands=bands))[0].message
    valid = galaxy.valid.copy()
    valid[1] = False
    assert measure(warehouse, replace(galaxy, valid=valid))[1].message == "no valid pixel"


def test_another_pixel_scale_or_a_small_image_is_rejected_with_the_reason(warehouse: str, galaxy: Cutout) -> None:
    with pytest.raises(SourceRejected, match=r"0\.262 arcsec per pixel: .* counts radii in pixels of 0\.396"):
        measure(warehouse, replace(galaxy, pixel_scale_arcsec=0.262))
    small = {name: getattr(galaxy, name)[..., :200, :] for name in ("flux", "valid", "ivar", "maskbits")}
    with pytest.raises(SourceRejected, match="256 x 200 pixels: the published network needs 256 x 256"):
        measure(warehouse, replace(galaxy, segmentation=galaxy.segmentation[:200], **small))
    assert measure(warehouse, replace(galaxy, pixel_scale_arcsec=0.3961))[0].state == "measured"


def test_only_the_middle_counts_and_empty_pixels_are_zero(warehouse: str, galaxy: Cutout) -> None:
    frame = ((0, 0), (10, 11), (30, 30))
    wide = {name: np.pad(getattr(galaxy, name), frame) for name in ("valid", "ivar", "maskbits")}
    flux = np.pad(galaxy.flux, frame, constant_values=500.0)
    framed = replace(galaxy, flux=flux, segmentation=np.pad(galaxy.segmentation, frame[1:]), **wide)
    bare, found = measure(warehouse, galaxy)[0], measure(warehouse, framed)[0]
    np.testing.assert_array_equal(found.mu, bare.mu)
    assert (found.centre_x, found.centre_y) == (157.5, 137.5)
    valid, zeroed, spoilt = galaxy.valid.copy(), galaxy.flux.copy(), galaxy.flux.copy()
    valid[:, 40:60, 90:120] = False
    zeroed[:, 40:60, 90:120] = 0.0
    spoilt[:, 40:60, 90:120] = 1e4
    masked = measure(warehouse, replace(galaxy, flux=spoilt, valid=valid))[0]
    np.testing.assert_array_equal(masked.mu, measure(warehouse, replace(galaxy, flux=zeroed))[0].mu)


def test_units_are_brought_to_nanomaggies(warehouse: str, galaxy: Cutout) -> None:
    bands = tuple(replace(band, zero_point=25.0) for band in galaxy.bands)
    counts = replace(galaxy, flux=galaxy.flux * np.float32(10.0), bands=bands, flux_unit="counts")
    np.testing.assert_allclose(measure(warehouse, counts)[0].mu, measure(warehouse, galaxy)[0].mu, rtol=1e-4)


def test_training_mode_is_another_answer_and_the_same_again(warehouse: str, galaxy: Cutout) -> None:
    planes = {name: getattr(galaxy, name)[:1] for name in ("bands", "flux", "valid", "ivar", "maskbits")}
    galaxy = replace(galaxy, **planes)
    usual = measure(warehouse, galaxy)[0]
    first, again = (measure(warehouse, galaxy, training_mode=True)[0] for _ in range(2))
    np.testing.assert_array_equal(first.mu, again.mu)
    assert not np.array_equal(first.mu[:SHORTEST], usual.mu[:SHORTEST])
    other = measure(warehouse, replace(galaxy, object_id="other"), training_mode=True)[0]
    assert not np.array_equal(first.mu[:SHORTEST], other.mu[:SHORTEST])
    np.testing.assert_array_equal(measure(warehouse, galaxy)[0].mu, usual.mu)


def test_rows_go_through_the_table_and_are_drawn(warehouse: str, galaxy: Cutout) -> None:
    rows = measure(warehouse, galaxy)
    back = from_table(to_table(rows))
    np.testing.assert_array_equal(back[0].mu, rows[0].mu)
    assert np.isnan(back[0].ellipticity).all()
    assert back[2].message == rows[2].message
    assert draw_object(galaxy, rows).startswith(b"\x89PNG")


def test_a_model_is_named_and_of_the_right_kind(warehouse: str) -> None:
    with pytest.raises(ConfigurationError, match="--model earth is of kind earthpt-published"):
        open_method("published", weights=Weights(warehouse, "earth"))
    with pytest.raises(NotFound, match="no model 'none'"):
        open_method("published", weights=Weights(warehouse, "none"))
    with pytest.raises(ConfigurationError, match="name its weights with --model; `canopus import-weights"):
        open_method("published")
    with pytest.raises(UsageError, match="--method isophote takes no --model"):
        open_method("isophote", weights=Weights(warehouse, "mine"))


def test_a_run_pins_the_version(warehouse: str) -> None:
    pinned = pin_model(warehouse, "published", "mine")
    assert pinned.startswith("mine/")
    assert (Path(warehouse) / "models" / pinned).is_dir()
    assert pin_model(warehouse, "published", pinned) == pinned
