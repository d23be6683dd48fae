"""What is measured of each galaxy of a set, so that sets can be compared."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.sky.generation_features import FeatureNetwork, features_of
from tasks.sky.generation_sets import GalaxySet, require_galaxies
from tasks.sky.morphology import Shapes, Values, corner_noise, measure_shapes, power_spectra
from tasks.sky.synthetic_distance import published_quantities, quantity_names, with_radius

SPECTRUM_BINS = 10
_LONGEST_SHARE = 0.5
"""Of the image's side: the longest wave whose power counts."""
_NYQUIST_SHARE = 0.95
_LEAST = 1e-12


@dataclass(frozen=True)
class Measured:
    """What is measured of a set of galaxies; rows are galaxies, NaN is what could not be measured.

    Parameters
    ----------
    published, half_light : ndarray, shape (n, 2 band)
        Quantities of the Synthetic Galaxy Distance, as published and with the half-light radius of the first band.
    shapes : Shapes
        Of the middle band.
    noise : ndarray, shape (n, band)
        log10 of the scatter of single pixels in the corners, nanomaggies.
    correlation : ndarray, shape (n, band)
        Of pixels side by side there.
    spectrum : ndarray, shape (n, band x bin)
        log10 of power, in squared nanomaggies.
    waves : ndarray, shape (bin,)
        Middles of the bins, waves per arcsec.
    features : ndarray, shape (n, feature), or None
        Of the network, where one was given.
    bands : tuple of str
    """

    published: Values
    half_light: Values
    shapes: Shapes
    noise: Values
    correlation: Values
    spectrum: Values
    waves: Values
    features: Values | None
    bands: tuple[str, ...]

    @property
    def quantities(self) -> tuple[str, ...]:
        """Return names of the columns of `published`."""
        return quantity_names(self.bands)

    @property
    def plane(self) -> Values:
        """Return magnitude of the middle band and first colour, shape (n, 2)."""
        return np.stack([self.published[:, len(self.bands) // 2], self.published[:, len(self.bands) + 1]], axis=1)

    @property
    def everything(self) -> Values:
        """Return all that is measured, shape (n, quantity): what a classifier is told."""
        shapes = self.shapes
        named = [shapes.concentration, shapes.asymmetry, shapes.gini, shapes.m20, shapes.ellipticity]
        parts = [
            self.half_light,
            self.published[:, len(self.bands)],
            *named,
            self.noise,
            self.correlation,
            self.spectrum,
        ]
        if self.features is not None:
            parts.append(self.features)
        return np.column_stack(parts)


def measure_galaxies(
    galaxies: GalaxySet, network: FeatureNetwork | None = None, *, noise: Values | None = None
) -> Measured:
    """Return what is measured of a set.

    Parameters
    ----------
    galaxies : GalaxySet
        Two bands or more, by wavelength.
    network : FeatureNetwork, optional
        Gives features.
    noise : ndarray, shape (band,), optional
        Of the real galaxies (`noise_of`), for a network that sees colours; by default of these.

    Raises
    ------
    ConfigurationError
        Where images cannot be measured (`generation_sets.require_galaxies`), or the network takes others.
    """
    require_galaxies(galaxies)
    images, scale, bands = galaxies.images, galaxies.pixel_scale_arcsec, galaxies.bands
    published = published_quantities(images, scale)
    radius = measure_shapes(images[:, 0]).half_light * scale
    scatter, correlation = corner_noise(images)
    edges = _edges(images.shape[-1], scale)
    spectra = [power_spectra(images[:, band], scale, edges) for band in range(len(bands))]
    return Measured(
        published=published,
        half_light=with_radius(published[:, : len(bands)], radius),
        shapes=measure_shapes(images[:, len(bands) // 2]),
        noise=np.log10(np.maximum(scatter, _LEAST)),
        correlation=correlation,
        spectrum=np.log10(np.maximum(np.concatenate(spectra, axis=1), _LEAST**2)),
        waves=np.sqrt(edges[1:] * edges[:-1]),
        features=None
        if network is None
        else features_of(galaxies, network, noise_of(galaxies) if noise is None else noise),
        bands=bands,
    )


def noise_of(galaxies: GalaxySet) -> NDArray[np.float64]:
    """Return the usual scatter of the sky per band, nanomaggies per pixel."""
    return np.asarray(np.median(corner_noise(galaxies.images)[0], axis=0), dtype=np.float64)


def _edges(side: int, scale: float) -> Values:
    return np.geomspace(1 / (_LONGEST_SHARE * side * scale), _NYQUIST_SHARE * 0.5 / scale, SPECTRUM_BINS + 1)
