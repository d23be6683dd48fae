"""Point spread functions: analytic ones, images of real ones, and the convolution that makes pixels of cells."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tasks.errors import ConfigurationError
from tasks.sky.generator.draws import Draws
from tasks.sky.generator.prior import NATIVE_SCALE, PsfPrior

COADD_SHAPE = ((0.40, 0.89, 8.0), (0.60, 1.10, 2.4))
"""Share, width in units of the whole's and beta of the two Moffats that fit the g, r, z point spread functions of a coadd
of the Legacy Surveys (DR9, 59.18 -30.48) to 2 % of the peak."""
REACH_ARCSEC = 6.0
"""How far light is carried: point spread functions end there, so that none comes around the edge of a transform."""


@dataclass(frozen=True)
class PsfImages:
    """Images of real point spread functions.

    Parameters
    ----------
    images : Tensor, shape (image, band, y, x)
        Odd sides, the peak in the middle; sum 1.
    pixel_scale_arcsec : float
    """

    images: Tensor
    pixel_scale_arcsec: float = NATIVE_SCALE


def read_psf_images(path: Path) -> PsfImages:
    """Return the images of a FITS file of the Legacy Surveys' ``coadd-psf`` service: one image extension per band.

    Raises
    ------
    ConfigurationError
        Where there is no image of odd sides in it.
    """
    from astropy.io import fits

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fits.verify.VerifyWarning)
        planes = fits.open(path)
    with planes:
        found = [torch.tensor(plane.data.astype("float32")) for plane in planes if plane.data is not None]
    if not found or any(image.ndim != 2 or image.shape[0] % 2 == 0 for image in found):
        raise ConfigurationError(f"{path} holds no images of a point spread function with odd sides")
    images = torch.stack(found).clamp(min=0)[None]
    return PsfImages(images / images.sum(dim=(-1, -2), keepdim=True))


@dataclass(frozen=True)
class Psf:
    """Point spread functions of a batch.

    Parameters
    ----------
    kernels : Tensor, shape (galaxy, band, cells, cells)
        Middle in the first cell, wrapped; sum 1.
    fwhm_arcsec : Tensor, shape (galaxy, band)
    """

    kernels: Tensor
    fwhm_arcsec: Tensor


def draw_psf(
    prior: PsfPrior, draws: Draws, *, bands: int, cells: int, step_arcsec: float, images: PsfImages | None
) -> Psf:
    """Return point spread functions on a grid of cells, cut at `REACH_ARCSEC`; an image in a share of them where there are some."""
    low, high = prior.fwhm_arcsec
    width = draws.log_uniform("psf-width", 1, low=low, high=high)
    fwhm = (width * (prior.band_scatter * draws.normal("psf-band", bands)).exp()).clamp(low, high)
    reach = min(int(REACH_ARCSEC / step_arcsec), (cells - 1) // 2)
    at = torch.arange(-reach, reach + 1, device=fwhm.device) * step_arcsec
    kernels = _moffats(prior, draws, fwhm, at=at, step_arcsec=step_arcsec)
    if images is not None:
        chosen = draws.chance("psf-real", share=prior.image_share)
        which = draws.among("psf-which", torch.arange(len(images.images), device=fwhm.device))
        turned = _resampled(images, at=at).to(fwhm)
        kernels = torch.where(chosen[:, None, None, None], turned[which], kernels)
        fwhm = torch.where(chosen[:, None], width_of(turned, step_arcsec)[which], fwhm)
    whole = torch.nn.functional.pad(kernels, (0, cells - len(at), 0, cells - len(at)))
    return Psf(whole.roll((-reach, -reach), dims=(-1, -2)), fwhm)


def width_of(kernels: Tensor, step_arcsec: float) -> Tensor:
    """Return the full width at half maximum: of the circle that covers as many cells as are above half of the peak."""
    area = (kernels > kernels.amax(dim=(-1, -2), keepdim=True) / 2).sum(dim=(-1, -2)).float()
    return 2 * (area / math.pi).sqrt() * step_arcsec


def _moffats(prior: PsfPrior, draws: Draws, fwhm: Tensor, *, at: Tensor, step_arcsec: float) -> Tensor:
    ellipticity = draws.uniform("psf-ellipticity", fwhm.shape[1], high=prior.ellipticity)
    angle = draws.uniform("psf-angle", fwhm.shape[1], high=math.pi)
    along, across = ellipticity * (2 * angle).cos(), ellipticity * (2 * angle).sin()
    x, y = at[None, None, None, :], at[None, None, :, None]
    spread = [value[:, :, None, None] for value in (along, across)]
    squared = x * x * (1 - spread[0]) + y * y * (1 + spread[0]) - 2 * spread[1] * x * y
    kernel = torch.zeros_like(squared)
    for share, width, beta in COADD_SHAPE if prior.beta is None else ((1.0, 1.0, prior.beta),):
        alpha = width * fwhm / (2 * math.sqrt(2 ** (1 / beta) - 1))
        flux = share * (beta - 1) / (math.pi * alpha.square()) * step_arcsec**2
        kernel += flux[:, :, None, None] * (1 + squared / alpha.square()[:, :, None, None]) ** -beta
    return kernel / kernel.sum(dim=(-1, -2), keepdim=True)


def _resampled(images: PsfImages, *, at: Tensor) -> Tensor:
    """Return images at places in arcsec along x and y by cubic interpolation, shape (image, band, place, place)."""
    half = images.pixel_scale_arcsec * images.images.shape[-1] / 2
    at = at.to(images.images.device) / half
    place = torch.stack(torch.meshgrid(at, at, indexing="ij")[::-1], dim=-1).expand(len(images.images), -1, -1, -1)
    kernel = torch.nn.functional.grid_sample(images.images, place, mode="bicubic", align_corners=False).clamp(min=0)
    return kernel / kernel.sum(dim=(-1, -2), keepdim=True)


@dataclass(frozen=True)
class Optics:
    """Convolution with the point spread function and gathering of cells into pixels.

    Parameters
    ----------
    spectrum : Tensor, shape (galaxy, band, cells, cells), complex
        Of the point spread functions.
    factor : int
        Cells on a side of a pixel.
    pixels : int
        On a side of the image.
    """

    spectrum: Tensor
    factor: int
    pixels: int

    @classmethod
    def of(cls, psf: Psf, *, factor: int, pixels: int) -> Optics:
        """Return the optics of drawn point spread functions."""
        return cls(torch.fft.fft2(psf.kernels), factor, pixels)

    def images(self, target: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
        """Return two scenes as seen, each shape (galaxy, band, y, x): both are carried through one transform."""
        spectrum = torch.fft.fft2(torch.complex(target, others)).mul_(self.spectrum)
        if self.factor > 1:
            spectrum.mul_(self._gathering(centred=False))
        seen = self._folded(spectrum)
        margin = (seen.shape[-1] - self.pixels) // 2
        seen = seen[..., margin : margin + self.pixels, margin : margin + self.pixels]
        return seen.real.contiguous(), seen.imag.contiguous()

    def psf_images(self, side: int) -> Tensor:
        """Return the point spread functions on the pixels, the pixel included, shape (galaxy, band, side, side), sum 1."""
        seen = torch.fft.fftshift(self._folded(self.spectrum * self._gathering(centred=True)).real, dim=(-1, -2))
        side = min(side, seen.shape[-1] - 1 + seen.shape[-1] % 2)
        first = seen.shape[-1] // 2 - side // 2
        seen = seen[..., first : first + side, first : first + side]
        return seen / seen.sum(dim=(-1, -2), keepdim=True)

    def _gathering(self, *, centred: bool) -> Tensor:
        """Return what summing the cells of a pixel does to a spectrum."""
        wave = 2 * math.pi * torch.fft.fftfreq(self.spectrum.shape[-1], device=self.spectrum.device)
        start = (self.factor - 1) / 2 if centred else 0.0
        cells = torch.arange(self.factor, device=wave.device) - start
        line = torch.exp(1j * wave[:, None] * cells).sum(dim=1)
        return line[:, None] * line[None, :]

    def _folded(self, spectrum: Tensor) -> Tensor:
        """Return every `factor`-th cell of the inverse transform: waves beyond the pixels' are folded back, as sampling does."""
        size = spectrum.shape[-1] // self.factor
        folded = spectrum.unflatten(-1, (self.factor, size)).sum(dim=-2)
        folded = folded.unflatten(-2, (self.factor, size)).sum(dim=-3)
        return torch.fft.ifft2(folded) / self.factor**2
