"""The checks before a map is published: each fails on what it is for, and only there."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from affine import Affine
from odc.geo.geobox import GeoBox

from storage.classes import CANOPY_CLASSES, NO_CLASS
from storage.location import Location, resolve
from storage.publish import Receipt
from storage.regions import cut_regions
from tasks.earth.canopy_product import MapSpec, write_map
from tasks.earth.gates import CHECKS, Checked, GateRules, check_map, score_seams
from tasks.earth.grid import Tile
from tasks.earth.last_map import find_last
from tasks.earth.layers import map_layers
from tasks.earth.mapping import CubePart, MapPlan
from tasks.earth.product import Lineage, publish_staged
from tasks.earth.staging import create_staging, write_staged_region
from tasks.errors import ChecksFailed

SHAPE = (512, 512)
GRID = GeoBox(SHAPE, Affine(10, 0, 614_400, 0, -10, 5_703_680), "EPSG:32630")
TILE = GeoBox((1024, 1024), GRID.affine, "EPSG:32630")
AREA: dict[str, Any] = {"type": "Polygon", "coordinates": [[[-1.3, 51.4], [-1.2, 51.4], [-1.2, 51.5], [-1.3, 51.4]]]}
PLAN = MapPlan(
    "", (CubePart(Tile("utm30n-10m", "x0060_y0556", TILE, (0, 1024, 0, 1024)), "S"),), GRID, GRID, AREA, (), None
)
VALUES = [land.value for land in CANOPY_CLASSES]


def day_number(day: str) -> int:
    return int(np.datetime64(day, "D").astype(int))


def layers(*, last_look: str = "2021-06-10", conifer_rows: int = 40, seed: int = 1) -> dict[str, np.ndarray]:
    """Return a whole map: rows of conifer on a field of noise."""
    canopy = np.random.default_rng(seed).integers(500, 1500, SHAPE)
    canopy[100 : 100 + conifer_rows] += 8000
    probability = np.stack([10_000 - canopy, canopy - canopy // 2 - canopy // 4, canopy // 2 + canopy // 4])
    return {
        "class": np.array([0, 1, 2], dtype=np.uint8)[probability.argmax(axis=0)],
        "probability": probability.astype(np.uint16),
        "canopy_probability": (10_000 - probability[0]).astype(np.uint16),
        "clear_count": np.full(SHAPE, 12, dtype=np.uint16),
        "last_clear_date": np.full(SHAPE, day_number(last_look), dtype=np.uint16),
    }


def spec_of(date: str = "2021-06-15", **changes: Any) -> MapSpec:
    lineage = Lineage((), {}, "ab", "cd", {"canopus": "0.1.0"}, "run", datetime(2025, 1, 1, tzinfo=UTC))
    return replace(MapSpec("canopy", "A map", "2020-01-01", date, GRID, CANOPY_CLASSES, lineage, AREA), **changes)


def stage(folder: Path, arrays: dict[str, np.ndarray], *, leave_out: int = 0) -> Location:
    location = resolve(folder)
    create_staging(location, GRID, map_layers(CANOPY_CLASSES))
    for region in list(cut_regions(SHAPE, 256))[leave_out:]:
        window = (region["y"], region["x"])
        write_staged_region(location, region, {name: values[(..., *window)] for name, values in arrays.items()})
    return location


def publish(warehouse: Path, staging: Location, spec: MapSpec) -> Receipt:
    return publish_staged(
        resolve(warehouse),
        spec.product,
        staging,
        rasters=spec.rasters,
        write=lambda folder, sources: write_map(folder, spec, sources),
    )


def check(folder: Path, arrays: dict[str, np.ndarray], *, warehouse: Path | None = None, **rules: Any) -> Checked:
    """Stage a map of 2021-06-15 and check it, beside what a warehouse holds."""
    spec, found = spec_of(), {}
    if warehouse is not None:
        root = resolve(warehouse)
        found = {
            "last": find_last(root, spec.product, classes=VALUES),
            "earlier": find_last(root, spec.product, classes=VALUES, same_day=False),
        }
    staging = stage(folder / "staging", arrays)
    return check_map(
        PLAN, spec.product, spec.classes, staging=staging, rules=GateRules(**rules), last=found.get("last"),
        earlier=found.get("earlier"),
    )  # fmt: skip


def failed(checked: Checked) -> list[str]:
    return [found.name for found in checked.failed]


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A map of May, and a later version of June."""
    folder = tmp_path_factory.mktemp("gates")
    publish(folder / "w", stage(folder / "may", layers(last_look="2021-05-10")), spec_of("2021-05-15"))
    return folder / "w"


