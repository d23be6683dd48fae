"""What stands between the ground and the sensor: clouds, shadows, haze, snow, and a scene classification that errs.

The classification (SCL, the codes of Sen2Cor) is not the truth: it misses thin cloud, takes bright ground for cloud,
and draws the edges of clouds too wide, each to a degree that changes from date to date, as in real series.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.special import ndtri

from tasks.earth.simulate.noise import fractal_field, smooth_field

SCL_NO_DATA, SCL_DARK, SCL_SHADOW, SCL_VEGETATION, SCL_BARE, SCL_WATER = 0, 2, 3, 4, 5, 6
SCL_UNCLASSIFIED, SCL_CLOUD_MEDIUM, SCL_CLOUD_HIGH, SCL_CIRRUS, SCL_SNOW = 7, 8, 9, 10, 11

# per band B02 .. B12: brightness of thick cloud and of fresh snow, share of haze and veil seen, light left in a shadow
_CLOUD = np.array([0.62, 0.62, 0.63, 0.64, 0.65, 0.66, 0.66, 0.66, 0.56, 0.46], np.float32)
_SNOW = np.array([0.72, 0.73, 0.72, 0.71, 0.70, 0.68, 0.66, 0.64, 0.12, 0.10], np.float32)
_HAZE = np.array([1.00, 0.80, 0.62, 0.56, 0.51, 0.47, 0.43, 0.41, 0.15, 0.09], np.float32)
_VEIL = np.array([1.00, 0.99, 0.97, 0.96, 0.95, 0.94, 0.93, 0.92, 0.75, 0.60], np.float32)
_SKYLIGHT = np.array([0.42, 0.36, 0.30, 0.28, 0.26, 0.25, 0.24, 0.23, 0.18, 0.16], np.float32)
_HAZE_BRIGHTNESS = 0.42
_USUALLY_MISSED_DEPTH = 0.35


@dataclass(frozen=True)
class Air:
    """The state of the air at one overpass, on the 10 m grid.

    Parameters
    ----------
    cloud : ndarray, shape (y, x), float32
        Optical depth of cloud, 0 where there is none.
    shadow : ndarray, shape (y, x), float32
        Share of the direct light that clouds keep from the ground.
    haze : float
        Share of the blue light that comes from haze the correction left in, less in longer waves; negative where it
        took out too much.
    veil : ndarray, shape (y, x), float32
        Share of the light that comes from thin high cloud, much the same in all bands.
    missed_depth : float
        Optical depth below which the classification sees no cloud.
    missed_shadow : float
        Share of light lost below which the classification sees no shadow; above 1 it sees none at all.
    widening_px : int
        20 m pixels by which the classification widens clouds.
    """

    cloud: np.ndarray
    shadow: np.ndarray
    haze: float
    veil: np.ndarray
    missed_depth: float
    missed_shadow: float
    widening_px: int


@dataclass(frozen=True)
class Sun:
    """Where the sun stands.

    Parameters
    ----------
    elevation_deg, azimuth_deg : float
        Above the horizon; clockwise from north.
    """

    elevation_deg: float
    azimuth_deg: float

    @property
    def vector(self) -> tuple[float, float, float]:
        """Return the unit vector towards the sun: east, north, up."""
        up, around = np.radians(self.elevation_deg), np.radians(self.azimuth_deg)
        return float(np.cos(up) * np.sin(around)), float(np.cos(up) * np.cos(around)), float(np.sin(up))


def draw_air(rng: np.random.Generator, shape: tuple[int, int], *, cloud_cover: float, sun: Sun) -> Air:
    """Draw the air of one overpass.

    Parameters
    ----------
    rng : numpy.random.Generator
        Of this overpass.
    shape : tuple of int
        Rows and columns of the 10 m grid.
    cloud_cover : float
        Share of the area under cloud, 0 to 1.
    sun : Sun

    Returns
    -------
    Air
    """
    margin = 120
    depth = _cloud_depth(rng, (shape[0] + 2 * margin, shape[1] + 2 * margin), cloud_cover)
    rows, columns = slice(margin, margin + shape[0]), slice(margin, margin + shape[1])
    height_m = float(np.exp(rng.normal(np.log(900), 0.5)))
    cast = np.array(sun.vector[:2]) / max(sun.vector[2], 0.2) * height_m / 10.0
    # a shadow falls away from the sun: what shades (row, col) is cloud towards the sun
    down, right = (int(np.clip(round(v), -margin, margin)) for v in (-cast[1], cast[0]))
    shading = depth[margin + down : margin + down + shape[0], margin + right : margin + right + shape[1]]
    return Air(
        cloud=depth[rows, columns],
        shadow=1.0 - np.exp(-1.1 * ndimage.uniform_filter(shading, 3)),
        haze=float(rng.normal(0.004, 0.018) / max(sun.vector[2], 0.2) ** 0.8),  # more under a low sun
        veil=_draw_veil(rng, shape),
        missed_depth=float(np.exp(rng.normal(np.log(_USUALLY_MISSED_DEPTH), 0.8))),
        missed_shadow=float(rng.uniform(0.3, 1.3)),
        widening_px=int(rng.integers(1, 4)),
    )


def _cloud_depth(rng: np.random.Generator, shape: tuple[int, int], cover: float) -> np.ndarray:
    """Draw the optical depth of clouds that cover a given share of an area."""
    if cover <= 0.004:
        return np.zeros(shape, np.float32)
    field = fractal_field(rng, shape, longest=float(rng.uniform(80, 350)), slope=float(rng.uniform(1.5, 2.1)))
    steepness = float(np.exp(rng.normal(0.5, 0.6)))
    level = -ndtri(np.clip(cover, 0.002, 0.9995))
    return np.asarray(np.clip(steepness * (field - level), 0, 8), dtype=np.float32)


def _draw_veil(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Draw thin high cloud that nothing detects, on some days."""
    murky = rng.exponential(0.08) if rng.random() < 0.2 else 0.0
    return np.asarray(murky * np.maximum(1.0 + 0.3 * smooth_field(rng, shape, scale=45.0), 0.0), dtype=np.float32)


