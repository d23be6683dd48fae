"""The real Romanian series goes in bit by bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from factories import romania_grids, write_romania
from ingest_cases import ingest, request_of

from storage.cube import open_cube
from storage.location import resolve

BANDS = ("B02", "B03", "B04", "B08", "B8A", "B11")
TEN_METRES = ("B02", "B03", "B04", "B08")


def check_series(folder: Path, shared: Path, dates: slice) -> None:
    """Ingest the series, and compare every value of every band and of SCL with the original files."""
    grids = romania_grids()
    archive = write_romania(folder / "archive", shared.parent, dates=dates)
    area = grids[10].extent.to_crs("EPSG:4326", resolution=100).json
    request = request_of(archive.catalog, folder / "warehouse", area=dict(area), crs="EPSG:3035", bands=BANDS)
    done = ingest(request)
    assert {row.state for row in done.rows} == {"ingested"}
    ten = xr.open_dataset(shared / "s2_romania_forest/s2_10m.nc", mask_and_scale=False).isel(time=dates)
    twenty = xr.open_dataset(shared / "s2_romania_forest/s2_20m.nc", mask_and_scale=False).isel(time=dates)
    seen = np.zeros(grids[10].shape, dtype=int)
    for report in done.reports:
        cube = open_cube(
            resolve(folder / "warehouse") / report.tile, chunks={"time": 8, "band": -1, "y": 256, "x": 256}
        )
        assert [str(day)[:10] for day in cube["time"].values] == [str(day)[:10] for day in ten["time"].values]
        # cut the part of the chip that this tile holds out of both
        column = round((grids[10].affine.c - float(cube["x"][0]) + 5) / 10)
        row = round((float(cube["y"][0]) + 5 - grids[10].affine.f) / 10)
        part = (
            slice(max(0, -row), min(100, cube.sizes["y"] - row)),
            slice(max(0, -column), min(70, cube.sizes["x"] - column)),
        )
        window = cube.isel(
            y=slice(part[0].start + row, part[0].stop + row), x=slice(part[1].start + column, part[1].stop + column)
        )
        values = window["reflectance"].values
        stored = np.where(np.isnan(values), 0, np.round(values * 1e4)).astype(np.uint16)
        for band in TEN_METRES:
            np.testing.assert_array_equal(stored[:, BANDS.index(band)], ten[band].values[:, part[0], part[1]], band)
        for band in ("B8A", "B11"):
            fine = twenty[band].values.repeat(2, axis=1).repeat(2, axis=2)
            np.testing.assert_array_equal(stored[:, BANDS.index(band)], fine[:, part[0], part[1]], band)
        np.testing.assert_array_equal(window["scl"].values, ten["SCL"].values[:, part[0], part[1]])
        seen[part] += 1
    assert (seen == 1).all()


def test_a_year_of_the_series_goes_in_bit_by_bit(shared_data: Path, tmp_path: Path) -> None:
    check_series(tmp_path, shared_data / "eo", slice(0, 12))


@pytest.mark.slow
def test_all_106_dates_go_in_bit_by_bit(shared_data: Path, tmp_path: Path) -> None:
    check_series(tmp_path, shared_data / "eo", slice(None))
