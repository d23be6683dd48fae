"""Mapping: regions cover the area once, every pixel comes from one cube, the result does not depend on the cutting."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.geom import Geometry, box
from scipy.ndimage import uniform_filter
from shapely.geometry import mapping

from storage.classes import CANOPY_OR_NOT, NO_CLASS
from storage.cube import DateEntry, SeriesBlock, create_cube, write_cube
from storage.export import Layer
from storage.location import resolve
from storage.regions import Region
from storage.schema import CubeSchema
from tasks.earth.grid import tiles_of
from tasks.earth.layers import LOOKS, NO_COUNT, NO_PROBABILITY, map_layers
from tasks.earth.mapping import (
    AmongNeighbours,
    MapPlan,
    classify_block,
    count_looks,
    empty_layers,
    fill_region,
    plan_map,
    regions_by_tile,
    windowed,
)
from tasks.errors import ConfigurationError

BANDS = ("B04", "B08")


class Brightness:
    """A classifier with a known answer: the probability of canopy is the mean of B08's valid looks."""

    bands = BANDS

    def probabilities(
        self, reflectance: np.ndarray, valid: np.ndarray, dates: np.ndarray, *, jobs: int = 1
    ) -> np.ndarray:
        mean = np.nanmean(np.where(valid, reflectance[:, 1], np.nan), axis=0)
        return np.stack([1 - mean, mean], axis=1)


def fill_cube(warehouse: Path, geobox: GeoBox, path: str, days: list[str], seed: int) -> np.ndarray:
    """Write random dates over a whole tile; return the mean of B08."""
    location = resolve(warehouse) / path
    create_cube(location, CubeSchema(geobox, BANDS))
    rng = np.random.default_rng(seed)
    looks = rng.integers(1, 9999, (len(days), 2, *geobox.shape), dtype=np.uint16)
    with write_cube(location) as writer:
        for index, day in enumerate(days):
            record = {"scene": f"s{index}", "state": "used", "solar_day": day}
            window = (slice(0, geobox.shape[0]), slice(0, geobox.shape[1]))
            scl = np.full(geobox.shape, 4, dtype=np.uint8)
            writer.write(DateEntry(None, np.datetime64(day, "us"), window, looks[index], scl, (record,)))
    return looks[:, 1].mean(axis=0) * 1e-4


def lonlat(west: float, south: float, east: float, north: float, crs: str) -> dict:
    return box(west, south, east, north, crs).segmented(50).to_crs("EPSG:4326").json


@pytest.fixture
def mapped(tmp_path: Path) -> tuple[MapPlan, np.ndarray]:
    """A plan for an area of 300 x 400 pixels inside one tile, and the true probability of the whole tile."""
    crs = "EPSG:32630"
    area = lonlat(614_400 + 2_000, 5_703_680 - 5_000, 614_400 + 6_000, 5_703_680 - 2_000, crs)
    (tile,) = tiles_of(area, crs=crs)
    truth = fill_cube(tmp_path, tile.geobox, tile.path, ["2021-05-01", "2021-06-01"], seed=3)
    return plan_map(str(tmp_path), area, crs=crs), truth


def map_region(plan: MapPlan, region: Region) -> dict[str, np.ndarray]:
    fill = partial(classify_block, classifier=Brightness(), classes=CANOPY_OR_NOT)
    return fill_region(plan, region, map_layers(CANOPY_OR_NOT), fill)


def gather(plan: MapPlan, name: str) -> np.ndarray:
    rows, columns = plan.staging.shape
    whole: dict[str, np.ndarray] = {}
    for region in plan.regions:
        layers = map_region(plan, region)
        for key, values in layers.items():
            if key not in whole:
                fill = {"class": NO_CLASS, "probability": NO_PROBABILITY, "clear_count": NO_COUNT}.get(key, 0)
                whole[key] = np.full((*values.shape[:-2], rows, columns), fill, dtype=values.dtype)
            whole[key][..., region["y"], region["x"]] = values
    return whole[name]


