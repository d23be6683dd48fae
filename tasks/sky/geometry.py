"""The ellipses of an object: from its moments, fitted, begun again from circles, or one at all radii."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

import numpy as np

from storage.cutouts import TARGET, Cutout
from tasks.sky.annuli import annulus_edges
from tasks.sky.band_planes import BandPlane
from tasks.sky.ellipses import Ellipses, fit_ellipses, moment_shape, smooth_layers
from tasks.sky.neighbours import object_middle, patch_extent, search_radius
from tasks.sky.prepare import expected_place, smoothing_width, width_of_points
from tasks.sky.profile import ObjectFlag

_STEP = 1.1
_FIT_FROM_PIXELS = 1.5
_FIT_FROM_EXTENT = 8.0
_FIT_TO = 1.1
_LOST_CENTRE = 0.35


@dataclass(frozen=True)
class Geometry:
    """The ellipses of an object.

    Parameters
    ----------
    ellipses : Ellipses
        As fitted, or from moments.
    extent : float
        Semi-major axis of the object's patch, pixels.
    flags : ObjectFlag
        What happened to the fit.
    """

    ellipses: Ellipses
    extent: float
    flags: ObjectFlag


def fit_geometry(cutout: Cutout, plane: BandPlane, *, deadline: float) -> Geometry:
    """Return the ellipses of a band: from moments, from a circle where that fails, else one ellipse from moments.

    Parameters
    ----------
    cutout : Cutout
        Whose object it is.
    plane : BandPlane
        The band in which they are fitted.
    deadline : float
        Of `time.monotonic`; after it no further fit is begun.
    """
    labels = cutout.segmentation
    place = expected_place(cutout)
    reach = search_radius(labels.shape, cutout.pixel_scale_arcsec)
    x, y = object_middle(
        plane.image,
        plane.good & (labels == TARGET),
        x=place[0],
        y=place[1],
        radius=reach,
        width=smoothing_width(cutout),
    )
    shape = moment_shape(labels, x, y)
    extent = patch_extent(labels, x, y) / math.sqrt(1 - float(np.hypot(*shape)))
    # within half a star's width an image has no shape of its own
    first = max(_FIT_FROM_PIXELS, min(width_of_points(cutout) / 2, extent / _FIT_FROM_EXTENT))
    last = max(_FIT_TO * extent, 2 * first)
    radius = annulus_edges(first, last, _STEP)[:-1] * math.sqrt(_STEP)
    flags = ObjectFlag(0)
    if math.hypot(x - place[0], y - place[1]) > reach:
        flags |= ObjectFlag.OFF_CENTRE
    moments = Ellipses(
        x, y, np.zeros((radius.size, 2)), radius, np.tile(shape, (radius.size, 1)), np.zeros(radius.size)
    )
    layers = smooth_layers(plane.image, plane.good, last, x=x, y=y)
    for start, flag in ((moments, ObjectFlag(0)), (replace(moments, shape=0 * moments.shape), ObjectFlag.RESTARTED)):
        if time.monotonic() > deadline:
            flags |= ObjectFlag.TIME_LIMIT
            break
        found = fit_ellipses(layers, start)
        if _holds(found):
            return Geometry(found, extent, flags | flag)
    return Geometry(moments, extent, flags | ObjectFlag.MOMENT_GEOMETRY)


def _holds(found: Ellipses) -> bool:
    """Return whether a fit is one: finite, about the same middle, and resting on the data somewhere."""
    moved = np.hypot(found.drift[:, 0], found.drift[:, 1])
    near = bool((moved < np.maximum(_LOST_CENTRE * found.radius, max(0.2 * float(found.radius[-1]), 2.0))).all())
    return bool(np.isfinite(found.shape).all() and near and found.trust.max() > 0.2)


def outer_ellipse(geometry: Geometry) -> Ellipses:
    """Return one ellipse at all radii: the outer isophotes', each by how far its own data hold it."""
    ellipses = geometry.ellipses
    outer = ellipses.radius > geometry.extent / 3
    weight = np.where(outer, ellipses.trust, 0.0) + 1e-9
    shape = np.average(ellipses.shape, axis=0, weights=weight)
    return replace(ellipses, shape=np.tile(shape, (ellipses.radius.size, 1)))