def test_a_sound_map_passes_every_check(tmp_path: Path, warehouse: Path) -> None:
    checked = check(tmp_path, layers(), warehouse=warehouse)
    assert failed(checked) == []
    assert [found.name for found in checked.checks] == ["structure", *CHECKS]
    assert checked.facts is not None
    assert checked.facts.counts == (512 * 472, 0, 512 * 40)
    assert checked.properties["canopus:seam_score"]["regions"]["pieces"] == 4
    # the map lies within one tile: what is said is of the borders that it has
    assert "over borders of regions" in next(found.sentence for found in checked.checks if found.name == "seams")
    checked.require()


@pytest.mark.parametrize(
    ("layer", "value"),
    [("class", 7), ("class", NO_CLASS), ("probability", 65535), ("clear_count", 0), ("probability", 5000)],
)
def test_one_pixel_that_cannot_be_fails_the_structure(tmp_path: Path, layer: str, value: int) -> None:
    arrays = layers()
    arrays[layer][..., 300, 77] = value
    checked = check(tmp_path, arrays, allow=CHECKS)
    assert failed(checked) == ["structure"]
    assert checked.failed[0].value == 1


def test_a_region_that_was_not_filled_fails_the_structure(tmp_path: Path) -> None:
    staging = stage(tmp_path / "staging", layers(), leave_out=1)
    spec = spec_of()
    checked = check_map(PLAN, spec.product, spec.classes, staging=staging, rules=GateRules())
    assert failed(checked) == ["structure"]
    with pytest.raises(ChecksFailed, match=r"65536 pixels of the product are in no finished region"):
        checked.require()


def test_too_few_pixels_with_a_class_fail(tmp_path: Path) -> None:
    arrays = layers()
    arrays["class"][200:], arrays["probability"][:, 200:] = NO_CLASS, 65535
    arrays["clear_count"][200:], arrays["last_clear_date"][200:] = 0, 0
    assert failed(check(tmp_path / "a", arrays)) == ["valid"]
    assert failed(check(tmp_path / "b", arrays, min_valid=0.39)) == []
    assert failed(check(tmp_path / "c", arrays, min_valid=None)) == []


def test_a_step_over_a_border_of_regions_fails(tmp_path: Path) -> None:
    arrays = layers()
    arrays["probability"][0, :, 256:] -= 400
    arrays["probability"][1, :, 256:] += 400
    checked = check(tmp_path / "a", arrays)
    assert failed(checked) == ["seams"]
    assert "over borders of regions" in checked.failed[0].sentence
    away = layers()
    away["probability"][0, :, 300:] -= 400
    away["probability"][1, :, 300:] += 400
    assert failed(check(tmp_path / "b", away)) == []


def test_a_step_is_seen_where_no_class_is_called_none() -> None:
    arrays = layers()
    arrays["probability"][0, :, 256:] -= 400
    arrays["probability"][1, :, 256:] += 400
    renamed = (replace(CANOPY_CLASSES[0], name="open"), *CANOPY_CLASSES[1:])
    found = score_seams(PLAN, spec_of().product, arrays, renamed)
    assert found["regions"]["ratio"] > 1.5
    assert found == score_seams(PLAN, spec_of().product, arrays, CANOPY_CLASSES)


