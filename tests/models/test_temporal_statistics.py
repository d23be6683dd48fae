"""Statistics of a series, against plain formulas, known curves and every way of cutting a region."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.temporal_statistics import PERCENTILES, SEASONS, feature_names, temporal_statistics

BANDS = ("B02", "B03", "B04", "B08", "B8A", "B11")


def dates_of(times: int, every_days: int = 7) -> np.ndarray:
    return np.datetime64("2019-01-03") + every_days * np.arange(times)


def series(times: int = 60, pixels: int = 40, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    reflectance = rng.uniform(0.02, 0.5, (times, len(BANDS), pixels)).astype(np.float32)
    return reflectance, rng.random((times, pixels)) < 0.6, dates_of(times)


def column(features: np.ndarray, name: str, bands: tuple[str, ...] = BANDS) -> np.ndarray:
    return features[:, feature_names(bands).index(name)]


def test_percentiles_means_and_counts_are_those_of_numpy() -> None:
    reflectance, valid, dates = series()
    features = temporal_statistics(reflectance, valid, dates, BANDS)
    masked = np.where(valid[:, None], reflectance, np.nan)
    for q in PERCENTILES:
        expected = np.nanpercentile(masked[:, BANDS.index("B04")], q, axis=0)
        np.testing.assert_allclose(column(features, f"B04_p{q}"), expected, rtol=1e-5)
    np.testing.assert_array_equal(column(features, "looks"), valid.sum(axis=0))
    assert features.dtype == np.float32
    assert features.shape == (40, len(feature_names(BANDS)))


def test_seasonal_medians_take_the_months_of_their_season() -> None:
    reflectance, valid, dates = series()
    features = temporal_statistics(reflectance, valid, dates, BANDS)
    months = dates.astype("datetime64[M]").astype(int) % 12 + 1
    for season, its_months in SEASONS.items():
        of_season = np.isin(months, its_months)
        masked = np.where(valid[of_season], reflectance[of_season, BANDS.index("B11")], np.nan)
        np.testing.assert_allclose(column(features, f"B11_{season}"), np.nanmedian(masked, axis=0), rtol=1e-5)
        np.testing.assert_array_equal(column(features, f"looks_{season}"), valid[of_season].sum(axis=0))


def test_indices_are_taken_look_by_look_before_their_median() -> None:
    reflectance, valid, dates = series()
    features = temporal_statistics(reflectance, valid, dates, BANDS)
    red, nir, swir = (reflectance[:, BANDS.index(name)] for name in ("B04", "B08", "B11"))
    narrow = reflectance[:, BANDS.index("B8A")]
    for name, index in {
        "ndvi": (nir - red) / (nir + red),
        "evi2": 2.5 * (nir - red) / (nir + 2.4 * red + 1),
        "ndmi": (narrow - swir) / (narrow + swir),
    }.items():
        expected = np.nanmedian(np.where(valid, index, np.nan), axis=0)
        np.testing.assert_allclose(column(features, f"{name}_p50"), expected, rtol=1e-4, atol=1e-6)


def test_a_harmonic_curve_gives_back_its_coefficients() -> None:
    dates = dates_of(300, every_days=5)
    angle = 2 * np.pi * (dates - dates.astype("datetime64[Y]")).astype(int) / 365.25
    curve = 0.3 + 0.10 * np.cos(angle) - 0.05 * np.sin(angle) + 0.02 * np.cos(2 * angle)
    reflectance = np.repeat(curve[:, None, None], 1, axis=2).astype(np.float32)
    features = temporal_statistics(reflectance, np.ones((300, 1), bool), dates, ["B08"])
    expected = {"mean": 0.3, "cos1": 0.10, "sin1": -0.05, "cos2": 0.02, "sin2": 0.0, "amplitude1": np.hypot(0.1, 0.05)}
    for name, value in expected.items():
        assert column(features, f"B08_{name}", ("B08",))[0] == pytest.approx(value, abs=2e-3)
    assert column(features, "B08_residual", ("B08",))[0] < 2e-3


def test_haze_moves_the_harmonic_mean_less_than_a_plain_mean() -> None:
    times = 80
    clear = np.array([0.03, 0.05, 0.04, 0.35, 0.36, 0.15], np.float32)
    reflectance = np.repeat(clear[None, :, None], times, axis=0)
    hazy = np.random.default_rng(1).random(times) < 0.25
    reflectance[hazy] += np.array([0.20, 0.18, 0.16, 0.08, 0.08, 0.03], np.float32)[None, :, None]
    features = temporal_statistics(reflectance, np.ones((times, 1), bool), dates_of(times), BANDS)
    plain_error = abs(reflectance[:, 2].mean() - 0.04)
    assert abs(column(features, "B04_mean")[0] - 0.04) < 0.2 * plain_error
    assert column(features, "B04_p50")[0] == pytest.approx(0.04, abs=1e-6)


def test_invalid_and_missing_looks_do_not_count() -> None:
    reflectance, valid, dates = series()
    spoilt = np.where(valid[:, None], reflectance, 7.0).astype(np.float32)
    np.testing.assert_array_equal(
        temporal_statistics(spoilt, valid, dates, BANDS), temporal_statistics(reflectance, valid, dates, BANDS)
    )
    one_band_missing = reflectance.copy()
    one_band_missing[5, 2] = np.nan
    without = valid.copy()
    without[5] = False
    np.testing.assert_array_equal(
        temporal_statistics(one_band_missing, valid, dates, BANDS),
        temporal_statistics(reflectance, without, dates, BANDS),
    )


def test_a_pixel_without_looks_is_zero_and_an_empty_season_takes_the_overall_median() -> None:
    reflectance, valid, dates = series()
    valid[:, 3] = False
    summer = np.isin(dates.astype("datetime64[M]").astype(int) % 12 + 1, SEASONS["summer"])
    valid[summer, 4] = False
    features = temporal_statistics(reflectance, valid, dates, BANDS)
    assert not features[3].any()
    assert column(features, "looks_summer")[4] == 0
    assert column(features, "B04_summer")[4] == column(features, "B04_p50")[4]
    assert np.isfinite(features).all()


def test_dates_need_no_order() -> None:
    reflectance, valid, dates = series()
    order = np.random.default_rng(3).permutation(len(dates))
    shuffled = temporal_statistics(reflectance[order], valid[order], dates[order], BANDS)
    np.testing.assert_allclose(shuffled, temporal_statistics(reflectance, valid, dates, BANDS), atol=2e-6)


@settings(max_examples=20, deadline=None)
@given(start=st.integers(0, 150), length=st.integers(1, 150), jobs=st.sampled_from([1, 2]))
def test_any_cut_of_a_region_gives_the_same_bits(start: int, length: int, jobs: int) -> None:
    reflectance, valid, dates = series(pixels=300)
    whole = temporal_statistics(reflectance, valid, dates, BANDS)
    cut = slice(start, start + length)
    part = temporal_statistics(np.ascontiguousarray(reflectance[:, :, cut]), valid[:, cut], dates, BANDS, jobs=jobs)
    np.testing.assert_array_equal(part, whole[cut])


@settings(max_examples=25, deadline=None)
@given(times=st.integers(0, 5), share=st.sampled_from([0.0, 0.3, 1.0]), level=st.sampled_from([0.0, -0.1, 0.5, 2.0]))
def test_features_are_always_finite(times: int, share: float, level: float) -> None:
    rng = np.random.default_rng(times)
    reflectance = np.full((times, len(BANDS), 7), level, np.float32)
    reflectance[rng.random(reflectance.shape) < 0.1] = np.nan
    features = temporal_statistics(reflectance, rng.random((times, 7)) < share, dates_of(times), BANDS)
    assert np.isfinite(features).all()


@pytest.mark.parametrize(
    "bands",
    [("B03", "B04", "B8A", "B11"), ("B02", "B03", "B04", "B08"), ("B08",), ("B11", "B12")],
)
def test_any_subset_of_bands_will_do(bands: tuple[str, ...]) -> None:
    rng = np.random.default_rng(0)
    reflectance = rng.random((20, len(bands), 5), dtype=np.float32)
    features = temporal_statistics(reflectance, np.ones((20, 5), bool), dates_of(20), bands)
    assert features.shape == (5, len(feature_names(bands)))
    assert len(set(feature_names(bands))) == len(feature_names(bands))


def test_red_edge_and_second_swir_bring_their_indices() -> None:
    names = feature_names(("B04", "B05", "B8A", "B11", "B12"))
    assert {"ndvi_p50", "ndmi_p50", "nbr_p50", "ndre_p50"} <= set(names)
    assert not any(name.startswith("ndwi") for name in names)


def test_shapes_that_do_not_fit_are_refused() -> None:
    reflectance, valid, dates = series()
    with pytest.raises(ValueError, match="do not fit together"):
        temporal_statistics(reflectance, valid[:, :-1], dates, BANDS)
    with pytest.raises(ValueError, match="time, band, pixel"):
        temporal_statistics(reflectance[0], valid, dates, BANDS)


def test_a_pixel_costs_less_than_a_plain_percentile_would() -> None:
    reflectance, valid, dates = series(pixels=4000)
    masked = np.where(valid[:, None], reflectance, np.nan)
    begin = time.perf_counter()
    np.nanpercentile(masked[:, :, :400], PERCENTILES, axis=0)
    of_percentiles = (time.perf_counter() - begin) / 400
    begin = time.perf_counter()
    temporal_statistics(reflectance, valid, dates, BANDS)
    assert (time.perf_counter() - begin) / 4000 < of_percentiles
