"""Series of cubes as tokens: each pixel's newest valid looks and nothing else, whatever the cut into pieces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from token_cases import CUBE_BANDS, day_of, grow, plan_of, series_in, series_in_cube, write_day

from models.indices import BANDS
from models.tokens import PixelSeries, SeriesTokeniser, Tokens, compact, pad, to_days
from storage.cube import read_block
from tasks.earth.mapping import MapPlan
from tasks.earth.places import in_area, regions_of
from tasks.earth.series import SeriesReader, SeriesRules, merged
from tasks.errors import ConfigurationError

LOOKS = 9


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("series")
    grow(folder, [3, 0, 1, 2, 4, 5, 6, 8, 7])
    grow(folder, range(3), tile=1)
    return folder


def read_area(plan: MapPlan, rules: SeriesRules, at_once: int = 8192) -> dict:
    """Return the series of every pixel of the area that has one, read some pixels at a time."""
    found: dict = {}
    for cube in plan.cubes:
        reader = SeriesReader(plan, cube, rules)
        for region in regions_of(cube):
            pixels = np.flatnonzero(in_area(plan, cube.tile.geobox[region["y"], region["x"]]))
            for start in range(0, pixels.size, at_once):
                some = pixels[start : start + at_once]
                rows, columns = np.divmod(some, region["x"].stop - region["x"].start)
                for row, column, series in zip(rows, columns, series_in(reader.read(region, some)), strict=True):
                    found[cube.path, int(row) + region["y"].start, int(column) + region["x"].start] = series
    return {place: series for place, series in found.items() if series}


@pytest.mark.parametrize("steps", [4, LOOKS, 100])
@pytest.mark.parametrize("at_once", [50, 8192])
def test_every_pixel_has_its_newest_valid_looks(warehouse: Path, steps: int, at_once: int) -> None:
    plan = plan_of(warehouse)
    expected = {place: looks for place, looks in series_in_cube(plan, steps).items() if looks}
    assert len(expected) > 300
    assert read_area(plan, SeriesRules(steps), at_once) == expected


def test_looks_from_a_day_on_are_not_read(warehouse: Path) -> None:
    cut, plan = day_of(5), plan_of(warehouse)
    expected = {k: v for k, v in series_in_cube(plan, 100, before=cut).items() if v}
    assert read_area(plan, SeriesRules(100, before=cut)) == expected
    assert read_area(plan, SeriesRules(100, before=day_of(0))) == {}


def test_the_plans_last_day_holds_beside_the_cut(warehouse: Path) -> None:
    plan = plan_of(warehouse, until=day_of(2))
    assert max(len(series) for series in read_area(plan, SeriesRules(before=day_of(7))).values()) == 3


def test_tokens_are_those_of_the_tokeniser_compacted(warehouse: Path) -> None:
    plan = plan_of(warehouse)
    cube = plan.cubes[0]
    reader = SeriesReader(plan, cube, SeriesRules(LOOKS))
    for region in regions_of(cube):
        block = read_block(plan.root / cube.path, region)
        pixels = np.flatnonzero(block.valid.any(axis=0))
        if not pixels.size:
            continue
        stored = np.moveaxis(block.reflectance.reshape(LOOKS, 3, -1)[:, :, pixels], 2, 0)
        valid = torch.from_numpy(block.valid.reshape(LOOKS, -1)[:, pixels].T.copy())
        days = to_days(block.times.astype("datetime64[D]")).expand(len(pixels), -1)
        series = PixelSeries(torch.from_numpy(stored.copy()), days, valid)
        expected = compact(SeriesTokeniser(CUBE_BANDS).tokenise(series))
        found = reader.read(region, pixels)
        assert torch.equal(found.values.nan_to_num(-9), expected.values.nan_to_num(-9))
        assert torch.equal(found.position, expected.position)
        assert torch.equal(found.valid, expected.valid)


def test_bands_that_are_not_asked_for_are_nan(warehouse: Path) -> None:
    plan = plan_of(warehouse)
    cube = plan.cubes[0]
    reader = SeriesReader(plan, cube, SeriesRules(bands=("B08", "B02")))
    region = regions_of(cube)[0]
    tokens = reader.read(region, np.flatnonzero(in_area(plan, cube.tile.geobox[region["y"], region["x"]])))
    seen = ~tokens.values[tokens.valid].isnan()
    assert {band for band, any_ in zip(BANDS, seen.any(dim=0).tolist(), strict=True) if any_} == {"B02", "B08"}


def test_a_band_that_is_not_there_is_named(warehouse: Path) -> None:
    plan = plan_of(warehouse)
    reader = SeriesReader(plan, plan.cubes[0], SeriesRules(bands=("B02", "B11")))
    with pytest.raises(ConfigurationError, match="B11 is not among them"):
        reader.read(regions_of(plan.cubes[0])[0], np.array([0]))


def test_pixels_without_a_look_are_read_as_empty_series(tmp_path: Path) -> None:
    write_day(tmp_path, day_of(0))
    plan = plan_of(tmp_path)
    reader = SeriesReader(plan, plan.cubes[0], SeriesRules(before=day_of(0)))
    tokens = reader.read(regions_of(plan.cubes[0])[0], np.array([0, 5, 9]))
    assert len(tokens) == 3
    assert not tokens.valid.any()
    assert series_in(tokens) == [[], [], []]


@pytest.mark.parametrize("steps", [1, 3, 50])
def test_merging_is_reading_at_once(warehouse: Path, steps: int) -> None:
    plan = plan_of(warehouse)
    cube = plan.cubes[0]
    reader = SeriesReader(plan, cube, SeriesRules(steps))
    region = regions_of(cube)[0]
    pixels = np.arange(64000, 65536)
    whole = reader.read(region, pixels)
    early = SeriesReader(plan, cube, SeriesRules(steps, before=day_of(6))).read(region, pixels)
    late = reader.read(region, pixels, since=6)
    assert early.valid.any()
    assert late.valid.any()
    found = merged(early, late, steps)
    assert torch.equal(found.valid, whole.valid)
    assert torch.equal(found.position, whole.position)
    assert torch.equal(found.values.nan_to_num(-9), whole.values.nan_to_num(-9))


def test_merging_keeps_the_days_in_order_whichever_came_first() -> None:
    def of(*days: float) -> Tokens:
        day = torch.tensor([days])
        return Tokens(day[..., None], torch.stack([day, day], dim=-1), torch.ones_like(day, dtype=torch.bool))

    found = merged(pad([of(10.0, 30.0)]), of(20.0, 5.0), 3)
    assert found.position[0].tolist() == [[10.0, 20.0], [20.0, 30.0], [30.0, 30.0]]
    assert found.values[0, :, 0].tolist() == [10.0, 20.0, 30.0]