def test_the_product_is_the_area_and_the_staging_whole_blocks(mapped: tuple[MapPlan, np.ndarray]) -> None:
    plan, _ = mapped
    assert plan.product.shape == (300, 400)
    assert all(size % 256 == 0 for size in plan.staging.shape)
    assert plan.staging.affine.c % 2560 == 0
    assert plan.staging.affine.f % 2560 == 0


def test_every_pixel_gets_its_own_probability(mapped: tuple[MapPlan, np.ndarray]) -> None:
    plan, truth = mapped
    probability = gather(plan, "probability")
    (cube,) = plan.cubes
    row = round((cube.tile.geobox.affine.f - plan.staging.affine.f) / 10)
    column = round((plan.staging.affine.c - cube.tile.geobox.affine.c) / 10)
    inside = probability[1] != NO_PROBABILITY
    assert inside.sum() == 300 * 400
    ys, xs = np.nonzero(inside)
    np.testing.assert_allclose(probability[1][ys, xs] / 1e4, truth[ys - row, xs + column], atol=6e-5)


def test_outside_the_area_nothing_is_mapped(mapped: tuple[MapPlan, np.ndarray]) -> None:
    plan, _ = mapped
    classes, counts = gather(plan, "class"), gather(plan, "clear_count")
    assert ((classes == NO_CLASS) == (counts == NO_COUNT)).all()
    assert set(np.unique(classes)) == {0, 1, NO_CLASS}
    assert set(np.unique(counts)) == {2, NO_COUNT}


def test_until_leaves_later_looks_out(tmp_path: Path, mapped: tuple[MapPlan, np.ndarray]) -> None:
    plan, _ = mapped
    earlier = plan_map(plan.warehouse, plan.area, crs="EPSG:32630", until=np.datetime64("2021-05-15"))
    layers = map_region(earlier, earlier.regions[0])
    assert layers["clear_count"][layers["clear_count"] != NO_COUNT].max() == 1
    assert layers["last_clear_date"].max() == (np.datetime64("2021-05-01") - np.datetime64("1970-01-01")).astype(int)


def test_a_window_counts_back_from_the_last_day_and_includes_both_ends(mapped: tuple[MapPlan, np.ndarray]) -> None:
    plan, _ = mapped
    (cube,) = plan.cubes
    days = plan.states()[cube.path].times.astype("datetime64[D]")
    last, before = np.sort(days)[-1], np.sort(days)[-2]
    span = int((last - before).astype(int))
    assert windowed(plan, None) is plan
    for length, expected in ((span, [last]), (span + 1, [before, last])):
        narrow = windowed(plan, length)
        assert narrow.read(cube, plan.regions[0]).times.astype("datetime64[D]").tolist() == expected
        assert days[narrow.reads(days)].size == len(expected)


def test_groups_leave_out_what_is_done(mapped: tuple[MapPlan, np.ndarray]) -> None:
    plan, _ = mapped
    keys = [f"y{region['y'].start:05d}x{region['x'].start:05d}" for region in plan.regions]
    left = [region for _, regions in regions_by_tile(plan, keys[:1]) for region in regions]
    assert len(left) == len(plan.regions) - 1


def test_an_area_without_cubes_says_what_to_do(tmp_path: Path) -> None:
    area = lonlat(614_400, 5_700_000, 616_000, 5_702_000, "EPSG:32630")
    with pytest.raises(ConfigurationError, match="canopus ingest"):
        plan_map(str(tmp_path), area)


