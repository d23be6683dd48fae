"""Images between two pixel scales about one middle: flux is kept, and the way back gives what the way there was given."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from astropy.wcs import WCS
from numpy.typing import NDArray
from scipy import ndimage

_SAME_SCALE = 2e-3
_BACK_PROJECTIONS = 4


@dataclass(frozen=True)
class PixelGrids:
    """Pixels of an image and pixels of a model, about the same middle.

    Parameters
    ----------
    image, model : tuple of int
        (y, x) in pixels each.
    ratio : float
        Side of a model pixel in pixels of the image.
    """

    image: tuple[int, int]
    model: tuple[int, int]
    ratio: float

    @classmethod
    def around(
        cls, image: tuple[int, int], *, scale_arcsec: float, model_scale_arcsec: float, least: int
    ) -> PixelGrids:
        """Return the grids of an image for a model: model pixels that cover the image, `least` a side at the least."""
        ratio = model_scale_arcsec / scale_arcsec
        if abs(ratio - 1) < _SAME_SCALE:
            # pixels fall on pixels where both sides are even or both odd
            rows, columns = (max(side, least + (side - least) % 2) for side in image)
            return cls(image, (rows, columns), 1.0)
        rows, columns = (max(math.ceil(side / ratio - 1e-6), least) for side in image)
        return cls(image, (rows, columns), ratio)

    def to_model(
        self, flux: NDArray[np.floating], valid: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return flux per model pixel and the share of each that is known, both (..., y, x).

        Flux of a model pixel that is known in part is what it would be if the rest were as bright; 0 where nothing is.
        """
        known = np.where(valid, flux, 0.0).astype(np.float64)
        total, share = _summed(known, self._overlaps), _summed(valid.astype(np.float64), self._overlaps) / self.ratio**2
        if self.ratio < 1:
            filled = _nearest_filled(np.where(valid, flux, np.nan).astype(np.float64))
            return _splined(filled, self._places_in_image) * self.ratio**2, share
        return np.divide(total, share, out=np.zeros_like(total), where=share > 1e-9), share

    def to_image(self, flux: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return flux per pixel of the image from flux per model pixel, (..., y, x).

        Where the image is finer, a spline such that `to_model` gives back the model's flux.
        """
        wide = np.asarray(flux, dtype=np.float64)
        if self.ratio <= 1:
            rows, columns = self._overlaps
            return np.asarray(np.swapaxes(rows, 0, 1) @ wide @ columns) / self.ratio**2
        found = _splined(wide, self._places_in_model) / self.ratio**2
        everywhere = np.ones(found.shape, dtype=bool)
        for _ in range(_BACK_PROJECTIONS):
            again, share = self.to_model(found, everywhere)
            lacking = np.where(share > 0.99, wide - again, 0.0)
            found += _splined(lacking, self._places_in_model) / self.ratio**2
        return found

    def model_wcs(self, wcs: WCS) -> WCS:
        """Return the WCS of the model's pixels from the image's; distortions beyond a linear one are left out."""
        made = WCS(naxis=2)
        made.wcs.ctype = [str(name).removesuffix("-SIP") for name in wcs.wcs.ctype]
        made.wcs.crval, made.wcs.radesys = wcs.wcs.crval, wcs.wcs.radesys
        made.wcs.cd = wcs.pixel_scale_matrix * self.ratio
        sides = (np.array(shape[::-1]) / 2 + 0.5 for shape in (self.image, self.model))
        middle, model_middle = sides
        made.wcs.crpix = (wcs.wcs.crpix - middle) / self.ratio + model_middle
        return made

    @cached_property
    def _overlaps(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return, for rows and for columns, by how much of its length each pixel of the image lies in each of the model's."""
        rows, columns = (
            _overlap(model, image, self.ratio) for model, image in zip(self.model, self.image, strict=True)
        )
        return rows, columns

    @cached_property
    def _places_in_model(self) -> NDArray[np.float64]:
        """Return where the middles of the image's pixels lie in the model's grid, (2, y, x)."""
        rows, columns = (
            (np.arange(image) + 0.5 - image / 2) / self.ratio + model / 2 - 0.5
            for image, model in zip(self.image, self.model, strict=True)
        )
        return np.stack(np.meshgrid(rows, columns, indexing="ij"))

    @cached_property
    def _places_in_image(self) -> NDArray[np.float64]:
        """Return where the middles of the model's pixels lie in the image's grid, (2, y, x)."""
        rows, columns = (
            (np.arange(model) + 0.5 - model / 2) * self.ratio + image / 2 - 0.5
            for image, model in zip(self.image, self.model, strict=True)
        )
        return np.stack(np.meshgrid(rows, columns, indexing="ij"))


def _overlap(model: int, image: int, ratio: float) -> NDArray[np.float64]:
    edges = image / 2 + (np.arange(model + 1) - model / 2) * ratio
    left, right = np.arange(image)[None, :], np.arange(1, image + 1)[None, :]
    return np.clip(np.minimum(edges[1:, None], right) - np.maximum(edges[:-1, None], left), 0.0, None)


def _summed(
    planes: NDArray[np.float64], overlaps: tuple[NDArray[np.float64], NDArray[np.float64]]
) -> NDArray[np.float64]:
    rows, columns = overlaps
    found: NDArray[np.float64] = rows @ planes @ columns.T
    return found


def _splined(planes: NDArray[np.float64], places: NDArray[np.float64]) -> NDArray[np.float64]:
    flat = planes.reshape(-1, *planes.shape[-2:])
    found = [ndimage.map_coordinates(plane, places, order=3, mode="nearest") for plane in flat]
    return np.stack(found).reshape(*planes.shape[:-2], *places.shape[1:])


def _nearest_filled(planes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return planes in which each NaN is the nearest number; 0 where there is none."""
    flat = planes.reshape(-1, *planes.shape[-2:])
    filled = []
    for plane in flat:
        lost = np.isnan(plane)
        if lost.all():
            filled.append(np.zeros_like(plane))
            continue
        place = ndimage.distance_transform_edt(lost, return_distances=False, return_indices=True)
        filled.append(plane[tuple(place)])
    return np.stack(filled).reshape(planes.shape)
