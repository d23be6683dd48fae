"""The weights that come with the package: their size, their cards, and what they score where they never were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from scipy.ndimage import binary_dilation

from storage.location import resolve
from tasks.earth.forecast_protocol import PixelSeries, ScoringRule, asking, series_of
from tasks.earth.forecast_scores import evaluate_arrays
from tasks.earth.forecasters import open_forecaster
from tasks.earth.model_files import load_network
from tasks.earth.model_folders import SHIPPED

NAMES = ("earthpt-small", "earthpt-distilled")
BANDS = ("B02", "B03", "B04", "B08")


@pytest.mark.parametrize(("name", "most_bytes"), [("earthpt-small", 16_000_000), ("earthpt-distilled", 1_000_000)])
def test_weights_are_small_and_open_without_a_warehouse(name: str, most_bytes: int, tmp_path: Path) -> None:
    network = load_network(resolve(tmp_path), name)
    assert network.kind == "earthpt"
    assert (Path(str(SHIPPED)) / name / "weights.safetensors").stat().st_size < most_bytes


def test_the_distilled_one_has_about_a_fifth_of_a_million_parameters(tmp_path: Path) -> None:
    model = load_network(resolve(tmp_path), "earthpt-distilled").model
    assert 150_000 < sum(parameter.numel() for parameter in model.parameters()) < 250_000


@pytest.mark.parametrize("name", NAMES)
def test_the_card_says_what_it_was_trained_on_and_what_it_scores(name: str) -> None:
    card = (Path(str(SHIPPED)) / name / "card.md").read_text()
    seen = {"earthpt-small": "800 generated places", "earthpt-distilled": "seeds 101 to 104"}
    for word in ("## Training", seen[name], "no real look", "## Scores", "phase_folded", "## Limits"):
        assert word in card


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_without_any_tuning_it_forecasts_a_real_place(name: str, shared_data: Path, tmp_path: Path) -> None:
    rule = ScoringRule(tuple(np.datetime64(f"2019-{month:02d}-01") for month in range(1, 8)))
    forecaster = open_forecaster(resolve(tmp_path), name)
    scores = evaluate_arrays(_romania(shared_data), asking(forecaster), rule, quantiles=forecaster.quantiles)
    report = scores.report()
    found = report["indices"]["ndvi"]
    floors = [found[floor] for floor in ("phase_folded", "window_median", "last_year", "harmonic", "persistence")]
    assert found["model"]["mae"] < min(floor["mae"] for floor in floors)
    # the small one is below every floor by half of what is aimed at, the distilled one near them
    margin = {"earthpt-small": 0.95, "earthpt-distilled": 1.05}[name]
    assert found["model"]["median"] < margin * min(floor["median"] for floor in floors)
    assert 0.75 <= report["interval_coverage"]["overall"] <= 0.85
    assert report["pinball"]["ndvi"]["model"] < 0.9 * report["pinball"]["ndvi"]["window_quantiles"]


def _romania(shared: Path) -> PixelSeries:
    """Return every fifteenth pixel of the Romanian series."""
    with xr.open_dataset(shared / "eo/s2_romania_forest/s2_10m.nc", mask_and_scale=False) as data:
        stored = np.stack([data[band].values for band in BANDS], axis=1)
        clear = np.isin(data["SCL"].values, (4, 5, 6))
        dates = data["time"].values.astype("datetime64[D]")
    valid = ~np.stack([binary_dilation(~look, np.ones((5, 5), bool)) for look in clear])
    reflectance = (stored.reshape(*stored.shape[:2], -1)[..., ::15] * np.float32(1e-4)).astype(np.float32)
    parts = {"valid": valid, "clear": clear}
    flat = {name: part.reshape(len(dates), -1)[:, ::15] for name, part in parts.items()}
    return series_of(reflectance, BANDS, dates=dates, **flat)
