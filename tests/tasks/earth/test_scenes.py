"""From an item to a scene: keys, versions, offsets, asset names, and what is refused by name."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from ingest_cases import a_scene, an_item

from storage.schema import SENTINEL2_BANDS
from tasks.earth.scenes import Scene, parse_scene
from tasks.errors import SourceRejected

FLAG = "earthsearch:boa_offset_applied"
STACKED = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B09", "B11", "B12")
BAND_ASSETS = {band: {"href": f"https://host/{band}.tif"} for band in SENTINEL2_BANDS}


def with_offsets(*offsets: float | None, scale: float = 1e-4) -> dict[str, dict[str, Any]]:
    """Return one asset for each of the first bands, declaring an offset."""
    assets = {band: dict(asset) for band, asset in BAND_ASSETS.items()}
    for band, offset in zip(assets, offsets, strict=False):
        if offset is not None:
            assets[band]["raster:bands"] = [{"nodata": 0, "scale": scale, "offset": offset}]
    return assets


def test_the_key_holds_no_baseline_so_a_reprocessed_scene_is_the_same_acquisition() -> None:
    old = parse_scene(an_item(**{"s2:datatake_id": "GS2A_20210501T105619_030589_N03.00"}))
    new = parse_scene(
        an_item(
            "S2A_30UXC_20210501_1_L2A",
            **{"s2:datatake_id": "GS2A_20210501T105619_030589_N05.00", "s2:processing_baseline": "05.00"},
        )
    )
    assert old.key == new.key == ("sentinel-2a", "30UXC", "GS2A_20210501T105619_030589", "20210501T105620")
    assert new.rank > old.rank


def test_two_datastrips_of_a_datatake_have_two_keys() -> None:
    strips = [f"S2A_OPER_MSI_L2A_DS_VGS4_20210501T140000_S20210501T{start}_N03.00" for start in ("105620", "105902")]
    one, other = (parse_scene(an_item(**{"s2:datastrip_id": strip})) for strip in strips)
    assert one.key[:3] == other.key[:3]
    assert one.key != other.key


def test_the_same_overpass_on_two_mgrs_tiles_has_two_keys() -> None:
    assert parse_scene(an_item(**{"s2:mgrs_tile": "30UXD"})).key != parse_scene(an_item()).key


def test_generation_times_of_both_catalogues_compare() -> None:
    earth_search = a_scene("a", generation_time="2021-05-01T19:13:10.000Z")
    planetary = a_scene("a", generation_time="20210501T191311")
    assert planetary.rank > earth_search.rank
    assert a_scene("a", generation_time="2021-05-01T19:13:10.000000Z").rank == earth_search.rank


def test_the_baseline_goes_before_the_generation_time() -> None:
    reprocessed_early = a_scene("a", baseline="05.00", generation_time="2021-05-02T00:00:00Z")
    old_made_late = a_scene("b", baseline="03.00", generation_time="2023-05-02T00:00:00Z")
    assert reprocessed_early.rank > old_made_late.rank


@pytest.mark.parametrize(
    ("stated", "expected"),
    [("05.09", "05.09"), ("2.12", "02.12"), ("04.00", "04.00"), ("5.1", "05.01"), ("latest", "00.00")],
)
def test_baselines_are_read_in_every_spelling(stated: str, expected: str) -> None:
    assert parse_scene(an_item(**{"s2:processing_baseline": stated})).baseline == expected


def test_product_uri_fills_in_what_the_item_does_not_say() -> None:
    uri = "S2B_MSIL2A_20220116T105259_N0301_R051_T30UXC_20220116T135910.SAFE"
    silent = ("s2:datatake_id", "s2:datastrip_id", "s2:processing_baseline", "s2:mgrs_tile", "s2:generation_time")
    scene = parse_scene(an_item(drop=(*silent, "platform"), **{"s2:product_uri": uri}))
    assert (scene.platform, scene.mgrs_tile, scene.baseline) == ("s2b", "30UXC", "03.01")
    assert scene.datatake == "GS2B_20220116T105259"
    assert scene.generation_time == "20220116T135910"


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ({"grid:code": "MGRS-8VPK"}, "08VPK"),
        ({"mgrs:utm_zone": 8, "mgrs:latitude_band": "V", "mgrs:grid_square": "PK"}, "08VPK"),
        ({"sentinel:utm_zone": 30, "sentinel:latitude_band": "U", "sentinel:grid_square": "XC"}, "30UXC"),
    ],
)
def test_the_mgrs_tile_is_found_in_every_catalogues_words(stated: dict[str, Any], expected: str) -> None:
    assert parse_scene(an_item(drop=["s2:mgrs_tile"], **stated)).mgrs_tile == expected


def test_an_item_that_names_no_datatake_is_told_from_others_by_its_id() -> None:
    scenes = [parse_scene(an_item(name, drop=["s2:datatake_id"])) for name in ("X_L2A", "Y_L2A")]
    assert scenes[0].key != scenes[1].key


@pytest.mark.parametrize(
    ("stated", "expected", "source"),
    [
        ({FLAG: True, "s2:processing_baseline": "05.00"}, 0, FLAG),
        ({FLAG: False, "s2:processing_baseline": "05.00"}, -1000, FLAG),
        ({FLAG: False, "s2:processing_baseline": "03.00"}, 0, FLAG),
        ({"s2:processing_baseline": "04.00"}, -1000, "s2:processing_baseline"),
        ({"s2:processing_baseline": "03.01"}, 0, "s2:processing_baseline"),
        ({"s2:processing_baseline": None}, 0, "none"),
    ],
)  # fmt: skip
def test_the_flag_goes_before_the_baseline(stated: dict[str, Any], expected: int, source: str) -> None:
    claim = parse_scene(an_item(**stated)).offset
    assert (claim.value, claim.source) == (expected, source)


def test_the_bands_own_offset_goes_before_the_baseline_and_after_the_flag() -> None:
    declared = with_offsets(*[-0.1] * 10)
    old = {"s2:processing_baseline": "03.00"}
    assert parse_scene(an_item(assets=declared, **old)).offset.value == -1000
    assert parse_scene(an_item(assets=declared, **old)).offset.source == "raster:offset"
    flagged = an_item(assets=declared, **old, **{FLAG: True})
    assert parse_scene(flagged).offset.value == 0


def test_a_band_that_declares_no_offset_at_a_new_baseline_says_that_it_is_applied() -> None:
    scene = parse_scene(an_item(assets=with_offsets(*[0.0] * 10), **{"s2:processing_baseline": "05.00"}))
    assert (scene.offset.value, scene.offset.source) == (0, "raster:offset")


def test_an_offset_is_scaled_by_the_bands_own_scale() -> None:
    scene = parse_scene(an_item(assets=with_offsets(*[-0.2] * 10, scale=2e-4)))
    assert scene.offset.value == -1000


def test_stac_1_1_band_objects_declare_offsets_too() -> None:
    assets = {band: asset | {"raster:offset": -0.1, "raster:scale": 1e-4} for band, asset in BAND_ASSETS.items()}
    assert parse_scene(an_item(assets=assets)).offset.value == -1000
    listed = {
        band: asset | {"bands": [{"name": band, "raster:offset": -0.1, "raster:scale": 1e-4}]}
        for band, asset in BAND_ASSETS.items()
    }
    assert parse_scene(an_item(assets=listed)).offset.value == -1000


def test_bands_that_contradict_each_other_are_refused_by_name() -> None:
    with pytest.raises(SourceRejected, match=r"S2A_30UXC_20210501_0_L2A: its bands declare .*-1000, 0"):
        parse_scene(an_item(assets=with_offsets(-0.1, 0.0)))


@pytest.mark.parametrize("year", ["2016", "2021", "2024"])
def test_the_date_never_decides_the_offset(year: str) -> None:
    old = parse_scene(an_item(time=f"{year}-07-01T10:56:21Z", **{"s2:processing_baseline": "02.12"}))
    new = parse_scene(an_item(time=f"{year}-07-01T10:56:21Z", **{"s2:processing_baseline": "05.11"}))
    assert (old.offset.value, new.offset.value) == (0, -1000)


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (an_item("S2A_MSIL1C_20210501T105619_N0300_R094_T30UXC_20210501T130000"), "top-of-atmosphere"),
        (an_item("scene", **{"processing:level": "L1C"}), "top-of-atmosphere"),
        (an_item("scene", collection="sentinel-2-l1c"), "top-of-atmosphere"),
        (an_item("scene", **{"s2:product_type": "S2MSI1C"}), "top-of-atmosphere"),
        (an_item("LC08_L2SP_202024_20210501_02_T1", platform="landsat-8"), "landsat-8 is not Sentinel-2"),
        (an_item("S1A_IW_GRDH", platform="SENTINEL-1A"), "SENTINEL-1A is not Sentinel-2"),
        (an_item("scene", collection="imagery", drop=["processing:level"]), "nothing in the item says"),
    ],
)
def test_what_is_not_sentinel_2_l2a_is_refused_by_name(item: Any, words: str) -> None:
    with pytest.raises(SourceRejected, match=words) as refusal:
        parse_scene(item)
    assert item.id in str(refusal.value)
    assert refusal.value.reason == "invalid-input"


def test_a_missing_band_is_named_with_the_item() -> None:
    assets = {band: asset for band, asset in BAND_ASSETS.items() if band != "B8A"}
    with pytest.raises(SourceRejected, match="S2A_30UXC_20210501_0_L2A: no asset for B8A") as refusal:
        parse_scene(an_item(assets=assets))
    assert refusal.value.reason == "missing-asset"
    assert set(parse_scene(an_item(assets=assets), ("B02", "B12")).assets) == {"B02", "B12"}


def test_asset_names_of_both_catalogues_lead_to_the_same_bands() -> None:
    earth_search = parse_scene(an_item())
    planetary = parse_scene(an_item(assets=BAND_ASSETS | {"SCL": {"href": "https://host/SCL.tif"}}))
    assert set(earth_search.assets) == set(planetary.assets) == {*SENTINEL2_BANDS, "mask"}
    assert earth_search.assets["B8A"].href.endswith("/nir08.tif")
    assert earth_search.assets["mask"].href.endswith("/scl.tif")
    assert planetary.assets["mask"].href.endswith("/SCL.tif")


def test_jpeg_2000_copies_and_pictures_are_not_taken_for_bands() -> None:
    pictures = {
        "blue-jp2": {"href": "https://host/blue.jp2", "eo:bands": [{"name": "blue"}]},
        "visual": {"href": "https://host/TCI.tif", "eo:bands": [{"name": "red"}, {"name": "green"}, {"name": "blue"}]},
        "preview": {"href": "https://host/p.tif", "roles": ["overview"], "eo:bands": [{"name": "B02"}]},
    }
    with pytest.raises(SourceRejected, match="no asset for B02"):
        parse_scene(an_item(assets=pictures), ("B02",))
    both = {**pictures, "blue": {"href": "https://host/blue.tif"}}
    assert parse_scene(an_item(assets=both), ("B02",)).assets["B02"].href == "https://host/blue.tif"


@pytest.mark.parametrize("field", ["eo:bands", "bands"])
def test_stacked_bands_are_found_by_their_place_in_the_file(field: str) -> None:
    stack = {"data": {"href": "https://host/boa.tif", field: [{"name": band} for band in STACKED]}}
    scene = parse_scene(an_item(assets=stack), ("B02", "B11", "B12"))
    assert {band: asset.index for band, asset in scene.assets.items()} == {"B02": 2, "B11": 10, "B12": 11}


def test_stacked_bands_declare_offset_and_nodata_too() -> None:
    bands = [{"name": band, "raster:offset": -0.1, "raster:scale": 1e-4, "nodata": 65535} for band in STACKED]
    stack = {"data": {"href": "https://host/boa.tif", "bands": bands}}
    scene = parse_scene(an_item(assets=stack), ("B02", "B11"))
    assert scene.assets["B11"].nodata == 65535
    assert (scene.offset.value, scene.offset.source) == (-1000, "raster:offset")


@pytest.mark.parametrize(
    ("longitude", "time", "day"),
    [
        (-1.3, "2021-05-01T10:56:21Z", "2021-05-01"),
        (178.0, "2021-04-30T22:20:00Z", "2021-05-01"),  # New Zealand: the morning of the next day there
        (178.0, "2021-05-01T00:10:00Z", "2021-05-01"),
        (-176.0, "2021-05-02T00:10:00Z", "2021-05-01"),  # Aleutians: still the day before
        (-1.3, "2021-05-01T12:56:21+02:00", "2021-05-01"),
    ],
)
def test_the_solar_day_is_the_day_under_the_sun_not_in_greenwich(longitude: float, time: str, day: str) -> None:
    assert parse_scene(an_item(time=time, longitude=longitude)).solar_day == day


def test_a_scene_goes_through_json_unchanged() -> None:
    scene = parse_scene(an_item())
    assert Scene.from_json(json.loads(json.dumps(scene.to_json()))) == scene
    assert scene.time == np.datetime64("2021-05-01T10:56:21", "us")


def test_the_signature_changes_where_the_catalogue_replaces_a_scene_in_place() -> None:
    assert a_scene().signature == a_scene(cloud_cover=11.0).signature
    assert a_scene().signature != a_scene(generation_time="2021-09-09T00:00:00Z").signature
    assert a_scene().signature != a_scene(baseline="05.00").signature


def test_another_mask_asset_is_taken_and_one_that_is_missing_is_no_error() -> None:
    item = an_item(assets=BAND_ASSETS | {"cloud": {"href": "https://host/cloud.tif"}})
    assert parse_scene(item, mask_asset="cloud").assets["mask"].href == "https://host/cloud.tif"
    assert "mask" not in parse_scene(item, mask_asset="scl").assets


@pytest.mark.parametrize("missing", ["geometry", "datetime"])
def test_an_item_without_place_or_time_is_refused(missing: str) -> None:
    item = an_item()
    setattr(item, missing, None)
    with pytest.raises(SourceRejected, match="no geometry or no datetime"):
        parse_scene(item)