def look_through(reflectance: np.ndarray, air: Air) -> np.ndarray:
    """Return the reflectance that the archive would hold of ground seen through air.

    Parameters
    ----------
    reflectance : ndarray, shape (band, y, x), float32
        At the ground.
    air : Air

    Returns
    -------
    ndarray, shape (band, y, x), float32
        Cloud, shadow and haze included; may be slightly negative where the correction took out too much.
    """
    through = np.exp(-air.cloud)
    out = np.empty_like(reflectance)
    for band in range(len(reflectance)):
        light = 1.0 - air.shadow * (1.0 - _SKYLIGHT[band])
        ground = reflectance[band] * light
        haze = air.haze * _HAZE[band] + air.veil * _VEIL[band]
        ground = ground * (1.0 - haze) + haze * _HAZE_BRIGHTNESS
        out[band] = ground * through + _CLOUD[band] * (1.0 - through)
    return out


def lay_snow(reflectance: np.ndarray, trees: np.ndarray, snow: np.ndarray) -> np.ndarray:
    """Return reflectance with snow on it; canopies carry a third of what open ground does.

    Parameters
    ----------
    reflectance : ndarray, shape (band, y, x)
    trees : ndarray, shape (y, x)
        Tree cover, 0 to 1.
    snow : ndarray, shape (y, x)
        Snow cover of open ground, 0 to 1.

    Returns
    -------
    ndarray, shape (band, y, x), float32
    """
    white = snow * (1.0 - 0.68 * trees)
    return np.asarray(reflectance * (1 - white) + _SNOW[:, None, None] * white, dtype=np.float32)


def classify_scene(rng: np.random.Generator, reflectance: np.ndarray, air: Air, *, snow: np.ndarray) -> np.ndarray:
    """Return a scene classification as Sen2Cor would draw it, with its kinds of mistakes.

    Parameters
    ----------
    rng : numpy.random.Generator
    reflectance : ndarray, shape (band, y, x)
        As seen, at 20 m.
    air : Air
        On the 10 m grid.
    snow : ndarray, shape (y, x)
        Snow cover, at 20 m.

    Returns
    -------
    ndarray, shape (y, x), uint8
        SCL codes at 20 m.
    """
    shape = reflectance.shape[1:]
    scl = _classify_ground(reflectance)
    wobble = np.exp(0.35 * smooth_field(rng, shape, scale=3.0))
    depth = halve(air.cloud) * wobble
    shadow = halve(air.shadow) * wobble
    scl[shadow > air.missed_shadow] = SCL_SHADOW
    bright = reflectance[0] > 0.155 + 0.035 * smooth_field(rng, shape, scale=1.0)
    scl[bright] = SCL_CLOUD_MEDIUM
    ndsi = (reflectance[1] - reflectance[8]) / np.maximum(reflectance[1] + reflectance[8], 0.02)
    scl[(snow > 0.15) & (ndsi > 0.2) & (reflectance[1] > 0.18)] = SCL_SNOW
    high_cloud = rng.random() < 0.35
    scl[depth > air.missed_depth] = SCL_CIRRUS if high_cloud else SCL_UNCLASSIFIED
    scl[depth > 2.2 * air.missed_depth] = SCL_CIRRUS if high_cloud else SCL_CLOUD_MEDIUM
    scl[depth > 1.1] = SCL_CLOUD_HIGH
    core = np.isin(scl, (SCL_CLOUD_MEDIUM, SCL_CLOUD_HIGH)) & (depth > air.missed_depth)
    ring = ndimage.binary_dilation(core, iterations=air.widening_px) & ~core
    scl[ring & (scl != SCL_CLOUD_HIGH)] = SCL_CLOUD_MEDIUM
    return scl


def _classify_ground(reflectance: np.ndarray) -> np.ndarray:
    """Tell vegetation, bare ground, water and dark ground apart as if there were no cloud."""
    blue, red, nir, swir = reflectance[0], reflectance[2], reflectance[6], reflectance[8]
    ndvi = (nir - red) / np.maximum(nir + red, 0.02)
    scl = np.where(ndvi > 0.42, SCL_VEGETATION, SCL_BARE).astype(np.uint8)
    scl[(nir < 0.075) & (red < 0.06)] = SCL_DARK
    scl[(nir < 0.055) & (swir < 0.04) & (blue > nir)] = SCL_WATER
    return scl


def halve(field: np.ndarray) -> np.ndarray:
    """Return means of blocks of 2 x 2 pixels; works on the last two axes."""
    *front, rows, columns = field.shape
    return np.asarray(field.reshape(*front, rows // 2, 2, columns // 2, 2).mean(axis=(-3, -1)))
