"""Settings of the generated archive."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal

from affine import Affine
from odc.geo.geobox import GeoBox

from tasks.errors import ConfigurationError

Layout = Literal["earth-search", "planetary-computer", "mixed"]
LAYOUTS = ("earth-search", "planetary-computer", "mixed")

COLLECTION_ID = "sentinel-2-l2a"
RESOLUTION_M = 10.0
LARGEST_KM = 50.0


@dataclass(frozen=True, kw_only=True)
class SimulateConfig:
    """What a generated Sentinel-2 archive holds.

    The default area lies in MGRS tile 30UXC, its north in the strip that 30UXD covers too, and wholly inside one
    tile of a 10,240 m grid with its origin at (0, 0).

    Parameters
    ----------
    seed : int
        Same seed and settings, same bytes.
    start : date
        First possible day. The default two years cross the change to processing baseline 04.00 (25 January 2022).
    years : float
        Length, years of 365.25 days.
    size_km : float
        Side of the square area, a multiple of 0.02 km (one 20 m pixel).
    epsg : int
        A UTM zone of the northern hemisphere, 326xx. Names of MGRS tiles are true in the default zone only.
    west, south : float
        Lower left corner in metres, multiples of 20.
    canopy_share : float
        Wanted share of pixels that are canopy (tree cover >= 50 %), hedges counted.
    layout : {"earth-search", "planetary-computer", "mixed"}
        Whose names of assets and properties the items carry; "mixed" alternates by date.
    keep_cloudy : bool
        Keep overpasses that are cloud all over. The real series leave most of them out, so False.
    hard_cases : bool
        Add what real catalogues hold besides plain scenes: overlapping tile, superseded baselines and so on.
    gap_free : bool
        Write the cloud-free, noise-free reflectance of every date under ``truth/reflectance``.
    workers : int
        Threads that make and write dates.

    Raises
    ------
    ConfigurationError
        If the settings cannot make an archive.
    """

    seed: int = 7
    start: date = date(2021, 1, 1)
    years: float = 2.0
    size_km: float = 5.0
    epsg: int = 32630
    west: float = 636880.0
    south: float = 5786740.0
    canopy_share: float = 0.20
    layout: Layout = "earth-search"
    keep_cloudy: bool = False
    hard_cases: bool = True
    gap_free: bool = False
    workers: int = 2

    def __post_init__(self) -> None:
        """Refuse settings that cannot make an archive."""
        _refuse_bad_area(self)
        if self.layout not in LAYOUTS:
            raise ConfigurationError(f"layout: expected one of {', '.join(LAYOUTS)}, got {self.layout!r}")
        if self.years <= 0 or self.workers < 1:
            raise ConfigurationError("years must be positive and workers at least 1")
        if not 0.05 <= self.canopy_share <= 0.6:
            raise ConfigurationError(f"canopy_share: expected 0.05 to 0.6, got {self.canopy_share}")

    @property
    def size_px(self) -> int:
        """Return the side of the area in 10 m pixels."""
        return round(self.size_km * 1000 / RESOLUTION_M)

    @property
    def end(self) -> date:
        """Return the first day after the archive."""
        return self.start + timedelta(days=round(self.years * 365.25))

    @property
    def geobox(self) -> GeoBox:
        """Return the 10 m grid of the area."""
        size = self.size_px
        top = self.south + size * RESOLUTION_M
        return GeoBox((size, size), Affine(RESOLUTION_M, 0, self.west, 0, -RESOLUTION_M, top), f"EPSG:{self.epsg}")


def _refuse_bad_area(config: SimulateConfig) -> None:
    """Check side, corner and zone."""
    if config.size_px < 16 or config.size_px % 2 or abs(config.size_px * RESOLUTION_M - config.size_km * 1000) > 1e-6:
        raise ConfigurationError(f"size_km: expected a multiple of 0.02 of at least 0.16, got {config.size_km}")
    if config.size_km > LARGEST_KM:
        raise ConfigurationError(
            f"size_km: at most {LARGEST_KM:g}, got {config.size_km}: the landscape is drawn in memory as a whole"
        )
    if config.west % 20 or config.south % 20:
        raise ConfigurationError("west and south must be multiples of 20 m, the coarsest pixel of the archive")
    if not 32601 <= config.epsg <= 32660:
        raise ConfigurationError(f"epsg: expected a northern UTM zone (32601 to 32660), got {config.epsg}")
