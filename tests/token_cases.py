"""Cubes that grow date by date in any order, and what their series are, pixel by pixel in plain loops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from odc.geo.geom import box

from models.indices import BANDS
from models.tokens import SeriesTokeniser, Tokens
from storage.cube import DateEntry, create_cube, read_block, read_state, write_cube
from storage.location import resolve
from storage.schema import CubeSchema
from storage.tokens import TokenStore
from tasks.earth.grid import Tile, tiles_of
from tasks.earth.mapping import MapPlan, plan_map

CRS = "EPSG:32630"
CORNER = (614_400.0, 5_703_680.0)
"""Upper left of the first tile."""
ROWS, COLUMNS = slice(250, 262), slice(1010, 1038)
"""Across two blocks, and from the first tile into the next."""
CUBE_BANDS = ("B02", "B04", "B08")
START = np.datetime64("2019-01-04")

Series = list[tuple[int, tuple[int, ...]]]
"""Day since 2000 and stored reflectance of each valid look."""


def area_of_pixels(rows: slice = ROWS, columns: slice = COLUMNS) -> dict[str, Any]:
    """Return the outline of some pixels in longitude and latitude."""
    left, top = CORNER
    edges = (left + 10 * columns.start, top - 10 * rows.stop, left + 10 * columns.stop, top - 10 * rows.start)
    return dict(box(*edges, CRS).to_crs("EPSG:4326", resolution=20).json)


def tiles() -> tuple[Tile, ...]:
    return tuple(sorted(tiles_of(area_of_pixels(), crs=CRS), key=lambda tile: tile.path))


def day_of(number: int) -> np.datetime64:
    """Return the day of a look: every 20 days."""
    return START + 20 * number


def write_day(
    warehouse: Path, day: np.datetime64, *, tile: int = 0, seed: int = 0, replaces: np.datetime64 | None = None,
    hour: int = 11,
) -> None:  # fmt: skip
    """Write a random look at the area's part of a tile, made if need be; instead of another day's where one is named."""
    chosen = tiles()[tile]
    location = resolve(warehouse) / chosen.path
    create_cube(location, CubeSchema(chosen.geobox, CUBE_BANDS))
    left = round((chosen.geobox.affine.c - CORNER[0]) / 10)
    columns = slice(max(COLUMNS.start - left, 0), min(COLUMNS.stop - left, 1024))
    shape = (ROWS.stop - ROWS.start, columns.stop - columns.start)
    rng = np.random.default_rng([seed, tile, int(day.astype(int)), hour])
    looks = rng.integers(1, 9000, (len(CUBE_BANDS), *shape), dtype=np.uint16)
    scl = np.where(rng.random(shape) < 0.01, 9, 4).astype(np.uint8)
    time = day.astype("datetime64[us]") + np.timedelta64(hour, "h")
    record = {"scene": f"{day}-{hour}-{seed}", "state": "used"}
    with write_cube(location) as writer:
        index = None
        if replaces is not None:
            (index,) = np.flatnonzero(writer.state.times.astype("datetime64[D]") == replaces)
        writer.write(DateEntry(None if index is None else int(index), time, (ROWS, columns), looks, scl, (record,)))


def grow(warehouse: Path, numbers: Sequence[int], *, tile: int = 0, seed: int = 0) -> None:
    """Write the looks of some numbered days, in this order."""
    for number in numbers:
        write_day(warehouse, day_of(number), tile=tile, seed=seed)


def plan_of(warehouse: Path, **more: Any) -> MapPlan:
    return plan_map(str(warehouse), area_of_pixels(), crs=CRS, **more)


def snapshot_of(warehouse: Path, tile: int = 0) -> str:
    return read_state(resolve(warehouse) / tiles()[tile].path).snapshot


def series_in_cube(
    plan: MapPlan, steps: int, *, before: np.datetime64 | None = None
) -> dict[tuple[str, int, int], Series]:
    """Return the newest valid looks at every pixel of the area, in plain loops."""
    found = {}
    for cube in plan.cubes:
        left = round((cube.tile.geobox.affine.c - CORNER[0]) / 10)
        columns = range(max(COLUMNS.start - left, 0), min(COLUMNS.stop - left, 1024))
        window = {"y": ROWS, "x": slice(columns.start, columns.stop)}
        block = read_block(plan.root / cube.path, window, snapshot=cube.snapshot)
        days = block.times.astype("datetime64[D]")
        for row in range(ROWS.stop - ROWS.start):
            for column in range(len(columns)):
                looks: Series = [
                    (
                        int((day - np.datetime64("2000-01-01")).astype(int)),
                        tuple(block.reflectance[time, :, row, column].tolist()),
                    )
                    for time, day in enumerate(days)
                    if block.valid[time, row, column] and (before is None or day < before)
                ]
                found[cube.path, ROWS.start + row, columns.start + column] = looks[-steps:]
    return found


def series_in(tokens: Tokens, bands: tuple[str, ...] = CUBE_BANDS) -> list[Series]:
    """Return samples as days and stored integers, by the tokeniser's way back; check padding and target days."""
    extra = tokens.values.shape[-1] - len(BANDS)
    own = Tokens(tokens.values[..., : len(BANDS)] if extra else tokens.values, tokens.position, tokens.valid)
    back = SeriesTokeniser(bands).detokenise(own)
    found = []
    for number in range(len(tokens)):
        count = int(tokens.valid[number].sum())
        assert tokens.valid[number, :count].all()
        assert tokens.values[number, count:].isnan().all()
        days = [int(day) for day in back.days[number, :count]]
        targets = tokens.position[number, :, 1].tolist()
        assert targets[:count] == [*days[1:], *days[-1:]]
        assert set(targets[count:]) <= ({float(days[-1])} if days else {0.0})
        looks = [tuple(look) for look in back.reflectance[number, :count].tolist()]
        found.append(list(zip(days, looks, strict=True)))
    return found


def series_in_store(store: TokenStore, bands: tuple[str, ...] = CUBE_BANDS) -> dict[tuple[str, int, int], Series]:
    """Return the series of every packed pixel, each once."""
    import torch

    found: dict[tuple[str, int, int], Series] = {}
    for name, group in store.groups.items():
        for shard in group.shards:
            block = store.read(shard)
            tokens = Tokens(*(torch.from_numpy(part) for part in (block.values, block.position, block.valid)))
            for (row, column), series in zip(block.place.tolist(), series_in(tokens, bands), strict=True):
                place = (name.partition("#")[0], row, column)
                assert place not in found
                found[place] = series
    return found


def renamed(plan: MapPlan, cubes: Sequence[Any]) -> MapPlan:
    """Return a plan that lists its cubes in another order."""
    return replace(plan, cubes=tuple(cubes))