def test_a_class_that_grows_too_fast_fails_against_the_last_map_only(tmp_path: Path, warehouse: Path) -> None:
    grown = layers(conifer_rows=60)
    checked = check(tmp_path / "a", grown, warehouse=warehouse)
    assert failed(checked) == ["drift"]
    assert checked.failed[0].value == pytest.approx(0.5)
    assert "conifer went from 20,480 to 30,720" in checked.failed[0].sentence
    assert failed(check(tmp_path / "b", grown)) == []
    assert failed(check(tmp_path / "c", grown, warehouse=warehouse, max_drift=0.5)) == []


def test_what_only_one_of_the_two_maps_shows_is_no_drift(tmp_path: Path, warehouse: Path) -> None:
    arrays = layers(conifer_rows=60)
    arrays["class"][120:160], arrays["probability"][:, 120:160] = NO_CLASS, 65535
    arrays["clear_count"][120:160], arrays["last_clear_date"][120:160] = 0, 0
    assert failed(check(tmp_path, arrays, warehouse=warehouse)) == []


def test_an_old_look_fails_the_freshness_of_the_day_asked(tmp_path: Path) -> None:
    assert failed(check(tmp_path / "a", layers(last_look="2021-06-10"), max_age_days=5)) == []
    assert failed(check(tmp_path / "b", layers(last_look="2021-06-09"), max_age_days=5)) == ["freshness"]
    late = check(tmp_path / "c", layers(last_look="2021-06-10"), max_age_days=5, asked="2021-07-01")
    assert "of 2021-06-10, is 21 days before 2021-07-01" in late.failed[0].sentence


def test_coverage_counts_what_was_seen_since_the_last_earlier_map(tmp_path: Path, warehouse: Path) -> None:
    arrays = layers(last_look="2021-05-10")
    nothing = check(tmp_path / "a", arrays, warehouse=warehouse)
    assert failed(nothing) == ["coverage"]
    assert nothing.nothing_new
    arrays["last_clear_date"][0, :5] = day_number("2021-06-01")
    assert not check(tmp_path / "few", arrays, warehouse=warehouse).nothing_new
    arrays["last_clear_date"][:10] = day_number("2021-06-01")
    little = check(tmp_path / "b", arrays, warehouse=warehouse)
    assert failed(little) == ["coverage"]
    assert not little.nothing_new
    assert little.failed[0].value == pytest.approx(10 / 512, abs=1e-4)
    assert failed(check(tmp_path / "c", arrays, warehouse=warehouse, min_seen=0.01)) == []


def test_what_is_allowed_by_hand_passes_and_is_on_record(tmp_path: Path) -> None:
    arrays = layers(last_look="2021-01-01")
    with pytest.raises(ChecksFailed, match=r"canopy-20210615-\w+ was not published: freshness: .* --allow freshness"):
        check(tmp_path / "a", arrays).require()
    checked = check(tmp_path / "b", arrays, allow=("freshness",))
    checked.require()
    record = {entry["name"]: entry for entry in checked.properties["canopus:checks"]}
    assert record["freshness"]["allowed"]
    assert not record["freshness"]["passed"]
    assert not record["seams"]["allowed"]


def test_the_last_map_is_of_the_same_area_and_classes_and_not_of_a_later_day(tmp_path: Path, warehouse: Path) -> None:
    root = resolve(warehouse)
    june = find_last(root, spec_of().product, classes=VALUES)
    assert june is not None
    assert june.date == "2021-05-15"
    assert june.areas_ha["conifer"] == pytest.approx(204.8)
    same = spec_of("2021-05-15", title="Another")
    again = find_last(root, replace(same.product, identity={"another": 1}), classes=VALUES)
    assert again is not None
    assert find_last(root, replace(same.product, identity={"another": 1}), classes=VALUES, same_day=False) is None
    for other in (
        find_last(root, spec_of("2021-05-15").product, classes=VALUES),
        find_last(root, spec_of("2021-05-14").product, classes=VALUES),
        find_last(root, spec_of(area={**AREA, "coordinates": [AREA["coordinates"][0][::-1]]}).product, classes=VALUES),
        find_last(root, spec_of(geobox=GRID[:256, :256]).product, classes=VALUES),
        find_last(root, spec_of(collection="another").product, classes=VALUES),
        find_last(root, spec_of().product, classes=[0, 1]),
    ):
        assert other is None