def test_an_area_across_utm_zones_takes_each_pixel_from_one_cube(tmp_path: Path) -> None:
    # 6 degrees west is the border between zones 29 and 30
    area = box(-6.010, 50.010, -5.985, 50.020, "EPSG:4326").json
    tiles = tiles_of(area)
    assert {tile.grid for tile in tiles} == {"utm29n-10m", "utm30n-10m"}
    for tile in tiles:
        value = 2000 if tile.grid.startswith("utm29n") else 8000
        location = resolve(tmp_path) / tile.path
        create_cube(location, CubeSchema(tile.geobox, BANDS))
        window = (slice(0, 1024), slice(0, 1024))
        look = np.full((2, 1024, 1024), value, dtype=np.uint16)
        scl = np.full((1024, 1024), 4, dtype=np.uint8)
        with write_cube(location) as writer:
            record = {"scene": "s", "state": "used", "solar_day": "2021-05-01"}
            writer.write(DateEntry(None, np.datetime64("2021-05-01", "us"), window, look, scl, (record,)))
    plan = plan_map(str(tmp_path), area)
    probability = gather(plan, "probability")[1]
    mapped = probability[probability != NO_PROBABILITY]
    assert set(np.unique(mapped)) <= {2000, 8000}
    main = 8000 if str(plan.staging.crs).endswith("30") else 2000
    assert (mapped == main).mean() > 0.5
    inside = sum(int(plan.inside(region).sum()) for region in plan.regions)
    assert mapped.size == inside


def test_neighbours_in_another_cube_are_seen_wherever_regions_are_cut(tmp_path: Path) -> None:
    """Two parts of an area on either side of a tile border, neither of which reaches it, nor a border of regions."""
    crs, left, top = "EPSG:32630", 614_400, 5_703_680
    sides = [box(left + 10 * a, top - 300, left + 10 * b, top - 100, crs) for a, b in ((1000, 1022), (1026, 1050))]
    area = mapping(shapely.union_all([side.to_crs("EPSG:4326").geom for side in sides]))
    tiles = tiles_of(area, crs=crs)
    assert len(tiles) == 2
    for number, tile in enumerate(tiles):
        fill_cube(tmp_path, tile.geobox, tile.path, ["2021-05-01"], seed=number)
    plan = plan_map(str(tmp_path), area, crs=crs)
    layers = (Layer("value", "Value", "float32", 0.0), *LOOKS)

    def each(block: SeriesBlock) -> dict[str, np.ndarray]:
        found = empty_layers(layers, block.valid.shape[1:])
        count_looks(block, found)
        found["value"][...] = block.reflectance[:, 1].sum(axis=0)
        return found

    def finish(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        inner = {name: values[4:-4, 4:-4].copy() for name, values in found.items()}
        return inner | {"value": uniform_filter(found["value"], 9)[4:-4, 4:-4]}

    fill = AmongNeighbours(4, layers, each, finish)
    rows, columns = (slice(0, int(size)) for size in plan.staging.shape)
    whole = fill_region(plan, {"y": rows, "x": columns}, layers, fill)["value"]
    assert (whole > 0).sum() == 20 * (22 + 24)
    for region in plan.regions:
        part = fill_region(plan, region, layers, fill)["value"]
        np.testing.assert_allclose(part, whole[region["y"], region["x"]], rtol=1e-5)


def test_no_look_is_no_data_and_a_count_of_zero() -> None:
    block = SeriesBlock(
        np.full((1, 2, 4, 4), 5000, dtype=np.uint16),
        np.zeros((1, 4, 4), dtype=bool),
        np.array(["2021-05-01"], dtype="datetime64[us]"),
    )
    layers = classify_block(block, Brightness(), CANOPY_OR_NOT)
    assert (layers["class"] == NO_CLASS).all()
    assert (layers["clear_count"] == 0).all()
    assert (layers["probability"] == NO_PROBABILITY).all()


def test_geometry_and_grid_agree_on_what_is_inside(mapped: tuple[MapPlan, np.ndarray]) -> None:
    plan, _ = mapped
    pixels = sum(int(plan.inside(region).sum()) for region in plan.regions)
    area_m2 = Geometry(plan.area, "EPSG:4326").to_crs("EPSG:32630").area
    assert pixels * 100 == pytest.approx(area_m2, rel=1e-3)
    assert plan.product.affine == Affine(10, 0, 616_400, 0, -10, 5_701_680)
