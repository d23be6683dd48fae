"""A search gives the same items from an API of any kind and from files, and says when something is amiss."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pystac
import pytest
from servers.range_server import Faults, serve_folder
from servers.stac_api import Behaviour, serve_catalog

from tasks.earth.stac import SearchResult, search
from tasks.errors import ConfigurationError, SourceRejected, SourceUnavailable
from tasks.limits import HttpLimits

LIMITS = HttpLimits(attempts=4, backoff_s=0.01, backoff_max_s=0.05, requests_per_s=10_000)
COLLECTION = "sentinel-2-l2a"
AREA = {"type": "Polygon", "coordinates": [[[11.0, 46.0], [11.2, 46.0], [11.2, 46.2], [11.0, 46.2], [11.0, 46.0]]]}
FIRST = datetime(2023, 1, 1, 10, 10, 31, 24000, tzinfo=UTC)


def make_item(number: int) -> pystac.Item:
    """Return item `number`: 5 days after the last, clouds 0 to 95 %; every 7th elsewhere, every 10th without clouds."""
    west = 20.0 if number % 7 == 6 else 10.9
    ring = [[west, 45.9], [west + 0.2, 45.9], [west + 0.2, 46.1], [west, 46.1], [west, 45.9]]
    item = pystac.Item(
        id=f"S2A_32TPS_{number:03d}",
        geometry={"type": "Polygon", "coordinates": [ring]},
        bbox=[west, 45.9, west + 0.2, 46.1],
        datetime=FIRST + timedelta(days=5 * number),
        properties={} if number % 10 == 9 else {"eo:cloud_cover": float(number * 37 % 96)},
    )
    item.add_asset("red", pystac.Asset(href=f"./{item.id}_B04.tif"))
    return item


def wanted(*, max_cloud: float | None = None, last: int = 59) -> list[str]:
    numbers = (n for n in range(last + 1) if n % 7 != 6)
    if max_cloud is not None:
        numbers = (n for n in numbers if n % 10 != 9 and n * 37 % 96 <= max_cloud)
    return [f"S2A_32TPS_{n:03d}" for n in numbers]


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    extent = pystac.Extent(pystac.SpatialExtent([[10, 45, 12, 47]]), pystac.TemporalExtent([[FIRST, None]]))
    root = pystac.Catalog("archive", "An archive")
    collection = pystac.Collection(COLLECTION, "Level 2A", extent, license="other")
    root.add_children([collection, pystac.Collection("landsat-c2-l2", "Landsat", extent, license="other")])
    collection.add_items([make_item(n) for n in reversed(range(60))])
    folder = tmp_path_factory.mktemp("catalog")
    root.normalize_and_save(str(folder), pystac.CatalogType.SELF_CONTAINED)
    return folder


@pytest.fixture
def behaviour() -> Behaviour:
    return Behaviour()


@pytest.fixture
def api(catalog: Path, behaviour: Behaviour) -> Iterator[Any]:
    with serve_catalog(catalog, lambda path: f"http://127.0.0.1:1/{path.name}", behaviour) as running:
        yield running


def ask(where: str | Path, **changes: Any) -> SearchResult:
    question: dict[str, Any] = {
        "geometry": AREA, "start": date(2023, 1, 1), "end": date(2023, 12, 31), "limits": LIMITS, "page_size": 20,
    }  # fmt: skip
    return search(where, changes.pop("collection", COLLECTION), **(question | changes))


def ids(result: SearchResult) -> list[str]:
    return [item.id for item in result.items]


def behaving(**options: Any) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("behaviour", [Behaviour(**options)], ids=[" ".join(options)])


class TestApi:
    def test_pages_are_followed_to_the_end_and_counted(self, api: Any) -> None:
        result = ask(api.url)
        assert ids(result) == wanted()
        assert (result.matched, result.received, result.pages, result.complete) == (52, 52, 3, True)
        assert result.newest == FIRST + timedelta(days=5 * 59)
        assert result.source == api.url

    @pytest.mark.parametrize(
        ("behaviour", "method", "sent"),
        [
            (Behaviour(), "POST", "filter"),
            (Behaviour(methods=("GET",)), "GET", "filter"),
            (Behaviour(filters=("query",)), "POST", "query"),
            (Behaviour(filters=("query",), methods=("GET",)), "GET", "query"),
            (Behaviour(filters=()), "POST", None),
            (Behaviour(conformance=False), "POST", None),
            (Behaviour(conformance=False, methods=("GET",), filters=()), "GET", None),
        ],
        ids=str,
    )
    def test_every_kind_of_server_gives_the_same_cloud_screened_items(
        self, api: Any, method: str, sent: str | None
    ) -> None:
        result = ask(api.url, max_cloud=40)
        assert ids(result) == wanted(max_cloud=40)
        assert result.complete
        assert {entry["method"] for entry in api.searches} == {method}
        assert all((name in entry) == (name == sent) for entry in api.searches for name in ("filter", "query"))

    @behaving(counts=False)
    def test_a_server_that_does_not_count_is_taken_at_its_word(self, api: Any) -> None:
        result = ask(api.url)
        assert (ids(result), result.matched, result.complete) == (wanted(), None, True)

    @behaving(largest_page=7)
    def test_a_server_that_sends_smaller_pages_than_asked_for_is_read_to_the_end(self, api: Any) -> None:
        assert ids(ask(api.url)) == wanted()

    @behaving(repeats=3)
    def test_items_that_come_twice_are_kept_once_and_counted(self, api: Any) -> None:
        result = ask(api.url)
        assert ids(result) == wanted()
        assert result.duplicates == 6
        assert result.complete

    @behaving(lost=5)
    def test_fewer_items_than_the_server_counts_are_noticed(self, api: Any) -> None:
        result = ask(api.url)
        assert not result.complete
        assert result.message == "47 different items came, the server counts 52"

    @behaving(circles=True, counts=False)
    def test_paging_in_a_circle_ends(self, api: Any) -> None:
        result = ask(api.url)
        assert ids(result) == wanted()
        assert not result.complete
        assert "repeat" in result.message

    def test_an_unknown_collection_names_those_there_are(self, api: Any) -> None:
        with pytest.raises(ConfigurationError, match=r"'sentinel-2-l1c' is not in .* landsat-c2-l2, sentinel-2-l2a"):
            ask(api.url, collection="sentinel-2-l1c")

    def test_a_page_of_an_api_in_place_of_its_root_is_refused_with_advice(self, api: Any) -> None:
        for page in ("/search?limit=5", f"/collections/{COLLECTION}/items"):
            with pytest.raises(ConfigurationError, match="one page of a STAC API, not its root"):
                ask(api.url + page)

    def test_no_items_are_no_error_in_a_collection_that_is_there(self, api: Any) -> None:
        result = ask(api.url, start="2030-01-01", end="2030-02-01")
        assert (result.items, result.newest, result.complete) == ((), None, True)

    def test_a_long_outline_goes_into_a_get_by_its_box_and_is_then_cut_out(self, catalog: Path) -> None:
        steps = [i / 200 for i in range(201)]
        wedge = [[11.0, 46.0], *[[11.0 + 8.9 * s, 46.0 + 0.09 * s] for s in steps], [19.9, 46.2], [11.0, 46.0]]
        with serve_catalog(catalog, str, Behaviour(methods=("GET",))) as api:
            result = ask(api.url, geometry={"type": "Polygon", "coordinates": [wedge]})
            assert "bbox" in api.searches[0]
        assert ids(result) == wanted()


class TestFiles:
    @pytest.mark.parametrize("form", ["folder", "file", "url", "collection", "http"])
    def test_a_static_catalogue_gives_what_the_api_gives(self, catalog: Path, api: Any, form: str) -> None:
        with serve_folder(catalog) as server:
            where: dict[str, str | Path] = {
                "folder": catalog,
                "file": str(catalog / "catalog.json"),
                "url": (catalog / "catalog.json").as_uri(),
                "collection": catalog / COLLECTION / "collection.json",
                "http": server.url_of("catalog.json"),
            }
            for max_cloud in (None, 40.0):
                result = ask(where[form], max_cloud=max_cloud)
                assert ids(result) == ids(ask(api.url, max_cloud=max_cloud)) == wanted(max_cloud=max_cloud)
                assert result.complete

    def test_asset_hrefs_are_absolute(self, catalog: Path) -> None:
        item = ask(catalog).items[0]
        expected = catalog / COLLECTION / item.id / f"{item.id}_B04.tif"
        assert Path(item.assets["red"].href) == expected.resolve()
        with serve_folder(catalog) as server:
            item = ask(server.url_of("catalog.json")).items[0]
            assert item.assets["red"].href == server.url_of(expected)

    def test_a_single_file_of_features_is_a_catalogue(self, catalog: Path, tmp_path: Path) -> None:
        features = [make_item(n).to_dict() | {"collection": COLLECTION} for n in range(5)]
        (tmp_path / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
        assert ids(ask(tmp_path / "items.json")) == wanted(last=4)
        with pytest.raises(ConfigurationError, match="there is sentinel-2-l2a"):
            ask(tmp_path / "items.json", collection="other")

    def test_items_that_are_missing_or_broken_are_named_and_the_others_come(
        self, catalog: Path, tmp_path: Path
    ) -> None:
        copy = tmp_path / "copy"
        pystac.Catalog.from_file(str(catalog / "catalog.json")).full_copy().normalize_and_save(
            str(copy), pystac.CatalogType.SELF_CONTAINED
        )
        names = [f"S2A_32TPS_{n:03d}" for n in (0, 1, 2)]
        paths = [copy / COLLECTION / name / f"{name}.json" for name in names]
        paths[0].unlink()
        paths[1].write_text("{ half")
        paths[2].write_text('{"type": "Feature", "id": "S2A_32TPS_002"}')
        result = ask(copy)
        assert ids(result) == wanted()[3:]
        assert len(result.rejected) == 3
        assert any("does not exist" in entry.why for entry in result.rejected)
        assert {"S2A_32TPS_002"} <= {entry.id for entry in result.rejected}

    def test_an_unknown_collection_names_those_there_are(self, catalog: Path) -> None:
        with pytest.raises(ConfigurationError, match="there is landsat-c2-l2, sentinel-2-l2a"):
            ask(catalog, collection="nothing")

    @pytest.mark.parametrize(
        ("content", "message"),
        [(None, "does not exist"), ("<html>", "is not JSON"), ('{"a": 1}', "not a STAC catalogue")],
    )
    def test_a_file_that_is_no_catalogue_is_named(self, tmp_path: Path, content: str | None, message: str) -> None:
        if content is not None:
            (tmp_path / "catalog.json").write_text(content)
        with pytest.raises(ConfigurationError, match=message):
            ask(tmp_path / "catalog.json")

    def test_links_that_lead_in_circles_end(self, catalog: Path, tmp_path: Path) -> None:
        root = json.loads((catalog / "catalog.json").read_text())
        root["links"] += [{"rel": "child", "href": "./catalog.json"}, {"rel": "child", "href": "./other.json"}]
        (tmp_path / "catalog.json").write_text(json.dumps(root))
        (tmp_path / "other.json").write_text(json.dumps(root))
        for folder in (COLLECTION, "landsat-c2-l2"):
            (tmp_path / folder).symlink_to(catalog / folder)
        assert ids(ask(tmp_path)) == wanted()

    def test_an_empty_folder_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match=r"no catalog\.json"):
            ask(tmp_path)

    def test_a_catalogue_on_the_network_may_not_link_to_local_files(self, catalog: Path, tmp_path: Path) -> None:
        collection = json.loads((catalog / COLLECTION / "collection.json").read_text())
        collection["links"] = [{"rel": "item", "href": (catalog / COLLECTION / "x.json").as_uri()}]
        (tmp_path / "collection.json").write_text(json.dumps(collection))
        with serve_folder(tmp_path) as server:
            result = ask(server.url_of("collection.json"))
        assert result.items == ()
        assert "names a local file" in result.rejected[0].why


class TestTrouble:
    def test_faults_pass_and_leave_no_trace(self, catalog: Path) -> None:
        with serve_folder(catalog, Faults(seed=2, share=0.5, times=2, retry_after_s=0, slow_s=0.01)) as server:
            result = ask(server.url_of("catalog.json"))
            assert sum(server.counts.values()) - server.counts["answered"] > 30
        assert ids(result) == wanted()
        assert result.rejected == ()

    def test_a_server_that_stays_down_is_unavailable(self, catalog: Path) -> None:
        with serve_folder(catalog) as server:
            server.never.add(f"{COLLECTION}/S2A_32TPS_005/S2A_32TPS_005.json")
            with pytest.raises(SourceUnavailable, match="S2A_32TPS_005"):
                ask(server.url_of("catalog.json"))
        with pytest.raises(SourceUnavailable, match="no connection"):
            ask("http://127.0.0.1:9/stac")

    def test_web_pages_missing_pages_and_closed_doors_are_told_apart(self, catalog: Path) -> None:
        with serve_folder(catalog, Faults(share=1.0, times=99, kinds=("html",))) as server:
            with pytest.raises(ConfigurationError, match="something else than a STAC"):
                ask(server.url_of("catalog.json"))
            assert len(server.requests) == 3
        with serve_folder(catalog) as server:
            with pytest.raises(ConfigurationError, match="404"):
                ask(server.url_of("nothing.json"))
            server.statuses["catalog.json"] = 401
            with pytest.raises(SourceRejected, match="401"):
                ask(server.url_of("catalog.json"))

    @pytest.mark.parametrize("status", [200, 401, 404, 503])
    def test_what_is_secret_in_an_address_reaches_neither_messages_nor_logs(
        self, catalog: Path, caplog: pytest.LogCaptureFixture, status: int
    ) -> None:
        caplog.set_level(logging.DEBUG)
        said = ""
        with serve_folder(catalog) as server:
            if status != 200:
                server.statuses["catalog.json"] = status
            try:
                said = repr(ask(server.url_of("catalog.json") + "?key=secret").source)
            except (SourceRejected, SourceUnavailable, ConfigurationError) as error:
                said = f"{error} {error.__cause__}"
        assert "catalog.json" in said
        assert "secret" not in said + caplog.text

    @pytest.mark.parametrize("where", ["ftp://host/catalog.json", "s3://bucket/catalog.json"])
    def test_other_schemes_are_refused(self, where: str) -> None:
        with pytest.raises(ConfigurationError, match="neither https, http, file nor a path"):
            ask(where)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"start": "2024-01-01", "end": "2023-01-01"}, "lies before"),
            ({"start": "spring"}, "start: 'spring' is not a date"),
            ({"max_cloud": 140}, "not a percentage"),
            (
                {"geometry": {"type": "Polygon", "coordinates": [[[5e5, 5e6], [6e5, 5e6], [6e5, 6e6], [5e5, 5e6]]]}},
                "4326",
            ),
            ({"geometry": {"type": "Nonsense"}}, "not a GeoJSON geometry"),
        ],
    )
    def test_questions_that_make_no_sense_are_refused(self, catalog: Path, changes: dict, message: str) -> None:
        with pytest.raises(ConfigurationError, match=message):
            ask(catalog, **changes)


def test_both_ends_of_the_time_span_are_included(catalog: Path) -> None:
    assert len(ids(ask(catalog, start="2023-01-01", end="2023-01-01"))) == 1
    assert len(ids(ask(catalog, start=FIRST, end=FIRST + timedelta(days=5)))) == 2
    assert ids(ask(catalog, start=FIRST + timedelta(seconds=1), end=FIRST + timedelta(days=4))) == []
