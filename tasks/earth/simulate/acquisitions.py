"""When the two satellites pass, under what sky, and as which products the catalogue lists it.

Dates, platforms and orbit numbers are those of the real Sentinel-2 orbits 94 (covers the area) and 137 (its swath ends
there, so it shows a corner only).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta

import numpy as np
from scipy.special import ndtr

from tasks.earth.simulate.atmosphere import Sun
from tasks.earth.simulate.config import SimulateConfig
from tasks.earth.simulate.noise import generator

MAIN_ORBIT, CORNER_ORBIT = 94, 137
MAIN_TILE, SECOND_TILE = "30UXC", "30UXD"
# a day on which Sentinel-2A flew each orbit, its absolute orbit number then, and the time of day over 52 degrees north
_PASSES = {
    MAIN_ORBIT: (date(2023, 7, 7), 41990, time(11, 14, 28, 113000)),
    CORNER_ORBIT: (date(2023, 7, 10), 42033, time(11, 24, 31, 482000)),
}
# Sentinel-2B flies the same orbits five days later; its own count of orbits differs
_SENTINEL_2B_ORBIT = {MAIN_ORBIT: 34011, CORNER_ORBIT: 34054}
_SENTINEL_2B_DAY = {MAIN_ORBIT: date(2023, 9, 10), CORNER_ORBIT: date(2023, 9, 13)}
_BASELINES = (
    (date(2015, 1, 1), "02.14"),
    (date(2021, 3, 30), "03.00"),
    (date(2021, 6, 30), "03.01"),
    (date(2022, 1, 25), "04.00"),
    (date(2022, 12, 6), "05.09"),
)
REPROCESSED_BASELINE = "05.00"


@dataclass(frozen=True)
class Acquisition:
    """One overpass.

    Parameters
    ----------
    when : datetime
        Sensing time of the tile, UTC.
    platform : {"S2A", "S2B"}
    relative_orbit, absolute_orbit : int
    cloud_cover : float
        Share of the area under cloud, 0 to 1.
    snow_cover : float
        Share of open ground under snow, 0 to 1.
    sun : Sun
    """

    when: datetime
    platform: str
    relative_orbit: int
    absolute_orbit: int
    cloud_cover: float
    snow_cover: float
    sun: Sun

    @property
    def datatake_start(self) -> datetime:
        """Return the time in product names, some minutes before the tile was seen."""
        return (self.when - timedelta(minutes=7, seconds=49)).replace(microsecond=0)

    @property
    def datastrip_start(self) -> datetime:
        """Return the start of the strip that a ground station received."""
        return (self.when - timedelta(minutes=4, seconds=22)).replace(microsecond=0)

    @property
    def baseline(self) -> str:
        """Return the processing baseline in use on that day."""
        return [b for since, b in _BASELINES if since <= self.when.date()][-1]


def overpasses(config: SimulateConfig) -> tuple[Acquisition, ...]:
    """Return the overpasses of the main orbit that the archive keeps, by time.

    Parameters
    ----------
    config : SimulateConfig

    Returns
    -------
    tuple of Acquisition
        About 30 a year of the 73 there are: like the real series, the archive leaves most overcast ones out
        (``keep_cloudy`` keeps them).
    """
    days = _days_of(MAIN_ORBIT, config)
    cover = _cloud_covers(config.seed, days)
    keep = generator(config.seed, 302).random(len(days))
    chosen = [(d, c) for d, c, k in zip(days, cover, keep, strict=True) if config.keep_cloudy or _is_kept(d, c, k)]
    return _with_snow(tuple(_overpass(d, MAIN_ORBIT, cloud_cover=c, seed=config.seed) for d, c in chosen))


def _with_snow(passes: tuple[Acquisition, ...]) -> tuple[Acquisition, ...]:
    """Let snow lie on the clearest overpass of the winter where the weather gave none, so that it is always there."""
    winter = [k for k, a in enumerate(passes) if a.when.month in (12, 1, 2)]
    if not winter or any(a.snow_cover > 0 for a in passes):
        return passes
    clearest = min(winter, key=lambda k: passes[k].cloud_cover)
    return (*passes[:clearest], replace(passes[clearest], snow_cover=0.75), *passes[clearest + 1 :])


def corner_overpasses(config: SimulateConfig) -> tuple[Acquisition, ...]:
    """Return the few overpasses of the neighbouring orbit whose swath ends in a corner of the area."""
    days = _days_of(CORNER_ORBIT, config)
    rng = generator(config.seed, 303)
    count = min(len(days), max(1, round(2 * config.years)))
    chosen = np.sort(rng.choice(len(days), size=count, replace=False))
    return tuple(
        _overpass(days[k], CORNER_ORBIT, cloud_cover=float(rng.uniform(0, 0.5)), seed=config.seed) for k in chosen
    )


def _is_kept(day: date, cover: float, draw: float) -> bool:
    """Return whether a scene gets into the archive: mostly in summer, seldom in winter or when it is overcast."""
    return draw < (0.43 - 0.31 * _winter(day)) * (0.25 if cover > 0.93 else 1.0)


def _winter(day: date) -> float:
    """Return 1 at the turn of the year, -1 at midsummer."""
    return float(np.cos(2 * np.pi * (day.timetuple().tm_yday - 5) / 365.25))


def _days_of(orbit: int, config: SimulateConfig) -> list[date]:
    """Return the days on which either satellite flies an orbit."""
    known = _PASSES[orbit][0]
    first = config.start + timedelta(days=(known - config.start).days % 5)
    return [first + timedelta(days=k) for k in range(0, (config.end - first).days, 5)]


def _cloud_covers(seed: int, days: list[date]) -> list[float]:
    """Draw the cloud cover of each day: mostly very clear or overcast, cloudier in winter, with spells."""
    rng = generator(seed, 301)
    spell, covers = 0.0, []
    for day in days:
        spell = 0.35 * spell + np.sqrt(1 - 0.35**2) * rng.standard_normal()
        covers.append(float(ndtr(0.05 + 0.7 * _winter(day) + 2.4 * spell)))
    return covers


def _overpass(day: date, orbit: int, *, cloud_cover: float, seed: int) -> Acquisition:
    """Return the overpass of an orbit on a day."""
    known, count, clock = _PASSES[orbit]
    is_a = (day - known).days % 10 == 0
    if not is_a:
        known, count = _SENTINEL_2B_DAY[orbit], _SENTINEL_2B_ORBIT[orbit]
    jitter = generator(seed, 304, day.toordinal()).integers(0, 4_000_000)
    when = datetime.combine(day, clock, tzinfo=UTC) + timedelta(microseconds=int(jitter))
    return Acquisition(
        when=when.replace(microsecond=when.microsecond // 1000 * 1000),
        platform="S2A" if is_a else "S2B",
        relative_orbit=orbit,
        absolute_orbit=count + 143 * ((day - known).days // 10),
        cloud_cover=cloud_cover,
        snow_cover=_snow_cover(seed, day),
        sun=sun_position(when, latitude=52.2, longitude=-1.0),
    )


def _snow_cover(seed: int, day: date) -> float:
    """Return how much of the open ground lies under snow; it comes in spells of ten days in winter."""
    rng = generator(seed, 305, day.toordinal() // 10)
    cold = np.exp(-((((day.timetuple().tm_yday + 183) % 365 - 202) / 30.0) ** 2))
    return float(rng.uniform(0.35, 1.0)) if rng.random() < 0.6 * cold else 0.0


def sun_position(when: datetime, *, latitude: float, longitude: float) -> Sun:
    """Return where the sun stands, to about half a degree.

    Parameters
    ----------
    when : datetime
        UTC.
    latitude, longitude : float
        Degrees.

    Returns
    -------
    Sun

    References
    ----------
    Spencer (1971), Fourier series representation of the position of the sun.
    """
    day = when.timetuple().tm_yday
    angle = 2 * np.pi * (day - 1 + (when.hour - 12) / 24) / 365
    declination = (
        0.006918 - 0.399912 * np.cos(angle) + 0.070257 * np.sin(angle)
        - 0.006758 * np.cos(2 * angle) + 0.000907 * np.sin(2 * angle)
    )  # fmt: skip
    equation_min = 229.18 * (
        0.000075 + 0.001868 * np.cos(angle) - 0.032077 * np.sin(angle)
        - 0.014615 * np.cos(2 * angle) - 0.040849 * np.sin(2 * angle)
    )  # fmt: skip
    minutes = when.hour * 60 + when.minute + when.second / 60 + equation_min + 4 * longitude
    hour_angle = np.radians(minutes / 4 - 180)
    phi = np.radians(latitude)
    up = np.sin(phi) * np.sin(declination) + np.cos(phi) * np.cos(declination) * np.cos(hour_angle)
    east = -np.cos(declination) * np.sin(hour_angle)
    north = np.cos(phi) * np.sin(declination) - np.sin(phi) * np.cos(declination) * np.cos(hour_angle)
    return Sun(float(np.degrees(np.arcsin(up))), float(np.degrees(np.arctan2(east, north)) % 360))


@dataclass(frozen=True)
class Product:
    """One item of the catalogue: an overpass as one processing of one tile and one datastrip.

    Parameters
    ----------
    acquisition : Acquisition
    tile : str
        MGRS tile.
    baseline : str
        Processing baseline such as "04.00".
    generation_days : int
        Days from sensing to processing.
    sequence : int
        Number in Earth Search's item id.
    layout : {"earth-search", "planetary-computer"}
        Whose names it carries.
    part : {"all", "first", "second", "corner", "strip"}
        What it shows of the area: one of two datastrips, a corner, the strip of the second tile.
    offset_in_pixels : bool
        Whether the pixels hold the offset of 1000.
    offset_flag : bool or None
        ``earthsearch:boa_offset_applied``; None leaves it out.
    band_offset : float or None
        ``raster:bands[0].offset``; None leaves scale and offset out.
    has_scl : bool
    cases : tuple of str
        Names of the hard cases it belongs to.
    """

    acquisition: Acquisition
    tile: str
    baseline: str
    layout: str
    generation_days: int = 0
    sequence: int = 0
    part: str = "all"
    offset_in_pixels: bool = False
    offset_flag: bool | None = None
    band_offset: float | None = None
    has_scl: bool = True
    cases: tuple[str, ...] = ()

    def labelled(self, case: str, **changes: object) -> Product:
        """Return the product changed and marked as a hard case."""
        return replace(self, cases=(*self.cases, case), **changes)  # type: ignore[arg-type]

    @property
    def generated(self) -> datetime:
        """Return when it was processed."""
        hours = timedelta(days=self.generation_days, hours=7, minutes=41, seconds=13 + self.sequence)
        return (self.acquisition.when + hours).replace(microsecond=0)

    @property
    def datastrip_start(self) -> datetime:
        """Return the sensing start of its datastrip."""
        return self.acquisition.datastrip_start + timedelta(seconds=131 if self.part == "second" else 0)

    @property
    def datatake_id(self) -> str:
        """Return the datatake id, which ends in the baseline."""
        start = f"{self.acquisition.datatake_start:%Y%m%dT%H%M%S}"
        return f"G{self.acquisition.platform}_{start}_{self.acquisition.absolute_orbit:06d}_N{self.baseline}"

    @property
    def datastrip_id(self) -> str:
        """Return the datastrip id, which holds its sensing start."""
        made, seen = f"{self.generated:%Y%m%dT%H%M%S}", f"{self.datastrip_start:%Y%m%dT%H%M%S}"
        return f"{self.acquisition.platform}_OPER_MSI_L2A_DS_{self._station}_{made}_S{seen}_N{self.baseline}"

    @property
    def granule_id(self) -> str:
        """Return the granule id."""
        made = f"{self.generated:%Y%m%dT%H%M%S}"
        tile = f"A{self.acquisition.absolute_orbit:06d}_T{self.tile}_N{self.baseline}"
        return f"{self.acquisition.platform}_OPER_MSI_L2A_TL_{self._station}_{made}_{tile}"

    @property
    def product_uri(self) -> str:
        """Return the name of the SAFE folder."""
        start, made = f"{self.acquisition.datatake_start:%Y%m%dT%H%M%S}", f"{self.generated:%Y%m%dT%H%M%S}"
        number = self.baseline.replace(".", "")
        orbit = f"R{self.acquisition.relative_orbit:03d}"
        return f"{self.acquisition.platform}_MSIL2A_{start}_N{number}_{orbit}_T{self.tile}_{made}.SAFE"

    @property
    def item_id(self) -> str:
        """Return the id that the catalogue gives it."""
        if self.layout == "earth-search":
            return f"{self.acquisition.platform}_{self.tile}_{self.acquisition.when:%Y%m%d}_{self.sequence}_L2A"
        name, _, rest = self.product_uri.removesuffix(".SAFE").partition("_N")
        return f"{name}_{rest.split('_', 1)[1]}"

    @property
    def _station(self) -> str:
        return f"{self.acquisition.platform[1:]}PS"


def products(config: SimulateConfig) -> tuple[Product, ...]:
    """Return every item of the archive, by time.

    Parameters
    ----------
    config : SimulateConfig

    Returns
    -------
    tuple of Product
        With ``hard_cases``, each case falls on the same places in the list of overpasses, so that it is always there.
    """
    plain = [_plain(a, _layout_of(config, k)) for k, a in enumerate(overpasses(config))]
    if not config.hard_cases:
        return tuple(plain)
    found: list[Product] = []
    for number, product in enumerate(_with_offset_cases(plain)):
        found += _with_hard_cases(product, number)
    corners = [_plain(a, _layout_of(config, k)) for k, a in enumerate(corner_overpasses(config))]
    found += [p.labelled("corner-only", part="corner") for p in corners]
    return tuple(sorted(found, key=lambda p: (p.acquisition.when, p.tile, p.sequence)))


def _layout_of(config: SimulateConfig, number: int) -> str:
    """Return the layout of an item."""
    return ("earth-search", "planetary-computer")[number % 2] if config.layout == "mixed" else config.layout


def _plain(acquisition: Acquisition, layout: str) -> Product:
    """Return the product as its catalogue usually has it."""
    new = acquisition.baseline >= "04.00"
    if layout == "planetary-computer":
        return Product(acquisition, MAIN_TILE, acquisition.baseline, layout, offset_in_pixels=new)
    # Earth Search took the offset off the pixels and says so, yet still states it in raster:bands
    offset = -0.1 if new else 0.0
    return Product(acquisition, MAIN_TILE, acquisition.baseline, layout, offset_flag=new, band_offset=offset)


def _with_offset_cases(plain: list[Product]) -> list[Product]:
    """Spread the ways in which catalogues state the offset over the items from baseline 04.00 on."""
    new = [k for k, p in enumerate(plain) if p.baseline >= "04.00"]
    changed = list(plain)
    for place, k in enumerate(new):
        changed[k] = _offset_case(plain[k], place)
    return changed


def _offset_case(product: Product, place: int) -> Product:
    """Return the product with its offset stated in one of several ways."""
    if product.layout == "planetary-computer":
        if place == 5:
            return product.labelled("offset-contradiction", offset_in_pixels=False)
        return product.labelled("offset-not-applied-no-flag")
    if place % 7 == 1:
        return product.labelled("offset-not-applied-flag", offset_in_pixels=True, offset_flag=False)
    if place % 7 == 3:
        return product.labelled("offset-not-applied-no-flag", offset_in_pixels=True, offset_flag=None)
    if place % 7 == 6:
        return product.labelled("offset-applied-no-flag", offset_flag=None, band_offset=0.0)
    if place == 5:
        return product.labelled("offset-contradiction", offset_in_pixels=True)
    return product.labelled("offset-applied-flag")


def _with_hard_cases(product: Product, number: int) -> list[Product]:
    """Return the product together with what else a real catalogue lists of the same overpass."""
    if number % 20 == 2:
        old = product.labelled("superseded")
        return [old, _reprocessed(product)]
    if number % 20 == 5:
        first = product.labelled("split-datastrips", part="first")
        return [first, product.labelled("split-datastrips", part="second", sequence=1)]
    if number % 20 == 8:
        return [product.labelled("no-scl", has_scl=False)]
    if number % 20 == 11:
        return [product.labelled("superseded-same-baseline"), _generated_later(product)]
    if number % 5 == 4:
        strip = product.labelled("second-tile", tile=SECOND_TILE, part="strip")
        return [product.labelled("second-tile-partner"), strip]
    return [product]


def _reprocessed(product: Product) -> Product:
    """Return the same overpass processed again years later with a newer baseline."""
    applied = product.layout == "earth-search"
    state = "offset-applied-flag" if applied else "offset-not-applied-no-flag"
    return replace(product, cases=(state,)).labelled(
        "superseding",
        baseline="05.10" if product.baseline >= REPROCESSED_BASELINE else REPROCESSED_BASELINE,
        generation_days=700,
        sequence=1,
        offset_in_pixels=not applied,
        offset_flag=True if applied else None,
        band_offset=-0.1 if applied else None,
    )


def _generated_later(product: Product) -> Product:
    """Return the same overpass processed once more with the same baseline."""
    return product.labelled("superseding-same-baseline", generation_days=3, sequence=1)
