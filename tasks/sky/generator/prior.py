"""What galaxies, images and surroundings are drawn: two committed configurations and what they are made of."""

from __future__ import annotations

from dataclasses import dataclass

PETROSIAN_HALF_LIGHT_ARCSEC = (
    *(1.30, 2.25, 2.76, 3.21, 3.54, 3.86, 4.14, 4.51, 4.82, 5.19, 5.54),
    *(5.92, 6.28, 6.69, 7.16, 7.71, 8.25, 9.38, 10.57, 14.40, 24.28),
)
"""Quantiles 0, 5, ... 100 % of petroth50 of 1313 galaxies of the NASA-Sloan Atlas (the ends are those of 0.5 and 99 %)."""


@dataclass(frozen=True)
class PsfPrior:
    """Point spread functions, without the pixel.

    Parameters
    ----------
    fwhm_arcsec : tuple of (float, float)
        Least and most; log-uniform for a galaxy, with a scatter from band to band, cut at the limits.
    band_scatter : float
        Natural logarithm, 1 sigma.
    beta : float or None
        Of a Moffat; None = the shape fitted to a coadd of the Legacy Surveys (`psf.COADD_SHAPE`).
    ellipticity : float
        Most of it, 1 - b/a.
    image_share : float
        How often an image of a real point spread function is taken, where `draw` is given some.
    """

    fwhm_arcsec: tuple[float, float] = (0.9, 2.0)
    band_scatter: float = 0.1
    beta: float | None = None
    ellipticity: float = 0.08
    image_share: float = 0.25


@dataclass(frozen=True)
class NoisePrior:
    """Noise of one pixel of 0.262 arcsec; per square arcsec it is the same at other scales.

    Parameters
    ----------
    sigma : tuple of float
        Sky noise per band, nanomaggies per pixel of `NATIVE_SCALE`.
    gain : tuple of float
        Variance of the galaxies' own light is flux / gain, both in nanomaggies: ``sigma^2 = flux / 300`` in `BENCH_SIMPLE`.
    correlation : float
        Between pixels side by side at `NATIVE_SCALE`; across a corner its square.
    depth_scatter : float
        Natural logarithm, 1 sigma, from image to image.
    """

    sigma: tuple[float, ...]
    gain: tuple[float, ...]
    correlation: float = 0.0
    depth_scatter: float = 0.0


@dataclass(frozen=True)
class StructurePrior:
    """Shapes of galaxies: what shares of them are what.

    Parameters
    ----------
    kinds : tuple of float
        Shares of ellipticals, lenticulars, spirals and irregulars.
    barred, ringed : float
        Shares of the discs.
    surface_brightness : tuple of (float, float)
        Mean and scatter of r in mag per arcsec^2 within the Petrosian half-light radius, which gives magnitudes to sizes.
    faintest : float
        r magnitude; fainter ones are drawn in to it. The main sample of SDSS spectra ends at 17.77.
    """

    kinds: tuple[float, float, float, float] = (0.22, 0.20, 0.48, 0.10)
    barred: float = 0.45
    ringed: float = 0.25
    surface_brightness: tuple[float, float] = (20.8, 0.65)
    faintest: float = 17.9


@dataclass(frozen=True)
class SurroundingsPrior:
    """What is in an image beside the galaxy.

    Parameters
    ----------
    galaxies_per_arcmin2, stars_per_arcmin2 : float
        Brighter than r 25 and 22.
    companion : float
        Share of images with a bright neighbour.
    sky_offset, sky_gradient : float
        1 sigma, in units of the noise of a pixel; the gradient from edge to edge.
    trail, gap : float
        Share of band images with a satellite's trail, and of images with pixels that hold no data.
    """

    galaxies_per_arcmin2: float = 45.0
    stars_per_arcmin2: float = 2.5
    companion: float = 0.12
    sky_offset: float = 0.06
    sky_gradient: float = 0.06
    trail: float = 0.01
    gap: float = 0.08


@dataclass(frozen=True)
class GalaxyPrior:
    """Everything that `draw` draws from.

    Parameters
    ----------
    name : str
        Also the release that a cutout names.
    bands : tuple of str
        One of them is r, whose magnitudes the others follow by colour.
    pixels : tuple of int
        Sides to choose from, one for a batch.
    pixel_scale_arcsec : tuple of (float, float)
        Least and most, log-uniform, one for a batch.
    centre_scatter_pixels : float
        How far at most the galaxy lies from the middle of the image, in x and in y.
    magnitude, effective_radius_arcsec, axis_ratio : tuple of (float, float)
        Uniform; the first two (r, semi-major axis of half of the light) where there is no `structure`.
    sersic_index : tuple of float
        To choose from, where there is no `structure`.
    """

    name: str
    bands: tuple[str, ...]
    pixels: tuple[int, ...]
    pixel_scale_arcsec: tuple[float, float]
    psf: PsfPrior
    noise: NoisePrior
    centre_scatter_pixels: float = 2.0
    magnitude: tuple[float, float] = (15.0, 18.0)
    effective_radius_arcsec: tuple[float, float] = (3.0, 8.0)
    axis_ratio: tuple[float, float] = (0.35, 0.95)
    sersic_index: tuple[float, ...] = (1.0, 1.5, 2.5, 4.0)
    structure: StructurePrior | None = None
    surroundings: SurroundingsPrior | None = None


NATIVE_SCALE = 0.262
"""Arcsec per pixel of the Legacy Surveys' coadds."""

BENCH_SIMPLE = GalaxyPrior(
    name="bench_simple",
    bands=("r",),
    pixels=(256,),
    pixel_scale_arcsec=(NATIVE_SCALE, NATIVE_SCALE),
    psf=PsfPrior(fwhm_arcsec=(1.2, 1.2), band_scatter=0.0, beta=3.5, ellipticity=0.0, image_share=0.0),
    noise=NoisePrior(sigma=(0.00658,), gain=(300.0,)),
)
"""Single Sersic galaxies in r on an empty sky."""

BENCH_FULL = GalaxyPrior(
    name="bench_full",
    bands=("g", "r", "z"),
    pixels=(32, 48, 64, 96, 128, 192, 256),
    pixel_scale_arcsec=(0.1, 1.0),
    psf=PsfPrior(),
    noise=NoisePrior(
        sigma=(0.0020, 0.0025, 0.0089),
        # sky of 22.0, 21.2 and 19.1 mag per arcsec^2 behind these noises
        gain=(27000.0, 36000.0, 20000.0),
        correlation=0.14,
        depth_scatter=0.06,
    ),
    axis_ratio=(0.12, 1.0),
    structure=StructurePrior(),
    surroundings=SurroundingsPrior(),
)
"""Galaxies with structure in g, r and z, as the Legacy Surveys show them."""

PRIORS = {prior.name: prior for prior in (BENCH_SIMPLE, BENCH_FULL)}
