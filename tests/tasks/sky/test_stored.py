"""Profiles from a sky store of the warehouse: the same as from the files, nothing written to the store, one state for one run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sky_folder_cases import galaxy, make_folder

from storage.cutouts import Cutout
from storage.location import Location, resolve
from storage.sky import SkyReader, append_cutouts
from tasks.errors import ConfigurationError, SourceRejected
from tasks.sky.extraction import close_processes, extract_batch
from tasks.sky.extraction_plan import ExtractionRequest, Prepared, plan_extraction, prepare_extraction
from tasks.sky.source_options import SourceOptions
from tasks.sky.sources import open_source
from tasks.sky.stored import StoreSource, pin_store, targets_of_store
from tasks.sky.targets import Target

MEASURED = ("object_id", "band", "state", "radius_arcsec", "intensity", "ellipticity", "total_magnitude", "ra", "dec")


@pytest.fixture(scope="module", autouse=True)
def _processes() -> Iterator[None]:
    yield
    close_processes(1)


def run_all(request: ExtractionRequest) -> pa.Table:
    prepared: Prepared = prepare_extraction(request)
    for job in prepared.jobs:
        extract_batch(job)
    folder = prepared.run.location.local_path or Path()
    return pa.concat_tables(pq.read_table(path) for path in sorted(folder.glob("profiles/*.parquet")))


def request_of(warehouse: Path, source: str, targets: str = "") -> ExtractionRequest:
    url = resolve(warehouse).url
    return ExtractionRequest(targets, source, url, method="isophote", workers=1, pages=False, batch_size=3)


def store_with(warehouse: Path, name: str, numbers: range) -> Location:
    store = resolve(warehouse) / "sky" / name
    append_cutouts(store, [galaxy(number) for number in numbers], batch="raw")
    return store


def bare_of(cutout: Cutout) -> Cutout:
    """Return a cutout without what preparing gave it."""
    return replace(cutout, segmentation=np.zeros_like(cutout.segmentation), ivar=np.zeros_like(cutout.ivar))


def opened(warehouse: Path, where: str, *bands: str, **options: object) -> StoreSource:
    source = open_source(
        f"store:{where}", bands=bands, options=SourceOptions(warehouse=resolve(warehouse).url, **options)  # type: ignore[arg-type]
    )  # fmt: skip
    assert isinstance(source, StoreSource)
    return source


def test_what_a_folder_was_ingested_as_and_what_was_never_prepared_have_the_folders_profiles(tmp_path: Path) -> None:
    made = make_folder(tmp_path, 4)
    warehouse = tmp_path / "warehouse"
    once = run_all(replace(request_of(warehouse, f"folder:{made.folder}", str(made.targets)), bands=("g", "r")))
    ingested = SkyReader(resolve(warehouse) / "sky" / "images")
    bare = [bare_of(ingested.read(name)) for name in ingested.ids]
    append_cutouts(resolve(warehouse) / "sky" / "raw", bare, batch="raw")
    for name in ("images", "raw"):
        before = SkyReader(resolve(warehouse) / "sky" / name).snapshot
        again = run_all(request_of(warehouse, f"store:{name}"))
        assert set(again["snapshot"].to_pylist()) == {before}
        for column in MEASURED:
            assert again[column].to_pylist() == once[column].to_pylist(), (name, column)
        assert SkyReader(resolve(warehouse) / "sky" / name).snapshot == before


def test_a_plan_takes_all_objects_of_a_store_and_fetches_nothing(tmp_path: Path) -> None:
    store_with(tmp_path, "raw", range(5))
    plan = plan_extraction(request_of(tmp_path, "store:raw"))
    assert [target.object_id for target in plan.targets.targets] == [f"g{number:04d}" for number in range(5)]
    assert [target.size_pixels for target in plan.targets.targets] == [40, 48, 72, 40, 48]
    assert (plan.batches, plan.held, plan.bytes) == (2, 5, 0)
    assert opened(tmp_path, "raw").bands == ("g", "r")


def test_a_list_names_objects_by_their_ids_at_their_places(tmp_path: Path) -> None:
    store_with(tmp_path, "raw", range(3))
    targets = tmp_path / "some.csv"
    targets.write_text("id,ra,dec\ng0002,150.02,2.0\ng0007,150.07,2.0\ng0001,150.03,2.0\n")
    request = replace(request_of(tmp_path, "store:raw", str(targets)), bands=("r",))
    assert plan_extraction(request).held == 1
    found = run_all(request)
    assert found["object_id"].to_pylist() == ["g0002", "g0007", "g0001"]
    assert found["state"].to_pylist() == ["measured", "outside", "outside"]
    assert found["reason"].to_pylist()[1:] == ["no-data", "no-data"]
    assert "no object of that id" in found["message"][1].as_py()
    assert "arcsec away" in found["message"][2].as_py()


def test_a_run_stays_with_the_state_that_it_began_with(tmp_path: Path) -> None:
    store = store_with(tmp_path, "raw", range(1))
    pinned = pin_store("store:raw", resolve(tmp_path).url)
    assert pinned == f"store:raw@{SkyReader(store).snapshot}"
    assert pin_store(pinned, "nowhere") == pinned
    assert pin_store("legacy", "nowhere") == "legacy"
    append_cutouts(store, [galaxy(1)], batch="later")
    assert len(targets_of_store(opened(tmp_path, pinned.removeprefix("store:"))).targets) == 1
    assert len(targets_of_store(opened(tmp_path, "raw")).targets) == 2


def test_bands_are_chosen_and_those_that_are_lacking_said(tmp_path: Path) -> None:
    store_with(tmp_path, "raw", range(1))
    whole, red = (opened(tmp_path, "raw", *bands).fetch(Target("g0000", math.nan, math.nan)) for bands in ((), ("r",)))
    assert red.band_names == ("r",)
    assert np.array_equal(red.flux[0], whole.flux[whole.band_names.index("r")])
    with pytest.raises(SourceRejected, match="has it in g, r alone") as caught:
        opened(tmp_path, "raw", "z").fetch(Target("g0000", math.nan, math.nan))
    assert caught.value.reason == "no-data"


def test_ids_of_whole_numbers_stay_whole_numbers(tmp_path: Path) -> None:
    append_cutouts(resolve(tmp_path) / "sky" / "raw", [replace(galaxy(0), object_id="17")], batch="raw")
    assert targets_of_store(opened(tmp_path, "raw")).integer_ids


def test_what_cannot_be_asked_of_a_store_says_why(tmp_path: Path) -> None:
    store_with(tmp_path, "raw", range(1))
    with pytest.raises(ConfigurationError, match="has no store 'other'; there is raw"):
        opened(tmp_path, "other")
    with pytest.raises(ConfigurationError, match=r"^store:raw: "):
        opened(tmp_path, "raw@1CECHNKREP0F1RSTCMT0")
    with pytest.raises(ConfigurationError, match="give no size and no pixel scale"):
        opened(tmp_path, "raw", size_pixels=64, pixel_scale_arcsec=0.3)
