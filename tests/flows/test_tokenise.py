"""The tokenise flow under a real Prefect server: packs, adds what came since, and says so."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.testing.utilities import prefect_test_harness
from token_cases import CRS, area_of_pixels, grow, plan_of, series_in_cube, series_in_store

from flows.config import TokeniseConfig
from flows.tokenise import to_request, tokenise_earth
from storage.location import resolve
from storage.tokens import open_tokens

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def prefect() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=180):
        yield


def test_the_flow_packs_and_then_adds_what_came_since(tmp_path: Path) -> None:
    grow(tmp_path, range(10))
    area = tmp_path / "area.geojson"
    area.write_text(json.dumps(area_of_pixels()))
    config = TokeniseConfig(warehouse=str(tmp_path), aoi=str(area), crs=CRS, name="fields", steps=9, pixels=10**6)
    first = tokenise_earth(config)
    grow(tmp_path, [10])
    second = tokenise_earth(config)
    assert set(first.counts) == {"series new"}
    assert second.counts == {"series appended": first.counts["series new"]}
    store = open_tokens(resolve(tmp_path) / "tokens" / "fields")
    assert series_in_store(store) == series_in_cube(plan_of(tmp_path), 9)
    assert second.details["usable series"] == store.usable


def test_settings_reach_the_request(tmp_path: Path) -> None:
    config = TokeniseConfig(
        warehouse=str(tmp_path),
        aoi="-1,51,-0.9,51.1",
        name="fields",
        before="2021-03-04",
        holdout_blocks="5:1:20",
        extra=({"url": "s1/{tile}.zarr", "name": "vv", "unit": "dB", "offset": -12, "scale": 4, "tolerance_days": 6},),
    )
    request = to_request(config)
    assert request.before == "2021-03-04"
    assert request.holdout is not None
    assert (request.holdout.folds, request.holdout.fold, request.holdout.block) == (5, 1, 20)
    (extra,) = request.extra
    assert (extra.channel.name, extra.channel.unit, extra.channel.scale, extra.tolerance_days) == ("vv", "dB", 4.0, 6.0)
