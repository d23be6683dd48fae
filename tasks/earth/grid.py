"""The grid: which tiles an area needs, in which CRS, and which part of each."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyproj
from odc.geo import CRS
from odc.geo.geobox import GeoBox
from odc.geo.geom import Geometry
from odc.geo.gridspec import GridSpec
from pyproj.exceptions import CRSError
from shapely.geometry import box, mapping, shape
from shapely.geometry.base import BaseGeometry

from storage.schema import CHUNK
from tasks.earth.plan import Window
from tasks.errors import ConfigurationError, UsageError

TILE_PIXELS = 1024
_ZONE_DEGREES = 6


@dataclass(frozen=True)
class Tile:
    """One cell of the grid.

    Parameters
    ----------
    grid : str
        Folder name, e.g. ``utm30n-10m`` or ``epsg3035-10m``.
    name : str
        Column and row, e.g. ``x0041_y0563``.
    geobox : GeoBox
        The whole tile, 1024 x 1024 pixels.
    window : Window
        The part that the area needs, on 256-pixel borders.
    """

    grid: str
    name: str
    geobox: GeoBox
    window: Window

    @property
    def path(self) -> str:
        """Return where the cube lies under the warehouse."""
        return f"earth/{self.grid}/{self.name}"


def read_area(text: str) -> dict[str, Any]:
    """Return the area that the user named, as a GeoJSON geometry in EPSG:4326.

    Parameters
    ----------
    text : str
        ``minx,miny,maxx,maxy`` in degrees, or the path of a vector file (GeoJSON, GeoPackage, Shapefile).

    Raises
    ------
    UsageError
        Where the numbers are no box on the globe, or the file is missing, empty, without a CRS or not polygons.
    """
    parts = text.split(",")
    if len(parts) == 4:
        return _read_box(text, parts)
    path = Path(text).expanduser()
    if not path.exists():
        raise UsageError(f"--aoi {text}: neither a file nor minx,miny,maxx,maxy in degrees")
    return _read_polygons(path)


def tiles_of(area: dict[str, Any], *, crs: str | None = None, resolution: float = 10.0) -> tuple[Tile, ...]:
    """Return the tiles that an area touches, each with the part that is needed.

    Parameters
    ----------
    area : dict
        GeoJSON geometry, EPSG:4326.
    crs : str, optional
        Any projected CRS in metres, e.g. ``EPSG:3035``. By default the UTM zone, and where the area crosses zones
        the tiles of each zone for its part.
    resolution : float
        Metres per pixel.

    Raises
    ------
    ConfigurationError
        Where the CRS is unknown or not in metres.
    """
    geometry = shape(area)
    parts = [(crs, geometry)] if crs else _split_by_zone(geometry)
    tiles: list[Tile] = []
    for name, part in parts:
        tiles += _tiles_in(_metric_crs(name), part, resolution)
    return tuple(tiles)


def grid_name(crs: CRS, resolution: float) -> str:
    """Return the folder name of a grid.

    Examples
    --------
    >>> grid_name(CRS("EPSG:32630"), 10.0)
    'utm30n-10m'
    """
    epsg = crs.to_epsg()
    metres = f"{resolution:g}m"
    if epsg is not None and 32601 <= epsg <= 32660:
        return f"utm{epsg - 32600:02d}n-{metres}"
    if epsg is not None and 32701 <= epsg <= 32760:
        return f"utm{epsg - 32700:02d}s-{metres}"
    if epsg is None:
        raise ConfigurationError(f"{crs}: a grid needs a CRS with an EPSG code")
    return f"epsg{epsg}-{metres}"


def _tiles_in(crs: CRS, part: BaseGeometry, resolution: float) -> list[Tile]:
    spec = GridSpec(crs, tile_shape=(TILE_PIXELS, TILE_PIXELS), resolution=resolution)
    projected = Geometry(mapping(part), "EPSG:4326").to_crs(crs, resolution=0.01)
    name = grid_name(crs, resolution)
    found = []
    for (column, row), geobox in spec.tiles_from_geopolygon(projected):
        window = _window(geobox, projected)
        if window is not None:
            found.append(Tile(name, f"x{column:04d}_y{row:04d}", geobox, window))
    return found


def _window(geobox: GeoBox, area: Geometry) -> Window | None:
    overlap = area & geobox.extent
    if overlap.is_empty or overlap.area == 0:
        return None
    pixels = geobox.project(overlap).boundingbox
    rows = _snap(pixels.bottom, pixels.top, geobox.shape[0])
    columns = _snap(pixels.left, pixels.right, geobox.shape[1])
    return (*rows, *columns)


def _snap(low: float, high: float, size: int) -> tuple[int, int]:
    # a millimetre of reprojection noise must not pull in another block
    first, last = sorted((low, high))
    start = int(max(0, first + 1e-3) // CHUNK) * CHUNK
    stop = -int(-max(first + 1.0, last - 1e-3) // CHUNK) * CHUNK
    return start, min(size, stop)


def _split_by_zone(geometry: BaseGeometry) -> list[tuple[str, BaseGeometry]]:
    west, south, east, north = geometry.bounds
    parts = []
    for zone in range(1, 61):
        left = -180 + _ZONE_DEGREES * (zone - 1)
        if left + _ZONE_DEGREES <= west or left >= east:
            continue
        for letter, low, high in (("6", 0.0, 84.0), ("7", -80.0, 0.0)):
            strip = geometry.intersection(box(left, low, left + _ZONE_DEGREES, high))
            if strip.area > 0:
                parts.append((f"EPSG:32{letter}{zone:02d}", strip))
    if not parts:
        raise ConfigurationError(
            f"the area {west:.3f},{south:.3f},{east:.3f},{north:.3f} lies in no UTM zone; name a CRS with --crs"
        )
    return parts


def _metric_crs(name: str) -> CRS:
    try:
        definition = pyproj.CRS.from_user_input(name)
    except CRSError as error:
        raise UsageError(f"--crs {name}: no such coordinate reference system") from error
    if not definition.is_projected or definition.axis_info[0].unit_name != "metre":
        raise UsageError(f"--crs {name} ({definition.name}) is not projected in metres")
    return CRS(name)


def _read_box(text: str, parts: list[str]) -> dict[str, Any]:
    try:
        west, south, east, north = (float(part) for part in parts)
    except ValueError as error:
        raise UsageError(f"--aoi {text}: four numbers are wanted, minx,miny,maxx,maxy in degrees") from error
    if not (-180 <= west < east <= 180 and -90 <= south < north <= 90):
        raise UsageError(
            f"--aoi {text}: not minx,miny,maxx,maxy in degrees (x -180 to 180, y -90 to 90, min below max)"
        )
    return dict(mapping(box(west, south, east, north)))


def _read_polygons(path: Path) -> dict[str, Any]:
    import geopandas

    if path.suffix.lower() in (".geojson", ".json"):
        bare = _bare_geometry(path)
        if bare is not None:
            return _checked_polygons(bare, path)
    try:
        table = geopandas.read_file(path)
    except Exception as error:  # pyogrio raises its own family of errors for what it cannot read
        raise UsageError(f"--aoi {path}: not a vector file that GDAL can read ({error})") from error
    if table.empty:
        raise UsageError(f"--aoi {path}: holds no feature")
    if table.crs is None:
        raise UsageError(f"--aoi {path}: states no coordinate reference system")
    return _checked_polygons(table.to_crs("EPSG:4326").union_all(), path)


def _checked_polygons(geometry: BaseGeometry, path: Path) -> dict[str, Any]:
    if geometry.area == 0:
        raise UsageError(f"--aoi {path}: holds no polygon")
    if not box(-180, -90, 180, 90).covers(geometry):
        raise UsageError(f"--aoi {path}: its coordinates are not in degrees (x -180 to 180, y -90 to 90)")
    return dict(mapping(geometry))


def _bare_geometry(path: Path) -> BaseGeometry | None:
    try:
        content = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"--aoi {path}: not JSON ({error})") from error
    if not isinstance(content, dict):
        raise UsageError(f"--aoi {path}: not GeoJSON")
    if content.get("type") not in ("Polygon", "MultiPolygon"):
        return None
    try:
        return shape(content)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise UsageError(f"--aoi {path}: not a polygon ({error!r})") from error
