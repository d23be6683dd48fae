"""Channels beside the bands, from a user's Zarr on the grid of a tile: Sentinel-1, elevation, weather."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from odc.geo import CRS
from odc.geo.geobox import GeoBox

from models.tokens import ExtraChannel
from storage.location import resolve
from storage.regions import Region
from tasks.earth.grid import Tile
from tasks.errors import ConfigurationError

_SLACK = 0.01
"""Pixels by which a grid may be off: coordinates are written as rounded numbers."""


@dataclass(frozen=True)
class ExtraSource:
    """Where a channel comes from.

    Parameters
    ----------
    url : str
        Folder or URL of a Zarr store with the array ``channel.name``, dimensions (y, x) or (time, y, x), on the very grid
        of a tile; ``{grid}`` and ``{tile}`` stand for the names of grid and tile, as in ``s1/{grid}/{tile}.zarr``.
    channel : ExtraChannel
        Its name, unit and scaling; the array has to state the same ``units``.
    tolerance_days : float, optional
        With a time dimension: the oldest value that a look may take, counted back from its sensing start. A look takes the
        newest value that is not later than itself, or none.
    """

    url: str
    channel: ExtraChannel
    tolerance_days: float | None = None

    def open(self, tile: Tile) -> ExtraReader:
        """Return what reads this channel over a tile.

        Raises
        ------
        ConfigurationError
            Where there is no such array, or its dimensions, CRS, grid, unit or times are not as agreed.
        """
        url = self.url.replace("{grid}", tile.grid).replace("{tile}", tile.name)
        where = f"{url}, channel {self.channel.name}"
        array = _open(url, self.channel.name, where)
        _require_grid(array, tile.geobox, where)
        unit = array.attrs.get("units")
        if unit != self.channel.unit:
            raise ConfigurationError(f"{where}: units are {unit!r}; the channel says {self.channel.unit!r}")
        times = _times(array, self.tolerance_days, where)
        return ExtraReader(array, times, self.tolerance_days)


@dataclass(frozen=True)
class ExtraReader:
    """Reads one channel over one tile."""

    array: xr.DataArray
    times: np.ndarray | None
    tolerance_days: float | None

    @property
    def fingerprint(self) -> int:
        """Return a number that changes when the array gains times or is described anew, not when values change."""
        described = repr((self.array.shape, str(self.array.dtype), sorted(self.array.attrs.items(), key=str)))
        times = b"" if self.times is None else self.times.astype("int64").tobytes()
        return zlib.crc32(times, zlib.crc32(described.encode()))

    def read(self, region: Region, looks: np.ndarray) -> np.ndarray:
        """Return the value at each look.

        Parameters
        ----------
        region : dict of str to slice
            In pixels of the tile.
        looks : ndarray, shape (time,), datetime64
            Sensing starts.

        Returns
        -------
        ndarray, shape (time, y, x), float32
            In the channel's unit, NaN where there is none.
        """
        part = self.array.isel(y=region["y"], x=region["x"])
        if self.times is None:
            whole = np.asarray(part.values, np.float32)
            return np.broadcast_to(whole, (len(looks), *whole.shape))
        chosen = self._chosen(looks)
        found = np.full((len(looks), *part.shape[1:]), np.nan, np.float32)
        wanted = np.unique(chosen[chosen >= 0])
        if wanted.size:
            held = np.asarray(part.isel(time=wanted).values, np.float32)
            found[chosen >= 0] = held[np.searchsorted(wanted, chosen[chosen >= 0])]
        return found

    def _chosen(self, looks: np.ndarray) -> np.ndarray:
        """Return which time each look takes, -1 for none."""
        assert self.times is not None
        assert self.tolerance_days is not None
        sensed = looks.astype("datetime64[ns]")
        newest = np.searchsorted(self.times, sensed, side="right") - 1
        age = (sensed - self.times[np.maximum(newest, 0)]) / np.timedelta64(1, "D")
        return np.where((newest >= 0) & (age <= self.tolerance_days), newest, -1)


def require_distinct(sources: Sequence[ExtraSource]) -> None:
    """Check that no two channels have one name.

    Raises
    ------
    ConfigurationError
        Naming them.
    """
    names = [source.channel.name for source in sources]
    if len(set(names)) != len(names):
        raise ConfigurationError(f"extra channels {', '.join(names)}: each name once")


def _open(url: str, name: str, where: str) -> xr.DataArray:
    try:
        dataset = xr.open_zarr(resolve(url).zarr_store(read_only=True), chunks=None, consolidated=False)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{where}: not a Zarr store that xarray opens ({error})") from error
    if name not in dataset:
        raise ConfigurationError(f"{where}: no such array; it has {', '.join(map(str, dataset.data_vars)) or 'none'}")
    array = dataset[name]
    if array.dims not in (("y", "x"), ("time", "y", "x")):
        raise ConfigurationError(f"{where}: dimensions {array.dims}; wanted are (y, x) or (time, y, x)")
    return array


def _require_grid(array: xr.DataArray, tile: GeoBox, where: str) -> None:
    import odc.geo.xr  # noqa: F401  (gives arrays their geobox)

    found: Any = array.odc.geobox
    if found is None or found.crs is None:
        raise ConfigurationError(f"{where}: states no CRS; write one with odc-geo or rioxarray (spatial_ref)")
    if found.crs != tile.crs:
        codes = [CRS(crs).to_epsg() or str(crs) for crs in (found.crs, tile.crs)]
        raise ConfigurationError(f"{where}: CRS is {codes[0]}; the tile's is {codes[1]}: reproject it onto the tile")
    off = np.abs(np.array([*found.affine[:6]]) - np.array([*tile.affine[:6]])).max()
    if tuple(found.shape) != tuple(tile.shape) or off > _SLACK * abs(tile.affine.a):
        raise ConfigurationError(
            f"{where}: grid of {tuple(found.shape)} pixels from {found.affine.c:.1f}, {found.affine.f:.1f}, pixel "
            f"{found.affine.a:g}; the tile has {tuple(tile.shape)} from {tile.affine.c:.1f}, {tile.affine.f:.1f}, "
            f"pixel {tile.affine.a:g}: write it on the tile's own grid"
        )


def _times(array: xr.DataArray, tolerance_days: float | None, where: str) -> np.ndarray | None:
    if "time" not in array.dims:
        return None
    if tolerance_days is None:
        raise ConfigurationError(f"{where}: has a time dimension; say how old a value may be (tolerance_days)")
    times = np.asarray(array["time"].values)
    if times.dtype.kind != "M" or (np.diff(times.astype("datetime64[ns]")) <= np.timedelta64(0, "ns")).any():
        raise ConfigurationError(f"{where}: its times are not dates that ascend")
    return times.astype("datetime64[ns]")
