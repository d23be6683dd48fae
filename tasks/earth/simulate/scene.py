"""One date of the generated archive, from ground to pixels; no files."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from tasks.earth.simulate import atmosphere
from tasks.earth.simulate.acquisitions import Acquisition
from tasks.earth.simulate.atmosphere import Air, Sun, halve
from tasks.earth.simulate.config import SimulateConfig
from tasks.earth.simulate.landscape import Landscape, make_landscape
from tasks.earth.simulate.noise import generator, smooth_field
from tasks.earth.simulate.phenology import BAND_GROUP, BANDS, Weather, cover_table, unit_reflectance

COARSE = np.array([b in ("B05", "B06", "B07", "B8A", "B11", "B12") for b in BANDS])
"""Bands that come at 20 m."""
OFFSET_DN = 1000
"""Added to the pixels from processing baseline 04.00 on, unless the catalogue took it off again."""


@dataclass(frozen=True)
class World:
    """Everything that stays the same from date to date.

    Parameters
    ----------
    config : SimulateConfig
    landscape : Landscape
    weather : Weather
    """

    config: SimulateConfig
    landscape: Landscape
    weather: Weather

    @classmethod
    def make(cls, config: SimulateConfig) -> World:
        """Draw a world from its settings."""
        return cls(config, make_landscape(config), Weather(config.seed))


@dataclass(frozen=True)
class SimulatedDate:
    """What the sensor and the processor make of one overpass.

    Parameters
    ----------
    reflectance : ndarray, shape (10, y, x), float32
        0 to 1, in the order of ``BANDS``, on the 10 m grid; the 20 m bands are the same in each block of 2 x 2.
    scl : ndarray, shape (y, x), uint8
        Scene classification, made at 20 m and repeated onto the 10 m grid.
    """

    reflectance: np.ndarray
    scl: np.ndarray


def ground_reflectance(world: World, acquisition: Acquisition) -> np.ndarray:
    """Return the reflectance of the ground on a date: no cloud, no haze, no noise, no snow.

    Parameters
    ----------
    world : World
    acquisition : Acquisition

    Returns
    -------
    ndarray, shape (10, y, x), float32, reflectance 0 to 1
    """
    land = world.landscape
    day = acquisition.when.date()
    by_unit = unit_reflectance(land.units, day, weather=world.weather, first_year=land.first_year)
    texture = np.exp(land.texture) * _light(land, acquisition.sun)
    out = np.empty((len(BANDS), *land.shape), np.float32)
    for band, group in enumerate(BAND_GROUP):
        mixed = np.einsum("kyx,kyx->yx", by_unit[band][land.unit], land.share)
        out[band] = mixed * texture[group]
    return out


def _light(land: Landscape, sun: Sun) -> np.ndarray:
    """Return how much brighter than level ground each slope is; Sen2Cor corrects a part of it."""
    east, north, up = sun.vector
    tilt = (up - land.slope[0] * east - land.slope[1] * north) / np.sqrt(1 + (land.slope**2).sum(axis=0))
    # crowns shade each other more the lower the sun stands
    crowns = (np.sin(np.radians(58.0)) / up) ** (-0.55 * land.roughness)
    return np.asarray(np.clip(tilt / up, 0.25, 2.0) ** 0.6 * crowns, dtype=np.float32)


def tree_cover(land: Landscape, day_cover: np.ndarray) -> np.ndarray:
    """Return the share of each pixel under broadleaved trees and under conifers.

    Parameters
    ----------
    land : Landscape
    day_cover : ndarray, shape (unit,)
        Cover of each unit on the day, from ``land.units.cover_on``.

    Returns
    -------
    ndarray, shape (2, y, x), float32
        0 to 1; broadleaved, conifer.
    """
    kind = cover_table().tree_class[day_cover][land.unit]
    return np.stack([((kind == k) * land.share).sum(axis=0) for k in (1, 2)]).astype(np.float32)


def simulate_date(world: World, acquisition: Acquisition) -> SimulatedDate:
    """Return the pixels and the scene classification of one overpass.

    Parameters
    ----------
    world : World
    acquisition : Acquisition

    Returns
    -------
    SimulatedDate
        The same for the same world and overpass, whoever asks in whatever order.
    """
    rng = generator(world.config.seed, 200, acquisition.when.toordinal(), acquisition.relative_orbit)
    land = world.landscape
    ground = ground_reflectance(world, acquisition)
    snow = _draw_snow(rng, land.shape, acquisition.snow_cover)
    if acquisition.snow_cover > 0:
        cover = land.units.cover_on(acquisition.when.date(), land.first_year)
        ground = atmosphere.lay_snow(ground, tree_cover(land, cover).sum(axis=0), snow)
    ground = _sensor_view(rng, ground, acquisition.sun)
    air = atmosphere.draw_air(rng, land.shape, cloud_cover=acquisition.cloud_cover, sun=acquisition.sun)
    seen = _add_noise(rng, atmosphere.look_through(ground, air))
    scl = _classification(rng, seen, air, snow)
    return SimulatedDate(seen, np.repeat(np.repeat(scl, 2, axis=0), 2, axis=1))


def _draw_snow(rng: np.random.Generator, shape: tuple[int, int], cover: float) -> np.ndarray:
    """Draw patches of snow."""
    if cover <= 0:
        return np.zeros(shape, np.float32)
    return np.clip(cover + 0.4 * smooth_field(rng, shape, scale=25.0), 0, 1).astype(np.float32)


def _sensor_view(rng: np.random.Generator, ground: np.ndarray, sun: Sun) -> np.ndarray:
    """Blur with the sensor's response, move by a part of a pixel, and scale by the day's viewing geometry."""
    low_sun = max(sun.vector[2], 0.2) ** -0.8
    shift = rng.normal(0, 0.22, 2)
    common, visible, infrared, shortwave = rng.normal(0, [0.15, 0.12 * low_sun, 0.09 * low_sun, 0.03])
    # red and shortwave infrared are both bands of absorption: what brightens one brightens the other
    gain = np.exp(common + np.array([visible, infrared, 1.1 * visible + shortwave]))[BAND_GROUP]
    out = np.empty_like(ground)
    for band in range(len(ground)):
        blurred = ndimage.gaussian_filter(ground[band], 0.45 if not COARSE[band] else 0.8, truncate=3.0)
        out[band] = ndimage.shift(blurred, shift, order=1, mode="nearest") * np.float32(gain[band])
    return out


def _add_noise(rng: np.random.Generator, seen: np.ndarray) -> np.ndarray:
    """Add sensor noise at each band's own resolution and bring the 20 m bands onto the 10 m grid."""
    out = np.empty_like(seen)
    for band in range(len(seen)):
        native = halve(seen[band]) if COARSE[band] else seen[band]
        noise = rng.standard_normal(native.shape, dtype=np.float32)
        native = native + noise * (0.0012 + 0.008 * np.abs(native))
        out[band] = np.repeat(np.repeat(native, 2, axis=0), 2, axis=1) if COARSE[band] else native
    return out


def _classification(rng: np.random.Generator, seen: np.ndarray, air: Air, snow: np.ndarray) -> np.ndarray:
    """Classify at 20 m."""
    return atmosphere.classify_scene(rng, halve(seen), air, snow=halve(snow))


def to_digital_numbers(reflectance: np.ndarray, *, offset_dn: int) -> np.ndarray:
    """Return what a file holds: reflectance times 10,000 plus the offset, at least 1 (0 is no data).

    Parameters
    ----------
    reflectance : ndarray
        0 to 1.
    offset_dn : int
        0, or 1000 for baseline 04.00 and later as ESA writes them.

    Returns
    -------
    ndarray, uint16
    """
    return np.asarray(np.clip(np.rint(reflectance * 10000.0) + offset_dn, 1, 65535), dtype=np.uint16)
