from __future__ import annotations

import numpy as np
import pytest
import zarr
from affine import Affine
from odc.geo.geobox import GeoBox

from storage.classes import CANOPY_CLASSES, CANOPY_OR_NOT
from storage.errors import NotFound, RegionMisaligned, SchemaMismatch
from storage.location import Location, resolve
from storage.regions import Region, cut_regions, region_key
from tasks.earth.layers import map_layers
from tasks.earth.staging import (
    create_staging,
    missing_pixels,
    open_staging,
    staged_regions_done,
    write_staged_region,
)

LAYERS = map_layers(CANOPY_CLASSES)
GEOBOX = GeoBox((512, 600), Affine(10, 0, 399360, 0, -10, 5130240), "EPSG:32633")
REGIONS = list(cut_regions((512, 600), 256))


def arrays_for(region: Region, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    shape = tuple(region[axis].stop - region[axis].start for axis in ("y", "x"))
    first = random.integers(0, 5001, shape)
    second = random.integers(0, 5000, shape)
    return {
        "class": random.integers(0, 3, shape).astype("uint8"),
        "probability": np.stack([first, second, 10000 - first - second]).astype("uint16"),
        "canopy_probability": (10000 - first).astype("uint16"),
        "clear_count": random.integers(0, 99, shape).astype("uint16"),
        "last_clear_date": random.integers(20000, 20100, shape).astype("uint16"),
    }


@pytest.fixture
def staging(tmp_path) -> Location:
    location = resolve(tmp_path / "staging")
    create_staging(location, GEOBOX, LAYERS)
    return location


def test_what_was_written_is_read_and_marked(staging: Location):
    assert staged_regions_done(staging) == set()
    for index, region in enumerate(REGIONS):
        write_staged_region(staging, region, arrays_for(region, index))
    assert staged_regions_done(staging) == {region_key(region) for region in REGIONS}
    geobox, arrays = open_staging(staging)
    assert geobox == GEOBOX
    last = REGIONS[-1]
    for name, values in arrays_for(last, len(REGIONS) - 1).items():
        np.testing.assert_array_equal(arrays[name][(..., last["y"], last["x"])], values)


def test_unwritten_pixels_are_nodata(staging: Location):
    _, arrays = open_staging(staging)
    for layer in LAYERS:
        assert (arrays[layer.name][:] == layer.nodata).all()


class Killed(BaseException):
    """Stands for kill -9."""


@pytest.mark.parametrize("writes", [0, 1, 2, 3])
def test_a_region_killed_between_its_layers_is_not_done_and_can_be_redone(
    staging: Location, monkeypatch: pytest.MonkeyPatch, writes: int
):
    write, left = zarr.Array.__setitem__, [writes]

    def dying(array: zarr.Array, selection, values) -> None:
        if not left[0]:
            raise Killed
        left[0] -= 1
        write(array, selection, values)

    with monkeypatch.context() as patch:
        patch.setattr(zarr.Array, "__setitem__", dying)
        with pytest.raises(Killed):
            write_staged_region(staging, REGIONS[1], arrays_for(REGIONS[1]))
    assert staged_regions_done(staging) == set()
    create_staging(staging, GEOBOX, LAYERS)  # what a rerun does first
    write_staged_region(staging, REGIONS[1], arrays_for(REGIONS[1]))
    assert staged_regions_done(staging) == {region_key(REGIONS[1])}


def test_creating_again_keeps_what_is_there_and_adds_arrays_a_killed_run_did_not_make(staging: Location):
    write_staged_region(staging, REGIONS[0], arrays_for(REGIONS[0]))
    staging.delete_tree("layers.zarr/last_clear_date")
    create_staging(staging, GEOBOX, LAYERS)
    _, arrays = open_staging(staging)
    assert set(arrays) == {"class", "probability", "canopy_probability", "clear_count", "last_clear_date"}
    np.testing.assert_array_equal(arrays["class"][:256, :256], arrays_for(REGIONS[0])["class"])


def test_missing_pixels_are_counted_within_the_window(staging: Location):
    window = {"y": slice(200, 512), "x": slice(250, 600)}
    assert missing_pixels(staging, window) == 312 * 350
    for region in REGIONS[:-1]:
        write_staged_region(staging, region, arrays_for(region))
    assert missing_pixels(staging, window) == 256 * (600 - 512)
    assert missing_pixels(staging, {"y": slice(0, 256), "x": slice(0, 600)}) == 0


def test_wrong_regions_and_arrays_are_refused(staging: Location):
    odd = {"y": slice(10, 256), "x": slice(0, 256)}
    with pytest.raises(RegionMisaligned):
        write_staged_region(staging, odd, arrays_for(odd))
    arrays = arrays_for(REGIONS[0])
    with pytest.raises(SchemaMismatch, match="class: expected uint8"):
        write_staged_region(staging, REGIONS[0], arrays | {"class": arrays["class"].astype("int64")})
    arrays.pop("clear_count")
    with pytest.raises(SchemaMismatch, match="layers"):
        write_staged_region(staging, REGIONS[0], arrays)
    assert staged_regions_done(staging) == set()


def test_a_place_taken_by_another_map_is_refused(staging: Location, tmp_path):
    with pytest.raises(SchemaMismatch, match="another grid"):
        create_staging(staging, GEOBOX, map_layers(CANOPY_OR_NOT))
    with pytest.raises(NotFound, match="nothing is staged"):
        open_staging(resolve(tmp_path / "nowhere"))
