"""Classical profiles: isophotes of the deepest band, annuli along them in every band."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from storage.cutouts import Cutout
from tasks.errors import SourceRejected
from tasks.sky.annuli import annulus_edges
from tasks.sky.band_planes import band_plane
from tasks.sky.geometry import Geometry, fit_geometry, outer_ellipse
from tasks.sky.measured_profile import measure_band
from tasks.sky.prepare import has_object
from tasks.sky.profile import Profile

_STEP = 1.1
_FIRST_PIXELS = 0.5
_MEASURE_TO = 3.0


@dataclass(frozen=True)
class IsophoteMethod:
    """Measures profiles by isophotes.

    Parameters
    ----------
    fixed_geometry : bool
        One ellipse, the outer isophotes', at all radii.
    step : float
        Ratio of neighbouring radii.
    first_pixels : float
        The smallest of them, so that profiles can be measured at the radii of another one's table.
    """

    fixed_geometry: bool = False
    step: float = _STEP
    first_pixels: float = _FIRST_PIXELS
    name: str = "isophote"

    def measure(self, cutout: Cutout, *, time_limit_s: float) -> tuple[Profile, ...]:
        """Return one profile per band.

        Parameters
        ----------
        cutout : Cutout
            As `prepare_cutout` leaves it.
        time_limit_s : float
            After it no further fit is begun; annuli along the moments' ellipse are measured still.

        Raises
        ------
        SourceRejected
            With reason ``no-object`` where nothing stands out of the noise.
        """
        begun = time.monotonic()
        if not has_object(cutout):
            raise SourceRejected(
                f"{cutout.object_id}: nothing stands out of the noise at its place", reason="no-object"
            )
        planes = tuple(band_plane(cutout, index) for index in range(len(cutout.bands)))
        deepest = max(range(len(planes)), key=lambda index: planes[index].signal)
        geometry = fit_geometry(cutout, planes[deepest], deadline=begun + time_limit_s)
        if self.fixed_geometry:
            geometry = replace(geometry, ellipses=outer_ellipse(geometry))
        edges = self._edges(cutout, geometry)
        profiles = tuple(
            measure_band(
                cutout,
                index,
                planes[index],
                geometry,
                edges,
                method=self.name,
                fitted_here=index == deepest and not self.fixed_geometry,
            )
            for index in range(len(planes))
        )
        seconds = (time.monotonic() - begun) / len(planes)
        return tuple(replace(profile, seconds=seconds) for profile in profiles)

    def _edges(self, cutout: Cutout, geometry: Geometry) -> NDArray[np.float64]:
        rows, columns = cutout.shape
        ellipses = geometry.ellipses
        corner = max(math.hypot(x - ellipses.x, y - ellipses.y) for x in (0, columns - 1) for y in (0, rows - 1))
        return annulus_edges(self.first_pixels, max(min(_MEASURE_TO * geometry.extent, corner), 3.0), self.step)
