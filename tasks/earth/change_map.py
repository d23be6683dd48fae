"""Change of woodland as a product: from the maps of a collection and the looks of the cubes. No Prefect here."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from storage.cube import SeriesBlock
from tasks.earth.change import READ_BANDS, ChangeRules, Looks, find_changes
from tasks.earth.change_maps import MapReference, OpenMaps, choose_maps
from tasks.earth.change_product import ChangeSpec, write_change
from tasks.earth.layers import CLEAR_COUNT, PROBABILITY_SCALE, change_layers
from tasks.earth.mapping import Fill, MapPlan, count_looks, empty_layers, plan_for, to_physical
from tasks.earth.product import InputScene, Raster, RasterProduct, Sources
from tasks.earth.regional import Prepared, freeze_inputs, prepare
from tasks.errors import ConfigurationError

VERSION = 1
"""Of the layout of a change product; part of the id, to be raised when the same staged layers give other files."""


@dataclass(frozen=True)
class ChangeRequest:
    """Where change is asked for, from which maps, and what counts.

    Parameters
    ----------
    warehouse : str
        URL.
    area : dict
        GeoJSON geometry, EPSG:4326.
    maps : str
        Collection of the maps.
    start, end : str or None
        First and last date of the maps, ``YYYY-MM-DD``; None for all.
    least_area_ha : float
        Smaller patches are left out.
    rules : ChangeRules
        What counts.
    collection, title : str
        Of the product.
    crs : str or None
        CRS of the grid; None for the UTM zone.
    resolution : float
        Metres.
    allow_unmasked : bool
        Whether looks without a mask count.
    """

    warehouse: str
    area: dict[str, Any]
    maps: str = "canopy"
    start: str | None = None
    end: str | None = None
    least_area_ha: float = 0.05
    rules: ChangeRules = field(default_factory=ChangeRules)
    collection: str = "canopy-change"
    title: str = "Change of woodland"
    crs: str | None = None
    resolution: float = 10.0
    allow_unmasked: bool = False


@dataclass(frozen=True)
class ChangeJob:
    """Find the changes of an area.

    Parameters
    ----------
    plan : MapPlan
        Cubes at their snapshots, and grids.
    spec : ChangeSpec
        What the product will say of itself.
    maps : tuple of MapReference
        By date.
    rules : ChangeRules
        What counts.
    """

    plan: MapPlan
    spec: ChangeSpec
    maps: tuple[MapReference, ...]
    rules: ChangeRules

    @property
    def product(self) -> RasterProduct:
        """Return what is published."""
        return self.spec.product

    @property
    def rasters(self) -> tuple[Raster, ...]:
        """Return the COGs."""
        return self.spec.rasters

    def open(self) -> Fill:
        """Open the maps, and return what finds the changes in a window."""
        maps = OpenMaps.of(self.plan.root, self.maps)
        return partial(change_block, maps=maps, bands=self.plan.bands, rules=self.rules)

    def write(self, folder: Path, sources: Sources) -> dict[str, Any]:
        """Write all assets and return the STAC item."""
        return write_change(folder, self.spec, sources)


def plan_change(request: ChangeRequest) -> tuple[MapPlan, tuple[MapReference, ...]]:
    """Return what is read: the cubes from the first day behind the first map to the date of the last, and the maps.

    Raises
    ------
    ConfigurationError
        Where no cube holds the area, the cubes lack the bands, or there are too few maps.
    """
    plan = plan_for(request)
    missing = [band for band in ("B04", "B08") if band not in plan.bands]
    if missing:
        raise ConfigurationError(f"change wants B04 and B08; the cubes hold {', '.join(plan.bands)}")
    maps = choose_maps(
        plan.root,
        request.maps,
        request.area,
        start=request.start,
        end=request.end,
        least=2 * request.rules.least_maps,
    )
    first, last = (np.datetime64(day, "D") for day in (min(found.start for found in maps), maps[-1].date))
    return replace(plan, first=first, until=last), maps


def prepare_change(request: ChangeRequest) -> Prepared:
    """Freeze the inputs of a change product in a run's manifest, and lay out its staging place.

    Raises
    ------
    ConfigurationError
        As `plan_change`.
    """
    plan, maps = plan_change(request)
    settled = asdict(request) | {"made_from": [found.item_id for found in maps]}
    run, lineage = freeze_inputs(
        plan, "change", request=settled, weights_sha256=maps[-1].weights_sha256, states=plan.states()
    )
    # the scenes are those of the maps, whose items name them
    lineage = replace(lineage, inputs=tuple(InputScene(found.item_id, found.href) for found in maps))
    product = RasterProduct(
        request.collection,
        request.title,
        str(plan.first),
        str(plan.until),
        str(plan.until),
        plan.product,
        change_layers(),
        lineage,
        area=request.area,
        description="Woodland lost and gained, with date and confidence, from a sequence of maps and the looks behind it",
        derivation=f"change found pixel by pixel from {len(maps)} maps of {request.maps} and the looks themselves",
        keywords=("Sentinel-2", "tree canopy", "change"),
        zarr="change.zarr",
        extensions=("classification", "processing", "projection", "raster"),
        version=VERSION,
    )
    spec = ChangeSpec(product, request.least_area_ha, asdict(request.rules), tuple(found.date for found in maps))
    return prepare(ChangeJob(plan, spec, maps, request.rules), run)


def change_block(
    block: SeriesBlock, *, maps: OpenMaps, bands: tuple[str, ...], rules: ChangeRules
) -> dict[str, np.ndarray]:
    """Return the layers of a block of series, pixels without a valid look as no data.

    Parameters
    ----------
    block : SeriesBlock
        Whole, with its place.
    maps : OpenMaps
        Of the area.
    bands : tuple of str
        What the block holds.
    rules : ChangeRules
        What counts.

    Returns
    -------
    dict of str to ndarray
        Stored values of `change_layers`.
    """
    size = block.valid.shape[1:]
    layers = empty_layers(change_layers(), size)
    if not len(block.times):
        return layers
    assert block.geobox is not None, "a block read from a cube says where it lies"
    series = maps.on(block.geobox)
    found = find_changes(series, _looks(block, bands), rules)
    count_looks(block, layers)
    seen = layers[CLEAR_COUNT].ravel() > 0
    changed = seen & (found.kind > 0)
    layers["change_kind"].reshape(-1)[seen] = found.kind[seen]
    layers["change_date"].reshape(-1)[changed] = found.date[changed].astype(np.int64)
    layers["change_interval"].reshape(-1)[changed] = found.interval_days[changed]
    layers["change_confidence"].reshape(-1)[seen] = np.round(found.confidence[seen] / PROBABILITY_SCALE)
    newest = series.probability[-1]
    known = seen & np.isfinite(newest)
    layers["canopy"].reshape(-1)[known] = np.round(newest[known] / PROBABILITY_SCALE)
    return layers


def _looks(block: SeriesBlock, bands: tuple[str, ...]) -> Looks:
    times = len(block.times)
    read = [band for band in READ_BANDS if band in bands]
    reflectance = {band: to_physical(block.reflectance[:, bands.index(band)].reshape(times, -1)) for band in read}
    return Looks(reflectance, block.valid.reshape(times, -1), block.times.astype("datetime64[D]"))
