"""Pictures of galaxies that are to be compared: one stretch for all, whatever an image holds."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from tasks.sky.gallery import LEGACY_WEIGHTS, SOFTENINGS, STRETCH_SIGMAS
from tasks.sky.generation_sets import GalaxySet
from tasks.sky.synthetic_distance import corner_medians


def colour_images(galaxies: GalaxySet, noise: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Return images in colours on one stretch, shape (n, y, x, 3), row 0 the lowest; grey of fewer than three bands.

    Parameters
    ----------
    galaxies : GalaxySet
        Bands by wavelength.
    noise : ndarray, shape (band,)
        Scatter of the real galaxies' sky, nanomaggies per pixel: the stretch is made from it, whatever the images hold.
    """
    from astropy.visualization import make_lupton_rgb

    bands = len(galaxies.bands)
    chosen = (0, bands // 2, bands - 1) if bands >= 3 else (bands - 1,) * 3
    known = all(galaxies.bands[band] in LEGACY_WEIGHTS for band in chosen)
    weights = [LEGACY_WEIGHTS[galaxies.bands[band]] if known else 1 / max(noise[band], 1e-12) for band in chosen]
    sigma = math.sqrt(sum((noise[band] * weight) ** 2 for band, weight in zip(chosen, weights, strict=True))) / 3
    background = corner_medians(galaxies.images)
    planes = [
        (galaxies.images[:, band] - background[:, band, None, None]) * weight / max(sigma, 1e-12) + 1
        for band, weight in zip(chosen, weights, strict=True)
    ]
    with np.errstate(invalid="ignore", divide="ignore"):
        found = [
            make_lupton_rgb(
                *(plane[index].clip(min=0) for plane in reversed(planes)),
                minimum=0,
                stretch=STRETCH_SIGMAS[1],
                Q=SOFTENINGS[2],
            )
            for index in range(len(galaxies))
        ]
    return np.stack(found)
