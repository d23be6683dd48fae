"""Point spread functions and what they do to cells."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tasks.errors import ConfigurationError
from tasks.sky.generator.draws import Draws
from tasks.sky.generator.prior import PsfPrior
from tasks.sky.generator.psf import REACH_ARCSEC, Optics, Psf, draw_psf, read_psf_images, width_of

DRAWS = Draws(torch.arange(40, 46))
PLAIN = PsfPrior(fwhm_arcsec=(1.2, 1.2), band_scatter=0.0, beta=3.5, ellipticity=0.0)


def gaussian(cells: int, sigma: float) -> Psf:
    at = torch.fft.fftfreq(cells, d=1 / cells)
    kernel = (-0.5 * (at[:, None] ** 2 + at**2) / sigma**2).exp()
    return Psf((kernel / kernel.sum())[None, None], torch.tensor([[2.355 * sigma]]))


def test_a_moffat_has_the_width_that_is_asked_for() -> None:
    psf = draw_psf(PLAIN, DRAWS, bands=1, cells=200, step_arcsec=0.05, images=None)
    assert width_of(psf.kernels, 0.05).numpy() == pytest.approx(1.2, abs=0.03)
    assert psf.kernels.sum(dim=(-1, -2)).numpy() == pytest.approx(1.0, abs=1e-5)


def test_the_shape_of_a_coadd_has_the_width_that_is_asked_for() -> None:
    psf = draw_psf(
        PsfPrior(band_scatter=0.0, ellipticity=0.0), DRAWS, bands=3, cells=240, step_arcsec=0.05, images=None
    )
    assert torch.allclose(width_of(psf.kernels, 0.05), psf.fwhm_arcsec, rtol=0.06)
    assert float(psf.fwhm_arcsec.min()) >= 0.9
    assert float(psf.fwhm_arcsec.max()) <= 2.0


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_pixels_are_the_convolution_summed_over_their_cells(factor: int) -> None:
    pixels, margin = 12, 4
    cells = factor * (pixels + 2 * margin)
    scene = torch.rand((1, 1, cells, cells), generator=torch.Generator().manual_seed(2))
    psf = gaussian(cells, 1.3)
    seen, other = Optics.of(psf, factor=factor, pixels=pixels).images(scene, 2 * scene)
    wide = torch.fft.irfft2(torch.fft.rfft2(scene) * torch.fft.rfft2(psf.kernels), s=(cells, cells))
    summed = torch.nn.functional.avg_pool2d(wide, factor)[..., margin:-margin, margin:-margin] * factor**2
    assert torch.allclose(seen, summed, atol=1e-4)
    assert torch.allclose(other, 2 * summed, atol=2e-4)


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_images_of_the_psf_are_centred_and_even(factor: int) -> None:
    image = Optics.of(gaussian(factor * 40, 1.5 * factor), factor=factor, pixels=24).psf_images(21)[0, 0]
    assert image.shape == (21, 21)
    assert float(image.sum()) == pytest.approx(1.0, abs=1e-5)
    assert torch.allclose(image, image.flip(0, 1), atol=1e-6)
    assert int(image.argmax()) == 21 * 10 + 10


def test_real_images_are_taken_over_with_their_width(shared_data: Path) -> None:
    folder = shared_data / "galaxies" / "legacy_grz_cutouts"
    images = read_psf_images(folder / "decals_59.1067_-30.4848_psf.fits")
    prior = PsfPrior(image_share=1.0)
    psf = draw_psf(prior, DRAWS, bands=3, cells=96, step_arcsec=0.262, images=images)
    reach = int(REACH_ARCSEC / 0.262)
    inner = images.images[..., 31 - reach : 32 + reach, 31 - reach : 32 + reach]
    found = torch.fft.fftshift(psf.kernels, dim=(-1, -2))[..., 48 - reach : 49 + reach, 48 - reach : 49 + reach]
    assert torch.allclose(found, (inner / inner.sum(dim=(-1, -2), keepdim=True)).expand_as(found), atol=1e-4)
    assert 0.7 < float(psf.fwhm_arcsec.min()) < float(psf.fwhm_arcsec.max()) < 1.3


def test_a_file_without_images_is_refused(tmp_path: Path) -> None:
    from astropy.io import fits

    fits.HDUList([fits.PrimaryHDU()]).writeto(tmp_path / "psf.fits")
    with pytest.raises(ConfigurationError, match=r"psf\.fits holds no images"):
        read_psf_images(tmp_path / "psf.fits")
