"""The generated archive: readable by others, the same twice, full of hard cases, and like real series."""

from __future__ import annotations

import hashlib
import json
import logging
from datetime import date
from pathlib import Path

import geopandas as gpd
import numpy as np
import pystac
import pytest
import rasterio
from odc.geo.gridspec import GridSpec
from scipy import ndimage

from tasks.earth.simulate import ArchiveSummary, SimulateConfig, World, simulate_archive, simulate_date
from tasks.earth.simulate.acquisitions import overpasses, products
from tasks.earth.simulate.phenology import BANDS, cover_table
from tasks.earth.simulate.scene import ground_reflectance, to_digital_numbers
from tasks.earth.simulate.statistics import ForestSeries, correlations, forest_statistics, ndvi_of, simulated_forest
from tasks.earth.simulate.truth import canopy_truth, inventory_labels
from tasks.errors import ConfigurationError

LOG = logging.getLogger(__name__)
TINY = SimulateConfig(seed=5, size_km=0.64, start=date(2021, 7, 1), years=1.5)
ASSETS = ["blue", "green", "red", "rededge1", "rededge2", "rededge3", "nir", "nir08", "swir16", "swir22", "scl"]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> ArchiveSummary:
    return simulate_archive(tmp_path_factory.mktemp("archive") / "a", TINY)


@pytest.fixture(scope="module")
def items(archive: ArchiveSummary) -> dict[str, pystac.Item]:
    return {item.id: item for item in pystac.Catalog.from_file(str(archive.catalog)).get_items(recursive=True)}


def read(item: pystac.Item, name: str) -> np.ndarray:
    href = item.assets[name].get_absolute_href()
    with rasterio.open(href) as file:
        return file.read(1)


def seen(item: pystac.Item) -> np.ndarray:
    return read(item, "blue") > 0


