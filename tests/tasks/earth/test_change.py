"""Change per pixel: a step gives its date; one bad look, one bad map or missing data give nothing; order is no matter."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tasks.earth.change import GAIN, LOSS, NONE, ChangeRules, Looks, MapSeries, find_changes, in_patches, map_step

DAYS = np.datetime64("2021-01-01") + 10 * np.arange(146)  # four years
FELLED = np.datetime64("2023-03-03")  # between two looks
MAP_DATES = np.array(
    [f"{year}-{month}" for year in range(2021, 2025) for month in ("03-31", "06-30", "09-30", "12-31")]
)
MAP_DATES = MAP_DATES.astype("datetime64[D]")[2:]
YEAR = np.timedelta64(364, "D")


def season(days: np.ndarray) -> np.ndarray:
    return np.cos(2 * np.pi * (days.astype("datetime64[D]").astype(int) - 200) / 365.25)


def looks_of(green: np.ndarray, *, noise: float = 0.01, valid: np.ndarray | None = None, seed: int = 1) -> Looks:
    """Return looks at one pixel whose greenness goes from 0 (bare) to 1 (dense)."""
    rng = np.random.default_rng(seed)
    shaken = green + rng.normal(0, noise, green.shape)
    bands = {
        "B02": 0.06 - 0.03 * shaken,
        "B04": 0.11 - 0.08 * shaken,
        "B08": 0.18 + 0.2 * shaken,
        "B12": 0.22 - 0.14 * shaken,
    }
    known = np.ones(green.shape, bool) if valid is None else valid
    return Looks({name: values[:, None].astype(np.float32) for name, values in bands.items()}, known[:, None], DAYS)


def maps_of(probability: np.ndarray, counts: int | np.ndarray = 12) -> MapSeries:
    clear = np.broadcast_to(np.asarray(counts), probability.shape)[:, None]
    return MapSeries(probability[:, None].astype(np.float32), clear, MAP_DATES - YEAR, MAP_DATES)


def forest() -> np.ndarray:
    return 0.8 + 0.15 * season(DAYS)


FELLING = np.where(DAYS > FELLED, 0.25 + 0.1 * season(DAYS), forest())
FALLING = np.where(FELLED + np.timedelta64(120, "D") < MAP_DATES, 0.05, 0.8)


def test_a_felled_wood_is_lost_on_its_day() -> None:
    found = find_changes(maps_of(FALLING), looks_of(FELLING))
    assert found.kind[0] == LOSS
    assert abs(found.date[0] - FELLED) <= np.timedelta64(5, "D")
    assert found.interval_days[0] <= 30
    assert found.confidence[0] > 0.9


@pytest.mark.parametrize("day", ["2021-11-20", "2022-07-07", "2023-12-24"])
def test_the_date_is_better_than_the_cadence_of_the_maps(day: str) -> None:
    felled = np.datetime64(day)
    green = np.where(felled < DAYS, 0.25 + 0.1 * season(DAYS), forest())
    probability = np.where(felled + np.timedelta64(150, "D") < MAP_DATES, 0.1, 0.7)
    found = find_changes(maps_of(probability), looks_of(green))
    assert found.kind[0] == LOSS
    assert abs(found.date[0] - felled) <= np.timedelta64(10, "D")


def test_a_wood_that_stays_is_no_change() -> None:
    found = find_changes(maps_of(np.full(len(MAP_DATES), 0.8)), looks_of(forest()))
    assert found.kind[0] == NONE
    assert found.confidence[0] == 0
    assert np.isnat(found.date[0])


@pytest.mark.parametrize("place", [0, 3, 70, 144, 145])
def test_one_bad_look_makes_no_change_whatever_the_maps_say(place: int) -> None:
    green = forest()
    green[place] = -0.2
    assert find_changes(maps_of(FALLING), looks_of(green)).kind[0] == NONE


@pytest.mark.parametrize("place", range(len(MAP_DATES)))
def test_one_bad_map_makes_no_change_whatever_the_looks_say(place: int) -> None:
    probability = np.full(len(MAP_DATES), 0.8)
    probability[place] = 0.0
    assert find_changes(maps_of(probability), looks_of(FELLING)).kind[0] == NONE


@pytest.mark.parametrize("bad", [2, 3])
def test_among_two_maps_on_a_side_one_bad_one_is_not_enough(bad: int) -> None:
    few = MapSeries(
        np.where(np.arange(4) == bad, 0.0, 0.8)[:, None].astype(np.float32),
        np.full((4, 1), 9),
        MAP_DATES[[4, 6, 9, 11]] - YEAR,
        MAP_DATES[[4, 6, 9, 11]],
    )
    assert find_changes(few, looks_of(FELLING)).kind[0] == NONE


def test_maps_alone_make_no_loss_and_looks_alone_make_none() -> None:
    assert find_changes(maps_of(FALLING), looks_of(forest())).kind[0] == NONE
    assert find_changes(maps_of(np.full(len(MAP_DATES), 0.8)), looks_of(FELLING)).kind[0] == NONE


def test_the_order_of_the_maps_does_not_matter() -> None:
    maps, looks = maps_of(FALLING), looks_of(FELLING)
    mixed = np.random.default_rng(3).permutation(len(MAP_DATES))
    other = MapSeries(maps.probability[mixed], maps.clear_count[mixed], maps.starts[mixed], maps.dates[mixed])
    one, two = find_changes(maps, looks), find_changes(other, looks)
    assert (one.kind[0], one.date[0], one.confidence[0]) == (two.kind[0], two.date[0], two.confidence[0])


def test_a_pixel_that_maps_and_looks_lost_sight_of_is_no_change() -> None:
    gone = np.where(MAP_DATES > FELLED, np.nan, 0.8)
    unseen = looks_of(FELLING, valid=DAYS <= FELLED)
    assert find_changes(maps_of(gone), looks_of(FELLING)).kind[0] == NONE
    assert find_changes(maps_of(FALLING), unseen).kind[0] == NONE
    nothing = looks_of(FELLING, valid=np.zeros(len(DAYS), bool))
    assert find_changes(maps_of(np.full(len(MAP_DATES), np.nan)), nothing).kind[0] == NONE


def test_a_map_of_too_few_looks_does_not_count() -> None:
    counts = np.where(MAP_DATES > FELLED, 2, 12)
    assert find_changes(maps_of(FALLING, counts), looks_of(FELLING)).kind[0] == NONE


def test_felling_that_maps_of_too_few_looks_hide_is_dated_by_the_looks() -> None:
    """Two maps of a cloudy winter do not count: felling may have been in either, or since the last that counts."""
    felled, cloud = (
        np.datetime64("2022-12-10"),
        (np.datetime64("2022-10-10") < DAYS) & (np.datetime64("2023-04-01") > DAYS),
    )
    seen = np.isin(np.arange(len(DAYS)), [np.flatnonzero(felled > DAYS)[-1], np.flatnonzero(felled < DAYS)[0]])
    green = np.where(felled < DAYS, 0.25 + 0.1 * season(DAYS), forest())
    counted = np.where((np.datetime64("2022-11-01") < MAP_DATES) & (np.datetime64("2023-04-15") > MAP_DATES), 1, 9)
    falling = maps_of(np.where(felled < MAP_DATES, 0.05, 0.8), counted)
    found = find_changes(
        replace(falling, starts=MAP_DATES - np.timedelta64(90, "D")), looks_of(green, valid=~cloud | seen)
    )
    assert found.kind[0] == LOSS
    assert abs(found.date[0] - felled) <= np.timedelta64(5, "D")


def test_two_looks_after_felling_are_too_few_and_those_of_one_day_are_one() -> None:
    after = np.flatnonzero(DAYS > FELLED)
    valid = np.ones(len(DAYS), bool)
    valid[after[2:]] = False
    assert find_changes(maps_of(FALLING), looks_of(FELLING, valid=valid)).kind[0] == NONE
    doubled = DAYS.copy()
    doubled[after[2]] = DAYS[after[1]]
    valid[after[2]] = True
    assert find_changes(maps_of(FALLING), replace(looks_of(FELLING, valid=valid), dates=doubled)).kind[0] == NONE
    assert find_changes(maps_of(FALLING), looks_of(FELLING, valid=valid)).kind[0] == LOSS


def rotation(until: np.datetime64) -> np.ndarray:
    """Return fields of another crop each year, ploughed in autumn, that become young trees."""
    year = DAYS.astype("datetime64[Y]").astype(int)
    crop = np.array([0.9, 0.5, 1.0, 0.7])[year % 4] * np.clip(season(DAYS + 40 * (year % 2)), 0, 1) - 0.1
    return np.where(until < DAYS, 0.6 + 0.12 * season(DAYS), crop)


def test_a_planted_field_is_gained_when_it_settles() -> None:
    planted = np.datetime64("2022-12-15")
    probability = np.where(planted + np.timedelta64(200, "D") < MAP_DATES, 0.25, 0.04)
    found = find_changes(maps_of(probability), looks_of(rotation(planted)))
    assert found.kind[0] == GAIN
    assert abs(found.date[0] - planted) <= np.timedelta64(60, "D")


def test_a_field_that_goes_on_is_no_gain_though_the_maps_rise() -> None:
    probability = np.where(np.datetime64("2023-06-01") < MAP_DATES, 0.15, 0.04)
    assert find_changes(maps_of(probability), looks_of(rotation(DAYS[-1]))).kind[0] == NONE


def test_trees_that_close_are_gained_between_the_maps() -> None:
    probability = np.where(np.datetime64("2023-01-01") < MAP_DATES, 0.9, 0.1)
    found = find_changes(maps_of(probability), looks_of(forest()))
    assert found.kind[0] == GAIN
    first = MAP_DATES[np.datetime64("2023-01-01") < MAP_DATES][0]
    assert first - YEAR - np.timedelta64(92, "D") <= found.date[0] <= first


def test_the_step_of_the_maps_is_between_medians_against_the_change() -> None:
    maps = maps_of(np.concatenate([np.full(7, 0.8), np.full(7, 0.1)]))
    step = map_step(maps, ChangeRules(), falls=True)
    assert step.size[0] == pytest.approx(0.7)
    assert (step.before[0], step.after[0]) == (pytest.approx(0.8), pytest.approx(0.1))
    assert step.first[0] == MAP_DATES[6] - YEAR
    assert step.last[0] == MAP_DATES[7]
    assert map_step(maps, ChangeRules(), falls=False).size[0] <= 0


def test_small_patches_are_left_out_and_diagonals_join() -> None:
    kind = np.zeros((6, 6), np.uint8)
    kind[0, 0] = kind[1, 1] = kind[2, 2] = LOSS
    kind[5, 5] = LOSS
    kind[0, 4:6] = GAIN
    kept = in_patches(kind, 3)
    assert kept.sum() == 3
    assert kept[1, 1]
    assert not in_patches(kind, 4).any()
