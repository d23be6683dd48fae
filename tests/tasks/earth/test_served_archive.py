"""The generated archive behind an API and a range server gives what it gives from its folder, faults or not."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pystac
import pytest
from servers.archive import serve_archive
from servers.range_server import KINDS, Faults
from servers.stac_api import Behaviour

from tasks.earth.simulate import SimulateConfig, simulate_archive
from tasks.earth.stac import SearchResult, search
from tasks.earth.transport import Access, open_asset
from tasks.limits import HttpLimits

LIMITS = HttpLimits(attempts=6, backoff_s=0.01, backoff_max_s=0.05, requests_per_s=10_000)
PASSING = Faults(seed=5, share=0.4, times=2, retry_after_s=0, slow_s=0.02)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generated") / "archive"
    simulate_archive(folder, SimulateConfig(size_km=1.0, years=0.6, layout="mixed"))
    return folder


def find(catalog: str | Path) -> SearchResult:
    return search(
        catalog, "sentinel-2-l2a", geometry=None, start="2020-01-01", end="2030-01-01", limits=LIMITS, page_size=3
    )


def facts(item: pystac.Item) -> dict:
    content = item.to_dict(include_self_link=False, transform_hrefs=False)
    assets = {name: Path(asset["href"]).name for name, asset in content["assets"].items()}
    return {"id": item.id, "properties": content["properties"], "geometry": content["geometry"], "assets": assets}


def read_all(found: SearchResult, access: Access) -> list[np.ndarray]:
    hrefs = [asset.href for item in found.items[:6] for asset in item.assets.values() if asset.href.endswith(".tif")]

    def read(href: str) -> np.ndarray:
        with open_asset(href, access) as dataset:
            return dataset.read()

    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(read, hrefs))


@pytest.mark.parametrize("faults", [None, PASSING], ids=["well", "faults"])
def test_items_and_pixels_are_those_of_the_folder(archive: Path, faults: Faults | None) -> None:
    expected = find(archive)
    pixels = read_all(expected, Access(catalog=str(archive)))
    with serve_archive(archive, faults=faults, behaviour=Behaviour(repeats=1)) as served:
        found = find(served.url)
        values = read_all(found, Access(limits=LIMITS, catalog=served.url))
        if faults:
            assert sum(served.files.counts[kind] for kind in KINDS) > 10
            assert sum(served.api.counts[kind] for kind in KINDS) > 0
    assert found.complete
    assert len(expected.items) > 5
    assert [facts(item) for item in found.items] == [facts(item) for item in expected.items]
    assert len(values) == len(pixels) > 50
    assert all(np.array_equal(one, other) for one, other in zip(values, pixels, strict=True))


def test_access_and_limits_travel_to_other_processes() -> None:
    access = Access(limits=LIMITS, catalog="https://host/stac", allowed_hosts=("host",))
    assert pickle.loads(pickle.dumps(access)) == access