def digest(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_same_seed_gives_the_same_bytes_with_any_number_of_threads(tmp_path: Path) -> None:
    small = {"size_km": 0.32, "years": 0.4, "gap_free": True, "layout": "mixed"}
    for name, workers in (("one", 1), ("three", 3)):
        simulate_archive(tmp_path / name, SimulateConfig(**small, workers=workers))
    assert digest(tmp_path / "one") == digest(tmp_path / "three")


def test_another_seed_gives_another_archive() -> None:
    first, second = (World.make(SimulateConfig(seed=s, size_km=0.32)) for s in (1, 2))
    assert not np.array_equal(canopy_truth(first).class_end, canopy_truth(second).class_end)


def test_a_static_catalogue_lists_every_item_with_eleven_assets(archive: ArchiveSummary, items: dict) -> None:
    assert len(items) == archive.items > archive.dates
    plain = next(i for i in items.values() if i.id not in archive.cases["no-scl"])
    assert list(plain.assets) == ASSETS
    assert plain.collection_id == archive.collection == "sentinel-2-l2a"
    assert all(i.datetime is not None and i.datetime.tzinfo is not None for i in items.values())


def test_files_are_cogs_at_their_own_resolution(items: dict) -> None:
    item = next(iter(items.values()))
    for name, resolution in (("blue", 10), ("nir", 10), ("rededge1", 20), ("nir08", 20), ("swir22", 20), ("scl", 20)):
        with rasterio.open(item.assets[name].get_absolute_href()) as file:
            assert file.res == (resolution, resolution)
            assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
            assert list(file.shape) == item.assets[name].extra_fields["proj:shape"]
            assert list(file.transform[:6]) == item.assets[name].extra_fields["proj:transform"]
            assert file.nodata == 0


def test_a_band_of_the_default_size_has_overviews(tmp_path: Path) -> None:
    from tasks.earth.simulate.cog import write_cog

    size = SimulateConfig().size_px
    write_cog(tmp_path / "b.tif", np.ones((size, size), np.uint16), SimulateConfig().geobox, nodata=0)
    with rasterio.open(tmp_path / "b.tif") as file:
        assert file.overviews(1)


def test_the_default_area_lies_inside_one_tile_of_the_grid() -> None:
    grid = GridSpec("EPSG:32630", tile_shape=(1024, 1024), resolution=10, origin=None)
    box = SimulateConfig().geobox.boundingbox
    assert len(list(grid.tiles(box))) == 1
    assert all(v % 20 == 0 for v in box.bbox)


def test_every_hard_case_is_in_the_default_archive() -> None:
    cases = {case for product in products(SimulateConfig()) for case in product.cases}
    assert cases == {
        "corner-only", "no-scl", "offset-applied-flag", "offset-applied-no-flag", "offset-contradiction",
        "offset-not-applied-flag", "offset-not-applied-no-flag", "second-tile", "second-tile-partner",
        "split-datastrips", "superseded", "superseded-same-baseline", "superseding", "superseding-same-baseline",
    }  # fmt: skip
    assert any(a.snow_cover > 0 for a in overpasses(SimulateConfig()))
    assert {a.platform for a in overpasses(SimulateConfig())} == {"S2A", "S2B"}


def test_item_ids_are_unique_in_every_layout() -> None:
    for layout in ("earth-search", "planetary-computer", "mixed"):
        ids = [p.item_id for p in products(SimulateConfig(layout=layout))]
        assert len(set(ids)) == len(ids)


def test_two_datastrips_of_one_datatake_complement_each_other(archive: ArchiveSummary, items: dict) -> None:
    first, second = (items[i] for i in archive.cases["split-datastrips"][:2])
    assert first.properties["s2:datatake_id"] == second.properties["s2:datatake_id"]
    assert first.properties["s2:datastrip_id"] != second.properties["s2:datastrip_id"]
    np.testing.assert_array_equal(seen(first), ~seen(second))
    assert 0.2 < seen(first).mean() < 0.8


def test_a_superseding_item_has_a_newer_baseline_and_slightly_other_pixels(
    archive: ArchiveSummary, items: dict
) -> None:
    old, new = items[archive.cases["superseded"][0]], items[archive.cases["superseding"][0]]
    baseline = "s2:processing_baseline"
    assert old.properties[baseline] < new.properties[baseline]
    assert old.properties["s2:datatake_id"].split("_N")[0] == new.properties["s2:datatake_id"].split("_N")[0]
    assert new.properties["s2:datatake_id"].endswith(f"_N{new.properties[baseline]}")
    assert old.properties["s2:generation_time"] < new.properties["s2:generation_time"]
    difference = np.abs(read(old, "nir").astype(int) - read(new, "nir").astype(int))
    assert 0 < np.median(difference) < 400


def test_the_same_baseline_can_be_superseded_by_a_later_generation(archive: ArchiveSummary, items: dict) -> None:
    old = items[archive.cases["superseded-same-baseline"][0]]
    new = items[archive.cases["superseding-same-baseline"][0]]
    assert old.properties["s2:datatake_id"] == new.properties["s2:datatake_id"]
    assert old.properties["s2:generation_time"] < new.properties["s2:generation_time"]


def test_a_corner_item_shows_a_corner_and_says_so(archive: ArchiveSummary, items: dict) -> None:
    item = items[archive.cases["corner-only"][0]]
    mask = seen(item)
    assert 0.02 < mask.mean() < 0.2
    assert mask[0, 0]
    assert not mask[:, -1].any()
    assert item.properties["s2:nodata_pixel_percentage"] == pytest.approx(100 * (1 - mask.mean()), abs=1)
    assert item.bbox[2] < items[archive.cases["no-scl"][0]].bbox[2]


def test_the_second_tile_is_a_strip_of_the_same_datatake(archive: ArchiveSummary, items: dict) -> None:
    strip, partner = items[archive.cases["second-tile"][0]], items[archive.cases["second-tile-partner"][0]]
    assert strip.properties["grid:code"] == "MGRS-30UXD"
    assert partner.properties["grid:code"] == "MGRS-30UXC"
    assert strip.properties["s2:datatake_id"] == partner.properties["s2:datatake_id"]
    rows = read(strip, "blue").shape[0]
    np.testing.assert_array_equal(read(strip, "blue"), read(partner, "blue")[:rows])


def test_items_without_a_classification_have_ten_assets(archive: ArchiveSummary, items: dict) -> None:
    for name in archive.cases["no-scl"]:
        assert list(items[name].assets) == ASSETS[:-1]


def test_the_offset_is_in_the_pixels_exactly_where_the_case_says(archive: ArchiveSummary, items: dict) -> None:
    listed = {p.item_id: p for p in products(TINY)}
    flag = "earthsearch:boa_offset_applied"
    for case, applied, stated in (
        ("offset-applied-flag", True, True),
        ("offset-applied-no-flag", True, None),
        ("offset-not-applied-flag", False, False),
        ("offset-not-applied-no-flag", False, None),
    ):
        for name in archive.cases[case]:
            assert items[name].properties.get(flag) is stated
            assert listed[name].offset_in_pixels is not applied
    for name in archive.cases["offset-contradiction"]:
        assert items[name].properties[flag] is True
        assert read(items[name], "swir22").min() > 900


def test_the_offset_adds_a_thousand_and_never_makes_no_data() -> None:
    reflectance = np.array([-0.02, 0.0, 0.05, 7.0], np.float32)
    np.testing.assert_array_equal(to_digital_numbers(reflectance, offset_dn=0), [1, 1, 500, 65535])
    np.testing.assert_array_equal(to_digital_numbers(reflectance, offset_dn=1000), [800, 1000, 1500, 65535])


def test_planetary_computer_items_have_its_names(tmp_path: Path) -> None:
    config = SimulateConfig(size_km=0.32, start=date(2022, 3, 1), years=0.4, layout="planetary-computer")
    catalog = pystac.Catalog.from_file(str(simulate_archive(tmp_path / "a", config).catalog))
    item = next(catalog.get_items(recursive=True))
    assert list(item.assets) == [*BANDS, "SCL"]
    assert item.id.startswith(item.properties["s2:product_uri"].split("_N0")[0])
    assert item.properties["platform"] in ("Sentinel-2A", "Sentinel-2B")
    assert item.properties["s2:mgrs_tile"] == "30UXC"
    assert not any(name.startswith(("earthsearch:", "mgrs:", "grid:")) for name in item.properties)
    assert "raster:bands" not in item.assets["B02"].extra_fields
    assert read(item, "B12")[read(item, "B12") > 0].min() > 800


def test_a_folder_that_holds_something_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(ConfigurationError, match="not empty"):
        simulate_archive(tmp_path, TINY)
    assert (tmp_path / "mine.txt").read_text() == "keep"


@pytest.mark.parametrize(
    ("setting", "value"),
    [("size_km", 0.33), ("west", 636885.0), ("layout", "usgs"), ("epsg", 3035), ("years", 0.0), ("canopy_share", 0.9)],
)
def test_settings_that_make_no_archive_are_refused_by_name(setting: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=setting):
        SimulateConfig(**{setting: value})


def test_truth_agrees_with_the_world_that_made_it(archive: ArchiveSummary) -> None:
    def layer(name: str) -> np.ndarray:
        with rasterio.open(archive.truth / name) as file:
            return file.read(1)

    cover, kind = layer("tree_cover_percent.tif"), layer("class.tif")
    np.testing.assert_array_equal(kind > 0, cover >= 50)
    assert archive.canopy_share == pytest.approx((kind > 0).mean())
    changed, day = layer("change_kind.tif"), layer("change_date.tif")
    np.testing.assert_array_equal(changed > 0, day > 0)
    assert json.loads((archive.truth / "cases.json").read_text()) == {k: list(v) for k, v in archive.cases.items()}


@pytest.mark.slow
def test_the_default_landscape_has_canopy_of_every_kind_and_felling_takes_it_away() -> None:
    world = World.make(SimulateConfig())
    truth, labels = canopy_truth(world), inventory_labels(world)
    assert 0.15 <= (truth.class_end > 0).mean() <= 0.25
    assert (truth.class_end == 2).mean() > 0.03
    felled = truth.change_kind == 1
    assert felled.sum() > 100
    assert truth.tree_cover_end[felled].mean() < 20 < truth.tree_cover_start[felled].mean()
    assert (truth.change_kind == 2).any()
    assert set(labels["class"]) == {"conifer", "broadleaved"}
    assert labels.area.min() >= 0.45 * 1e4
    inside = gpd.GeoSeries(labels.geometry).area.sum() / 1e2 / truth.class_end.size
    assert inside < (truth.class_end > 0).mean()  # hedges and copses have no label


def test_canopy_is_greener_in_june_than_in_winter_unless_it_is_evergreen() -> None:
    table = cover_table()

    def ndvi(cover: str, day: int) -> float:
        spectrum = table.reflectance[table.index(cover), day]
        return float(ndvi_of(spectrum[6], spectrum[2]))

    assert ndvi("beech", 170) - ndvi("beech", 30) > 0.25
    assert abs(ndvi("spruce", 170) - ndvi("spruce", 30)) < 0.05
    assert ndvi("lake", 170) < 0


def test_without_cloud_the_pixels_are_those_of_the_ground_give_or_take_the_sensor() -> None:
    world = World.make(SimulateConfig(seed=5, size_km=0.64))
    clear = min(overpasses(world.config), key=lambda a: a.cloud_cover + a.snow_cover)
    found, ground = simulate_date(world, clear).reflectance, ground_reflectance(world, clear)
    for band in range(len(BANDS)):
        smooth = ndimage.uniform_filter(found[band], 5), ndimage.uniform_filter(ground[band], 5)
        assert np.corrcoef(smooth[0].ravel(), smooth[1].ravel())[0, 1] > 0.85


def romanian_forest(folder: Path) -> dict[str, float]:
    xr = pytest.importorskip("xarray")
    fine, coarse = xr.open_dataset(folder / "s2_10m.nc"), xr.open_dataset(folder / "s2_20m.nc")
    dense = xr.open_dataset(folder / "tree_cover_density_2018.nc").tree_cover_density.values >= 70
    dates = fine.time.values.astype("datetime64[D]")
    forest = np.kron(dense, np.ones((2, 2))) > 0
    bands = {b: fine[b].values[:, forest] / 1e4 for b in ("B02", "B03", "B04", "B08")}
    infrared = {b: coarse[b].values[:, dense] / 1e4 for b in ("B03", "B04", "B8A", "B11")}
    at_20m = ForestSeries(dates, coarse.clear.values[:, dense] > 0, np.zeros(0), infrared)
    at_10m = ForestSeries(dates, fine.clear.values[:, forest] > 0, ndvi_of(bands["B08"], bands["B04"]), bands)
    return correlations(at_20m) | forest_statistics(at_10m)


def slovenian_forest(folder: Path) -> dict[str, float]:
    xr = pytest.importorskip("xarray")
    data = xr.open_dataset(folder / "ndvi_10m.nc")
    forest = data.land_cover.values == 2
    ndvi, clear = data.NDVI.values[:, forest] / 1e4, data.clear.values[:, forest] > 0
    return forest_statistics(ForestSeries(data.time.values.astype("datetime64[D]"), clear, ndvi, {}))


def close_enough(name: str, real: float, generated: float) -> bool:
    # a correlation near zero has no meaningful 20 %: there the difference counts
    if name in KNOWN_TO_DIFFER:
        return abs(generated - real) <= KNOWN_TO_DIFFER[name]
    return abs(generated / real - 1) <= 0.2 or (name.startswith("correlation") and abs(generated - real) <= 0.1)


KNOWN_TO_DIFFER = {"correlation B02 B08": 0.13, "correlation B04 B11": 0.28}
"""What the archive does not reach, and by how much it may miss; docs/simulation.md says why."""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_archive_is_like_the_real_series(shared_data: Path, caplog: pytest.LogCaptureFixture) -> None:
    romania = romanian_forest(shared_data / "eo" / "s2_romania_forest")
    slovenia = slovenian_forest(shared_data / "eo" / "s2_slovenia_ndvi")
    runs = []
    for seed in (11, 12, 13):
        config = SimulateConfig(seed=seed, size_km=2.0, canopy_share=0.3, start=date(2016, 1, 1), years=4)
        runs.append(forest_statistics(simulated_forest(World.make(config), broadleaved_only=True)))
    far = []
    for name in romania:
        # where both sets have a figure, their mean is what counts: neither place is the archive's
        real = np.mean([s[name] for s in (romania, slovenia) if name in s])
        generated = np.mean([run[name] for run in runs])
        both = f"{romania[name]:.3f} | {slovenia[name]:.3f}" if name in slovenia else f"{romania[name]:.3f} | -"
        with caplog.at_level(logging.INFO):
            LOG.info("| %s | %s | %.3f | %.3f | %.2f |", name, both, real, generated, generated / real)
        if not close_enough(name, float(real), float(generated)):
            far.append(f"{name}: real {real:.3f}, generated {generated:.3f}")
    assert not far


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_classes_overlap_as_much_as_they_should_for_a_forest_of_trees() -> None:
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.metrics import average_precision_score, roc_auc_score
    from sklearn.model_selection import GroupKFold, cross_val_predict

    from models.temporal_statistics import temporal_statistics

    precision = []
    for seed in (7, 8, 9):
        world = World.make(SimulateConfig(seed=seed))
        canopy = canopy_truth(world).class_end.ravel() > 0
        rng = np.random.default_rng(0)
        pixels = np.sort(rng.choice(canopy.size, 15000, replace=False))
        looks = [simulate_date(world, a) for a in overpasses(world.config)]
        square = np.ones((3, 3), bool)
        valid = [
            ndimage.binary_erosion(np.isin(look.scl, (4, 5, 6)), square, iterations=2, border_value=1).ravel()[pixels]
            for look in looks
        ]
        reflectance = np.stack([look.reflectance.reshape(len(BANDS), -1)[:, pixels] for look in looks])
        dates = np.array([a.when.date() for a in overpasses(world.config)], "datetime64[D]")
        features = temporal_statistics(reflectance, np.stack(valid), dates, BANDS, jobs=2)
        size = world.config.size_px
        block = (pixels // size // 100) * (size // 100) + pixels % size // 100
        forest = RandomForestClassifier(60, min_samples_leaf=2, n_jobs=2, random_state=0)
        folds = GroupKFold(5, shuffle=True, random_state=0)
        truth = canopy[pixels]
        score = cross_val_predict(forest, features, truth, groups=block, cv=folds, method="predict_proba")[:, 1]
        precision.append(average_precision_score(truth, score))
        area = roc_auc_score(truth, score)
        LOG.info("seed %d: PR-AUC %.3f, ROC-AUC %.3f, canopy %.3f", seed, precision[-1], area, truth.mean())
    assert 0.75 <= np.mean(precision) <= 0.88
