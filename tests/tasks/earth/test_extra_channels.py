"""Channels from a user's Zarr: no value from after a look, and a word on everything that does not fit the tile."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from token_cases import COLUMNS, ROWS, day_of, grow, plan_of, series_in_cube, series_in_store, tiles

from models.indices import BANDS
from models.tokens import ExtraChannel
from tasks.earth.extra_channels import ExtraSource
from tasks.earth.series import SeriesReader, SeriesRules
from tasks.earth.tokens import pack_area
from tasks.errors import ConfigurationError

SPOT = {"y": slice(ROWS.start, ROWS.stop), "x": slice(COLUMNS.start, 1024)}
SHAPE = (ROWS.stop - ROWS.start, 1024 - COLUMNS.start)
BACKSCATTER = ExtraChannel("vv", offset=-12.0, scale=4.0, unit="dB")
HEIGHT = ExtraChannel("height", scale=256.0, unit="m")


def write_extra(
    folder: Path,
    name: str,
    values: np.ndarray,
    *,
    units: str | None = None,
    geobox: GeoBox | None = None,
    times: np.ndarray | None = None,
) -> Path:
    """Write one array on the grid of the first tile as a user would."""
    grid = geobox or tiles()[0].geobox
    dims = ("y", "x") if times is None else ("time", "y", "x")
    coords = dict(xr_coords(grid)) | ({} if times is None else {"time": times})
    array = xr.DataArray(values, dims=dims, coords=coords, attrs={"units": units} if units else {})
    array.to_dataset(name=name).to_zarr(folder, mode="w", consolidated=False)
    return folder


def height_map() -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 900, (1024, 1024)).astype(np.float32)


def backscatter(days: list[np.datetime64], folder: Path) -> np.ndarray:
    """Write backscatter that is given only where the area lies; return that part: (time, y, x)."""
    part = np.random.default_rng(1).normal(-12, 3, (len(days), *SHAPE)).astype(np.float32)
    whole = np.full((len(days), 1024, 1024), np.nan, np.float32)
    whole[:, SPOT["y"], SPOT["x"]] = part
    write_extra(folder, "vv", whole, units="dB", times=np.array(days, dtype="datetime64[ns]"))
    return part


def test_a_map_is_the_same_at_every_look(tmp_path: Path) -> None:
    height = height_map()
    source = ExtraSource(str(write_extra(tmp_path / "dem.zarr", "height", height, units="m")), HEIGHT)
    found = source.open(tiles()[0]).read(SPOT, np.array([day_of(0), day_of(5)]))
    np.testing.assert_array_equal(found, np.stack([height[SPOT["y"], SPOT["x"]]] * 2))


def test_a_look_takes_the_newest_value_that_is_not_later(tmp_path: Path) -> None:
    days = [day_of(0), day_of(0) + 6, day_of(2)]
    part = backscatter(days, tmp_path / "s1.zarr")
    reader = ExtraSource(str(tmp_path / "s1.zarr"), BACKSCATTER, tolerance_days=5).open(tiles()[0])
    asked = [days[0] - 1, days[0], days[0] + 5, days[1] - 1 + 2, days[1] + 5, days[1] + 6, days[2] - 1, days[2]]
    found = reader.read(SPOT, np.array(asked))
    expected = [None, 0, 0, 1, 1, None, None, 2]
    for number, chosen in enumerate(expected):
        if chosen is None:
            assert np.isnan(found[number]).all(), asked[number]
        else:
            np.testing.assert_array_equal(found[number], part[chosen])


def test_the_hour_counts(tmp_path: Path) -> None:
    evening = day_of(0).astype("datetime64[ns]") + np.timedelta64(18, "h")
    backscatter([evening], tmp_path / "s1.zarr")
    reader = ExtraSource(str(tmp_path / "s1.zarr"), BACKSCATTER, tolerance_days=1).open(tiles()[0])
    morning = day_of(0).astype("datetime64[us]") + np.timedelta64(11, "h")
    found = reader.read(SPOT, np.array([morning, morning + np.timedelta64(1, "D")]))
    assert np.isnan(found[0]).all()
    assert not np.isnan(found[1]).any()


def test_names_of_grid_and_tile_are_filled_in(tmp_path: Path) -> None:
    tile = tiles()[0]
    write_extra(tmp_path / tile.grid / f"{tile.name}.zarr", "height", height_map(), units="m")
    assert ExtraSource(f"{tmp_path}/{{grid}}/{{tile}}.zarr", HEIGHT).open(tile).times is None


def test_packed_channels_come_back_scaled(tmp_path: Path) -> None:
    grow(tmp_path, range(10))
    height = height_map()
    write_extra(tmp_path / "dem.zarr", "height", height, units="m")
    days = [day_of(number) - 1 for number in range(0, 10, 2)]
    part = backscatter(days, tmp_path / "s1.zarr")
    extra = (
        ExtraSource(str(tmp_path / "dem.zarr"), HEIGHT),
        ExtraSource(str(tmp_path / "s1.zarr"), BACKSCATTER, tolerance_days=3),
    )
    plan = plan_of(tmp_path)
    store = pack_area(plan, "extra", steps=10, pixels=10**6, shard=64, extra=extra).store
    assert [(c.name, c.unit) for c in store.schema.channels[10:]] == [("height", "m"), ("vv", "dB")]
    assert series_in_store(store) == series_in_cube(plan, 10)
    numbers = {int((day_of(n) - np.datetime64("2000-01-01")).astype(int)): n for n in range(10)}
    block = store.read(store.shards[0])
    for sample, (row, column) in enumerate(block.place.tolist()):
        own = block.values[sample][block.valid[sample]]
        at_height, vv = own[:, len(BANDS)] * 256.0, own[:, len(BANDS) + 1] * 4.0 - 12.0
        np.testing.assert_array_equal(at_height, np.full(len(own), height[row, column]))
        for day, value in zip(block.position[sample][block.valid[sample], 0], vv, strict=True):
            number = numbers[int(day)]
            if number % 2:
                assert np.isnan(value)
            else:
                assert value == pytest.approx(part[number // 2, row - ROWS.start, column - COLUMNS.start], abs=1e-5)


def test_looks_are_added_with_their_channels_and_a_grown_channel_is_read_anew(tmp_path: Path) -> None:
    grow(tmp_path, range(9))
    write_extra(tmp_path / "dem.zarr", "height", height_map(), units="m")
    backscatter([day_of(0)], tmp_path / "s1.zarr")
    height = ExtraSource(str(tmp_path / "dem.zarr"), HEIGHT)
    radar = ExtraSource(str(tmp_path / "s1.zarr"), BACKSCATTER, tolerance_days=400)

    def packed(name: str, extra: tuple[ExtraSource, ...]) -> tuple[dict[str, int], str]:
        report = pack_area(plan_of(tmp_path), name, steps=8, pixels=10**6, shard=64, extra=extra)
        return {state: count for state, count in report.groups.items() if count}, report.store.version

    packed("both", (height, radar))
    grow(tmp_path, [9])
    state, version = packed("both", (height, radar))
    assert state == {"appended": 1}
    assert version == packed("anew", (height, radar))[1]
    backscatter([day_of(0), day_of(5)], tmp_path / "s1.zarr")
    state, later = packed("both", (height, radar))
    assert state == {"recomputed": 1}
    assert later != version
    assert later == packed("anew again", (height, radar))[1]


def test_a_value_from_after_the_cut_is_never_read(tmp_path: Path) -> None:
    grow(tmp_path, range(9))
    part = backscatter([day_of(2), day_of(6)], tmp_path / "s1.zarr")
    rules = SeriesRules(before=day_of(6), extra=(ExtraSource(str(tmp_path / "s1.zarr"), BACKSCATTER, 400),))
    plan = plan_of(tmp_path)
    tokens = SeriesReader(plan, plan.cubes[0], rules).read(SPOT, np.arange(SHAPE[0] * SHAPE[1]))
    vv = tokens.values[..., len(BANDS)]
    seen = vv[~vv.isnan()]
    expected = torch.from_numpy((part[0] + 12) / 4).reshape(-1)
    assert len(seen) > 300
    assert torch.isin(seen, expected).all()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"units": "dB"}, "units are 'dB'; the channel says 'm'"),
        ({"units": None}, "units are None; the channel says 'm'"),
        ({"geobox": GeoBox((1024, 1024), tiles()[0].geobox.affine, "EPSG:32631")}, "CRS is 32631; the tile's is 32630"),
        ({"geobox": tiles()[0].geobox.translate_pix(1, 0)}, "write it on the tile's own grid"),
        ({"geobox": tiles()[0].geobox.pad(1)}, r"grid of \(1026, 1026\) pixels"),
        ({"times": np.array([day_of(0)], dtype="datetime64[ns]")}, "say how old a value may be"),
        ({"name": "elevation"}, "no such array; it has elevation"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, change: dict, says: str) -> None:
    geobox = change.get("geobox", tiles()[0].geobox)
    shape = (*([1] if "times" in change else []), *geobox.shape)
    settings = {"name": "height", "units": "m"} | change
    name = settings.pop("name")
    folder = write_extra(tmp_path / "dem.zarr", name, np.zeros(shape, np.float32), **settings)
    with pytest.raises(ConfigurationError, match=says):
        ExtraSource(str(folder), HEIGHT).open(tiles()[0])


def test_an_array_without_a_crs_or_with_other_dimensions_is_named(tmp_path: Path) -> None:
    plain = xr.DataArray(np.zeros((1024, 1024), np.float32), dims=("y", "x"), attrs={"units": "m"})
    plain.to_dataset(name="height").to_zarr(tmp_path / "plain.zarr", consolidated=False)
    with pytest.raises(ConfigurationError, match="states no CRS"):
        ExtraSource(str(tmp_path / "plain.zarr"), HEIGHT).open(tiles()[0])
    plain.rename(y="lat").to_dataset(name="height").to_zarr(tmp_path / "lat.zarr", consolidated=False)
    with pytest.raises(ConfigurationError, match="wanted are"):
        ExtraSource(str(tmp_path / "lat.zarr"), HEIGHT).open(tiles()[0])


def test_times_have_to_ascend(tmp_path: Path) -> None:
    backscatter([day_of(1), day_of(0)], tmp_path / "s1.zarr")
    with pytest.raises(ConfigurationError, match="ascend"):
        ExtraSource(str(tmp_path / "s1.zarr"), BACKSCATTER, 3).open(tiles()[0])


def test_a_missing_store_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere\.zarr, channel height: not a Zarr store"):
        ExtraSource(str(tmp_path / "nowhere.zarr"), HEIGHT).open(tiles()[0])


def test_two_channels_of_one_name_are_refused(tmp_path: Path) -> None:
    grow(tmp_path, range(1))
    source = ExtraSource(str(tmp_path / "dem.zarr"), HEIGHT)
    with pytest.raises(ConfigurationError, match="each name once"):
        pack_area(plan_of(tmp_path), "twice", extra=(source, source))
