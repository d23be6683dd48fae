"""Samples: allocated as asked, drawn evenly, written and read back, and good for estimates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from storage.classes import CANOPY_CLASSES, NO_CLASS
from tasks.earth.accuracy import ProbabilitySampleError, estimate_from_sample
from tasks.earth.sample import FIELDS, Allocation, Strata, allocate, draw_sample, pixels_of, read_sample, write_sample
from tasks.errors import ConfigurationError

GRID = GeoBox((100, 120), Affine(10, 0, 400_000, 0, -10, 5_500_000), "EPSG:32630")


def a_map(seed: int = 0) -> np.ndarray:
    """Return 100 x 120 pixels, about 80 % none, 15 % broadleaved, 5 % conifer; the last column is not mapped."""
    values = np.random.default_rng(seed).choice([0, 1, 2], (100, 120), p=[0.8, 0.15, 0.05]).astype(np.uint8)
    values[:, -1] = NO_CLASS
    return values


def draw(values: np.ndarray, allocation: Allocation, *, seed: int = 0, strata: Strata | None = None):  # type: ignore[no-untyped-def]
    return draw_sample(values, GRID, classes=CANOPY_CLASSES, allocation=allocation, seed=seed, strata=strata)


def test_units_lie_on_pixels_of_their_stratum_and_none_twice() -> None:
    values = a_map()
    sample = draw(values, Allocation(300))
    column = ((sample["x"] - 400_000) / 10 - 0.5).round(6).astype(int)
    row = ((5_500_000 - sample["y"]) / 10 - 0.5).round(6).astype(int)
    names = np.array(["none", "broadleaved", "conifer"])
    assert (names[values[row, column]] == sample["map_class"]).all()
    assert (sample["stratum"] == sample["map_class"]).all()
    assert not (row * 120 + column).duplicated().any()
    assert list(sample.columns) == [*FIELDS, "geometry"]
    assert (sample["reference"] == "").all()
    assert sample["pixel_area_m2"].eq(100).all()


def test_points_are_found_again_on_the_grid_they_were_drawn_from_and_on_a_part_of_it() -> None:
    values = a_map()
    sample = draw(values, Allocation(300)).to_crs("EPSG:4326")
    row, column = pixels_of(sample, GRID)
    assert (np.array(["none", "broadleaved", "conifer"])[values[row, column]] == sample["map_class"]).all()
    there = pixels_of(sample, GRID[30:60, 20:50])
    assert (there[0] == row - 30).all()
    assert (there[1] == column - 20).all()


def test_inclusion_probabilities_are_units_over_pixels() -> None:
    values = a_map()
    sample = draw(values, Allocation(300))
    for value, name in enumerate(("none", "broadleaved", "conifer")):
        units = sample[sample["stratum"] == name]
        assert len(units) == 100
        assert units["inclusion_probability"].tolist() == pytest.approx([100 / (values == value).sum()] * 100)
        assert (units["stratum_pixels"] == (values == value).sum()).all()


def test_the_same_seed_draws_the_same_sample_and_order_tells_nothing() -> None:
    one, same, other = (draw(a_map(), Allocation(90), seed=seed) for seed in (5, 5, 6))
    assert one.equals(same)
    assert not one["x"].equals(other["x"])
    assert one["stratum"].tolist() != sorted(one["stratum"])


def test_every_pixel_is_as_likely_as_its_probability_says() -> None:
    values = np.zeros((4, 5), np.uint8)
    values[2:] = 1
    grid = GRID[:4, :5]
    hits = np.zeros((4, 5))
    for seed in range(400):
        sample = draw_sample(values, grid, classes=CANOPY_CLASSES, allocation=Allocation(6, minimum=1), seed=seed)
        hits[((5_500_000 - sample["y"]) // 10).astype(int), ((sample["x"] - 400_000) // 10).astype(int)] += 1
    np.testing.assert_allclose(hits / 400, 0.3, atol=0.09)


def test_allocation_rules() -> None:
    pixels = {"none": 8000, "broadleaved": 1500, "conifer": 500}
    assert allocate(pixels, Allocation(300, "equal")) == {"none": 100, "broadleaved": 100, "conifer": 100}
    assert allocate(pixels, Allocation(200, "proportional", minimum=0)) == {
        "none": 160,
        "broadleaved": 30,
        "conifer": 10,
    }
    assert allocate(pixels, Allocation(200, "proportional", minimum=50))["conifer"] == 50
    # spread 0.1 x 8000 : 0.4 x 1500 : 0.5 x 500
    accuracy = {"none": 0.9898979, "broadleaved": 0.8, "conifer": 0.5}
    neyman = allocate(pixels, Allocation(165, "neyman", minimum=0, expected_accuracy=accuracy))
    assert neyman == {"none": 80, "broadleaved": 60, "conifer": 25}


@given(
    pixels=st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 400), min_size=1),
    size=st.integers(0, 600),
    rule=st.sampled_from(["equal", "proportional", "neyman"]),
    minimum=st.integers(0, 30),
)
def test_allocations_add_up_and_never_exceed_a_stratum(
    pixels: dict[str, int], size: int, rule: str, minimum: int
) -> None:
    allocation = Allocation(size, rule, minimum)  # type: ignore[arg-type]
    least = sum(min(minimum, count) for count in pixels.values())
    if size < least:
        with pytest.raises(ConfigurationError, match=f"at least {least}"):
            allocate(pixels, allocation)
        return
    units = allocate(pixels, allocation)
    assert sum(units.values()) == min(size, sum(pixels.values()))
    assert all(min(minimum, pixels[name]) <= units[name] <= pixels[name] for name in pixels)


def test_units_may_be_given_per_stratum() -> None:
    given_units = {"none": 40, "broadleaved": 30, "conifer": 20}
    sample = draw(a_map(), Allocation(per_stratum=given_units))
    assert sample["stratum"].value_counts().to_dict() == given_units
    with pytest.raises(ConfigurationError, match="strata of the map are none, broadleaved, conifer"):
        draw(a_map(), Allocation(per_stratum={"none": 40}))


def test_other_strata_keep_the_map_class_beside_them() -> None:
    zones = np.ones((100, 120), int)
    zones[:, 60:] = 2
    sample = draw(a_map(), Allocation(200), strata=Strata(zones, {1: "west", 2: "east"}))
    assert set(sample["stratum"]) == {"west", "east"}
    assert ((sample["x"] < 400_600) == (sample["stratum"] == "west")).all()
    assert set(sample["map_class"]) == {"none", "broadleaved", "conifer"}
    assert set(sample["stratum_pixels"]) == {6000, 5900}


def test_an_empty_map_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="nothing to sample"):
        draw(np.full((100, 120), NO_CLASS, np.uint8), Allocation(10))


@pytest.mark.parametrize("name", ["sample.gpkg", "sample.geojson", "sample.csv"])
def test_what_is_written_is_read(tmp_path: Path, name: str) -> None:
    sample = draw(a_map(), Allocation(90))
    write_sample(sample, tmp_path / name)
    again = read_sample(tmp_path / name)
    for column in FIELDS:
        if column in ("stratum", "map_class", "reference"):
            assert again[column].tolist() == sample[column].tolist()
        else:
            np.testing.assert_allclose(again[column], sample[column], rtol=1e-9)
    degrees = sample.to_crs("EPSG:4326").geometry
    np.testing.assert_allclose(again.geometry.x, degrees.x, atol=1e-7)
    np.testing.assert_allclose(again.geometry.y, degrees.y, atol=1e-7)
    assert again.crs == "EPSG:4326"


def test_a_sample_that_lost_its_design_is_refused(tmp_path: Path) -> None:
    sample = draw(a_map(), Allocation(90))
    write_sample(sample.drop(columns="inclusion_probability"), tmp_path / "a.gpkg")
    with pytest.raises(ProbabilitySampleError, match="lacks inclusion_probability"):
        read_sample(tmp_path / "a.gpkg")
    write_sample(sample.assign(id=1), tmp_path / "b.csv")
    with pytest.raises(ConfigurationError, match="id 1 occurs more than once"):
        read_sample(tmp_path / "b.csv")
    with pytest.raises(ConfigurationError, match="a sample is one of"):
        read_sample(tmp_path / "c.xlsx")
    with pytest.raises(ConfigurationError, match="not readable"):
        read_sample(tmp_path / "missing.gpkg")


@pytest.mark.parametrize("with_other_strata", [False, True])
def test_an_interpreted_sample_gives_the_true_area_within_its_interval(tmp_path: Path, with_other_strata: bool) -> None:
    truth = a_map(seed=1)
    mapped = np.where(np.random.default_rng(2).random(truth.shape) < 0.1, np.uint8(0), truth)
    zones = Strata((np.arange(120) // 40)[None].repeat(100, axis=0), {0: "a", 1: "b", 2: "c"})
    sample = draw(mapped, Allocation(1500), strata=zones if with_other_strata else None)
    column = ((sample["x"] - 400_000) // 10).astype(int)
    row = ((5_500_000 - sample["y"]) // 10).astype(int)
    sample["reference"] = np.array(["none", "broadleaved", "conifer"])[np.minimum(truth[row, column], 2)]
    write_sample(sample, tmp_path / "done.csv")
    found = estimate_from_sample(read_sample(tmp_path / "done.csv"), ("none", "broadleaved", "conifer"))
    assert found.method == ("stehman2014" if with_other_strata else "olofsson2014")
    population = mapped != NO_CLASS
    for value, share in enumerate(found.area_share):
        true_share = (np.minimum(truth, 2)[population] == value).mean()
        assert share.low <= true_share <= share.high
