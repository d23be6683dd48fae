"""Recorded answers of the Planetary Computer and Earth Search, through the real client over real HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pystac
import pytest
from pystac_client import ItemSearch
from servers.replay import Recorded, Replay, read_cassette, replay

from tasks.earth.catalog_io import CatalogIO
from tasks.earth.stac import SearchResult, _client, _gather, _read_root, search
from tasks.errors import ConfigurationError
from tasks.limits import HttpLimits

LIMITS = HttpLimits(attempts=2, backoff_s=0.01, requests_per_s=10_000)
PLANETARY = "/api/stac/v1"
VERMONT = {
    "type": "Polygon",
    "coordinates": [[[-73.21, 43.99], [-73.21, 44.05], [-73.12, 44.05], [-73.12, 43.99], [-73.21, 43.99]]],
}
PLANETARY_ROOT = "test_client__TestAPI.test_instance"
SEARCH_ROOT = "test_cli__TestCLISearch.test_save_inprocess"


@pytest.fixture
def cassettes(shared_data: Path) -> Path:
    return shared_data / "eo" / "stac_recorded" / "cassettes"


@pytest.fixture
def server(cassettes: Path, names: tuple[str, ...]) -> Iterator[Replay]:
    with replay(*(cassettes / f"{name}.yaml" for name in names)) as running:
        yield running


def recording(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("names", [names], ids=[names[-1].rpartition(".")[2]])


def ask(url: str, collection: str, **changes: Any) -> SearchResult:
    question = {"geometry": None, "start": "2000-01-01", "end": "2030-01-01", "limits": LIMITS}
    return search(url, collection, **(question | changes))


@recording(PLANETARY_ROOT, "test_item_search__TestItemSearch.test_datetime_results")
def test_a_search_by_time_gives_all_sentinel_2_items_gzipped(server: Replay, cassettes: Path) -> None:
    span = {"start": "2019-01-01T00:00:01Z", "end": "2019-01-01T00:00:10Z"}
    results = [ask(server.url + PLANETARY, "sentinel-2-l2a", **span) for _ in range(2)]
    assert sum(len(result.items) for result in results) == 66
    name = "test_item_search__TestItemSearch.test_datetime_results.yaml"
    recorded = json.loads(read_cassette(cassettes / name)[0][1].text)["features"]
    assert {item.id for item in results[0].items} == {feature["id"] for feature in recorded}
    assert server.gzipped == 4
    method, path, body = server.requests[1]
    assert (method, path) == ("POST", f"{PLANETARY}/search")
    assert body["datetime"] == "2019-01-01T00:00:01Z/2019-01-01T00:00:10Z"
    assert body["collections"] == ["sentinel-2-l2a"]
    item = results[0].items[0]
    assert item.assets["B04"].href.startswith("https://sentinel2l2a01.blob.core.windows.net/")
    assert [item.id for item in results[0].items] == [item.id for item in results[1].items]


@recording(PLANETARY_ROOT, "test_item_search__TestItemSearch.test_datetime_results")
def test_clouds_are_asked_for_in_cql2_and_screened_here_too(server: Replay) -> None:
    result = ask(
        server.url + PLANETARY,
        "sentinel-2-l2a",
        start="2019-01-01T00:00:01Z",
        end="2019-01-01T00:00:10Z",
        max_cloud=30,
    )
    body = server.requests[1][2]
    assert body["filter"] == {"op": "<=", "args": [{"property": "eo:cloud_cover"}, 30]}
    assert body["filter-lang"] == "cql2-json"
    assert 0 < len(result.items) < 33
    assert all(item.properties["eo:cloud_cover"] <= 30 for item in result.items)


@recording(PLANETARY_ROOT, "test_item_search__TestItemSearch.test_result_paging")
def test_next_links_are_followed_with_their_tokens(server: Replay) -> None:
    result = ask(server.url + PLANETARY, "naip", geometry=VERMONT, page_size=10)
    assert (len(result.items), result.pages, result.duplicates) == (20, 2, 0)
    tokens = [body.get("token") for method, _, body in server.requests if method == "POST"]
    assert tokens == [None, "next:naip:vt_m_4307307_nw_18_060_20211029"]
    assert server.unanswered == []


@recording(PLANETARY_ROOT, "test_item_search__TestItemSearch.test_result_paging_max_items")
def test_three_pages_make_thirty_items(server: Replay) -> None:
    result = ask(server.url + PLANETARY, "naip")
    assert (result.received, result.pages) == (30, 3)
    assert list(result.items) == sorted(result.items, key=lambda item: (item.datetime, item.id))


@recording(PLANETARY_ROOT, "test_item_search__TestItemSearch.test_intersects_results")
def test_an_outline_is_sent_and_what_comes_meets_it(server: Replay) -> None:
    result = ask(server.url + PLANETARY, "naip", geometry=VERMONT)
    assert server.requests[1][2]["intersects"] == VERMONT
    assert (len(result.items), result.received) == (42, 42)
    some = ask(server.url + PLANETARY, "naip", geometry=VERMONT, start="2018-01-01", end="2018-12-31")
    assert {item.datetime.year for item in some.items if item.datetime} == {2018}


@recording(PLANETARY_ROOT, "test_item_search__TestItemSearchQuery.test_query_json_syntax")
def test_query_filters_pass_through_the_client(server: Replay) -> None:
    io = CatalogIO(LIMITS)
    root = _read_root(server.url + PLANETARY, io)
    asked = {"gsd": {"gte": 0, "lte": 1}}
    found = ItemSearch(
        f"{server.url}{PLANETARY}/search",
        client=_client(root, io),
        collections=["naip"],
        query=asked,
        bbox=[-73.21, 43.99, -73.12, 44.05],
    )
    gathered = _gather(found, root.href)
    assert server.requests[-1][2]["query"] == asked
    assert len(gathered.documents) == 42
    assert server.unanswered == []


@recording("test_cli__TestCLISearch.test_non_conformant_can_be_fixed_inprocess")
def test_a_server_without_conformance_classes_is_searched_and_its_count_held_against_it(server: Replay) -> None:
    result = ask(f"{server.url}/v0", "sentinel-s2-l2a-cogs", max_cloud=50)
    (item,) = result.items
    assert (item.id, item.properties["eo:cloud_cover"]) == ("S2B_20EPT_20250731_0_L2A", 0)
    assert item.assets["B04"].href.startswith("https://")
    assert not {"filter", "query"} & set(server.requests[1][2])
    assert (result.matched, result.complete) == (22_699_053, False)
    assert result.message == "1 different items came, the server counts 22699053"


@recording("test_client__TestConformsTo.test_changing_conforms_to_changes_behavior")
def test_a_collection_unknown_to_a_server_without_conformance_classes_is_named(server: Replay) -> None:
    with pytest.raises(ConfigurationError, match=r"'nothing' is not in the catalogue; there is .*sentinel-s2-l2a"):
        ask(f"{server.url}/v0", "nothing")


@recording(
    SEARCH_ROOT,
    "test_collection_search__TestCollectionSearch.test_matched",
    "test_client__test_get_collection_returns_none_if_not_found",
)
def test_a_collection_that_answers_404_is_named_with_those_there_are(server: Replay) -> None:
    empty = json.dumps({"type": "FeatureCollection", "features": [], "links": [], "numberMatched": 0})
    server.answers.append(
        Recorded("POST", "/v1/search", {"collections": ["foo"]}, 200, empty, "application/geo+json", is_gzip=True)
    )
    with pytest.raises(ConfigurationError, match=r"'foo' is not in the catalogue; there is .*sentinel-2-l2a"):
        ask(f"{server.url}/v1", "foo")
    assert ("GET", "/v1/collections/foo", {}) in server.requests
    assert server.unanswered == []


@recording(SEARCH_ROOT)
def test_other_collections_of_earth_search_come_whole_or_say_that_they_do_not(server: Replay) -> None:
    result = ask(f"{server.url}/v1", "cop-dem-glo-30")
    assert (len(result.items), result.matched, result.complete) == (10, 26_450, False)


@recording(SEARCH_ROOT, "test_item_search__test_fields")
def test_items_narrowed_to_a_few_fields_are_rejected_by_name(server: Replay) -> None:
    point = {"type": "Point", "coordinates": [-105.1019, 40.1672]}
    result = ask(f"{server.url}/v1", "sentinel-2-c1-l2a", geometry=point)
    assert result.items == ()
    assert len(result.rejected) == 10
    assert result.rejected[0].id == "S2C_T13TDE_20250729T180310_L2A"
    assert result.rejected[0].why == "not a whole STAC item: it has no assets"


def test_single_recorded_items_make_a_static_catalogue(shared_data: Path, tmp_path: Path) -> None:
    paths = sorted((shared_data / "eo" / "stac_recorded" / "items").glob("S2*.json"))
    items = [json.loads(path.read_text()) for path in paths]
    (tmp_path / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    span = {"start": "2019-01-01", "end": "2020-12-31"}
    old = ask(str(tmp_path / "items.json"), "sentinel-s2-l2a-cogs", **span)
    new = ask(str(tmp_path / "items.json"), "sentinel-2-l2a", **span)
    assert [item.id for item in (*old.items, *new.items)] == [
        "S2A_28QCH_20200714_0_L2A",
        "S2B_MSIL2A_20190629T212529_R043_T06VVN_20201006T080531",
    ]
    assert new.duplicates == 1
    assert all(isinstance(item, pystac.Item) and item.assets["B04"].href for item in (*old.items, *new.items))
