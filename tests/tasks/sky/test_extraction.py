"""Batches from a folder: every object has its rows, each bad one its reason; hangs and crashes cost their object alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sky_folder_cases import SPOIL, GalaxyFolder, galaxy, make_folder, to_hdu
from sky_methods import BadlyBehaved

from storage.location import resolve
from storage.sky import SkyReader
from tasks.sky.extraction import close_processes, extract_batch
from tasks.sky.extraction_plan import ExtractionRequest, ObjectRow, Prepared, prepare_extraction, prepared_of
from tasks.sky.extraction_report import finish_extraction, read_rows
from tasks.sky.methods import Weights, open_method
from tasks.sky.profile import ObjectFlag
from tasks.sky.profile_table import SCHEMA

REASONS = {
    "truncated": "unreadable",
    "html": "unreadable",
    "all-zero": "invalid-input",
    "all-nan": "invalid-input",
    "without-wcs": "invalid-input",
    "wrong-units": "invalid-input",
    "tiny": "invalid-input",
    "four-dimensions": "invalid-input",
    "corrupt-header": "unreadable",
    "missing": "missing-asset",
    "no-object": "no-object",
}
"""What the row of each kind says."""
WORKERS = 2


@pytest.fixture(scope="module", autouse=True)
def _processes() -> Iterator[None]:
    yield
    close_processes(WORKERS)


def request_of(made: GalaxyFolder, warehouse: Path, **change: object) -> ExtractionRequest:
    request = ExtractionRequest(
        str(made.targets),
        f"folder:{made.folder}",
        resolve(warehouse).url,
        bands=("g", "r"),
        batch_size=8,
        time_limit_s=30.0,
        workers=WORKERS,
        pages=False,
    )
    return replace(request, **change)  # type: ignore[arg-type]


def run_all(prepared: Prepared, **options: object) -> dict[str, ObjectRow]:
    for job in prepared.jobs:
        extract_batch(job, **options)  # type: ignore[arg-type]
    return {row.object_id: row for row in read_rows(prepared)}


def profiles_of(prepared: Prepared) -> pa.Table:
    paths = sorted((prepared.run.location.local_path or Path()).glob("profiles/*.parquet"))
    return pa.concat_tables([pq.read_table(path) for path in paths])


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> GalaxyFolder:
    return make_folder(tmp_path_factory.mktemp("spoilt"), 14, kinds=tuple(SPOIL))


def test_every_object_has_its_rows_and_each_bad_one_its_reason(spoilt: GalaxyFolder, tmp_path: Path) -> None:
    prepared = prepare_extraction(request_of(spoilt, tmp_path / "warehouse"))
    seen: list[ObjectRow] = []
    rows = run_all(prepared, on_object=seen.append)
    assert list(rows) == [f"g{number:04d}" for number in range(14)]
    assert sorted(row.object_id for row in seen) == sorted(rows)
    for name, kind in spoilt.spoilt.items():
        assert (rows[name].state, rows[name].reason) == ("rejected", REASONS[kind]), kind
        assert rows[name].message
    by_kind = {kind: rows[name].message for name, kind in spoilt.spoilt.items()}
    assert ".fits is in K (BUNIT)" in by_kind["wrong-units"]
    assert "8 x 8 pixels, 16 a side are needed" in by_kind["tiny"]
    good = [row for name, row in rows.items() if name not in spoilt.spoilt]
    assert all((row.state, row.bands) == ("measured", 2) and row.seconds > 0 for row in good)
    table = profiles_of(prepared)
    assert table.schema.equals(SCHEMA)
    assert table["object_id"].to_pylist() == [name for name in rows for _ in range(2)]
    assert table["band"].to_pylist() == ["g", "r"] * 14
    assert set(table["redshift"].to_pylist()) == {0.01}
    assert table["extinction"].to_pylist()[:2] == pytest.approx([0.05 * 3.214, 0.05 * 2.165])


def test_what_a_run_reads_at_once_is_as_of_each_object_alone(tmp_path: Path) -> None:
    made = make_folder(tmp_path, 6, kinds=("no-object",))
    request = request_of(made, tmp_path / "warehouse", method="network")
    prepared = prepare_extraction(request)
    rows = run_all(prepared)
    method = open_method("network", weights=Weights(request.warehouse))
    reader = SkyReader(resolve(request.warehouse) / "sky" / "images")
    table = profiles_of(prepared).to_pandas().set_index(["object_id", "band"])
    for name in (name for name in rows if name not in made.spoilt):
        for profile in method.measure(reader.read(name), time_limit_s=30):
            found = table.loc[(name, profile.band)]
            assert found["method"] == "network"
            assert found["intensity"] == pytest.approx(profile.intensity, rel=1e-3, abs=1e-5)
            assert found["magnitude"] == pytest.approx(profile.magnitude, abs=1e-3)
    assert [rows[name].reason for name in made.spoilt] == ["no-object"]


@pytest.mark.slow
def test_what_hangs_crashes_or_raises_is_a_row_and_a_redrive_takes_it_up(tmp_path: Path) -> None:
    made = make_folder(tmp_path, 6)
    request = request_of(made, tmp_path / "warehouse", time_limit_s=3.0)
    prepared = prepare_extraction(request)
    behaviour = {"g0000": "hang", "g0001": "crash", "g0002": "raise", "g0003": "refuse"}
    rows = run_all(prepared, method=BadlyBehaved(behaviour))
    assert [(row.state, row.reason) for row in rows.values()] == [
        ("failed", "time-limit"),
        ("failed", "bug"),
        ("failed", "bug"),
        ("rejected", "no-object"),
        ("measured", ""),
        ("measured", ""),
    ]
    assert rows["g0000"].seconds == 3.0
    assert "signal 11" in rows["g0001"].message
    assert "ZeroDivisionError: a bug of ours" in rows["g0002"].message
    before = profiles_of(prepared)
    again = prepared_of(prepared.run, now={}, again=True)
    assert len(again.jobs) == 1
    mended = run_all(again)
    assert [row.state for row in mended.values()] == ["measured"] * 3 + ["rejected"] + ["measured"] * 2
    after = profiles_of(prepared)
    assert after.slice(8).equals(before.slice(8)), "what was measured is measured no second time"
    assert not prepared_of(prepared.run, now={}, again=True).jobs


def test_a_run_goes_on_with_what_its_store_holds(tmp_path: Path) -> None:
    made = make_folder(tmp_path, 4)
    request = request_of(made, tmp_path / "warehouse")
    prepared = prepare_extraction(request)
    whole = run_all(prepared)
    (prepared.run.location.local_path or Path()).joinpath("objects/00000.parquet").unlink()
    for file in made.folder.glob("*.fits"):
        file.write_bytes(b"changed meanwhile")
    goes_on = prepare_extraction(request)
    assert goes_on.run == prepared.run
    assert [replace(row, seconds=0.0) for row in run_all(goes_on).values()] == [
        replace(row, seconds=0.0) for row in whole.values()
    ]
    changed = run_all(prepare_extraction(replace(request, refresh=True)))
    assert {row.reason for row in changed.values()} == {"unreadable"}


def test_a_batch_is_one_commit_and_the_rows_name_its_state(tmp_path: Path) -> None:
    made = make_folder(tmp_path, 3)
    prepared = prepare_extraction(request_of(made, tmp_path / "warehouse"))
    run_all(prepared)
    reader = SkyReader(resolve(tmp_path / "warehouse") / "sky" / "images")
    assert reader.ids == ("g0000", "g0001", "g0002")
    assert set(profiles_of(prepared)["snapshot"].to_pylist()) == {reader.snapshot}
    cutout = reader.read("g0000")
    assert (cutout.segmentation == 1).any()
    assert np.all(cutout.ivar > 0)


def test_without_pages_each_batch_has_a_gallery_all_the_same(tmp_path: Path) -> None:
    made = make_folder(tmp_path, 3)
    prepared = prepare_extraction(request_of(made, tmp_path / "warehouse", batch_size=1))
    run_all(prepared)
    wanted = [f"{index:05d}.gallery.png" for index in range(3)]
    assert [Path(url).name for url in finish_extraction(prepared).pictures] == wanted
    pages = (prepared.run.location.local_path or Path()) / "pages"
    assert sorted(path.name for path in pages.iterdir()) == wanted
    assert all((pages / name).read_bytes().startswith(b"\x89PNG") for name in wanted)


def test_a_fixed_geometry_is_one_ellipse_at_all_radii_of_all_bands(tmp_path: Path) -> None:
    made = make_folder(tmp_path, 1)
    spread = {}
    for geometry in ("free", "fixed"):
        prepared = prepare_extraction(request_of(made, tmp_path / "warehouse", geometry=geometry))
        run_all(prepared)
        rows = profiles_of(prepared)
        shapes = [np.array(rows[name].to_pylist()) for name in ("ellipticity", "position_angle")]
        spread[geometry] = [float(np.ptp(shape)) for shape in shapes]
        assert rows.num_rows == 2
    assert spread["fixed"] == pytest.approx([0.0, 0.0], abs=1e-6)
    assert spread["free"][0] > 1e-3


def test_local_images_need_nothing_but_a_scale_and_a_zero_point(tmp_path: Path) -> None:
    folder, header = tmp_path / "plain", ("CTYPE", "CRVAL", "CRPIX", "CDELT", "CUNIT")
    folder.mkdir()
    hdu = to_hdu(galaxy(2))
    for key in (*(f"{name}{axis}" for name in header for axis in (1, 2)), "BUNIT"):
        del hdu.header[key]
    hdu.writeto(folder / "stamp.fits")
    bare = GalaxyFolder(folder, Path(), {}, 1)
    request = request_of(bare, tmp_path / "warehouse", targets="", pixel_scale_arcsec=0.262, zero_points={"*": 22.5})
    row = run_all(prepare_extraction(request))["stamp"]
    assert (row.state, row.bands) == ("measured", 2)
    assert row.flags & ObjectFlag.NO_WCS
    assert not row.flags & ObjectFlag.INSTRUMENTAL


def test_a_run_ends_with_its_table_its_pages_and_a_product(spoilt: GalaxyFolder, tmp_path: Path) -> None:
    request = request_of(spoilt, tmp_path / "warehouse", pages=True, batch_size=9)
    prepared = prepare_extraction(request)
    run_all(prepared)
    extracted = finish_extraction(prepared)
    measured, rejected = extracted.counts["measured"], extracted.counts["rejected"]
    assert (measured, rejected) == (3, 11)
    assert sum(extracted.reasons.values()) == len(extracted.failures) == rejected
    table = extracted.run.read_regions()
    assert list(table["object_id"]) == [f"g{number:04d}" for number in range(14)]
    assert table["seconds"].max() < 30
    pages = (extracted.run.location.local_path or Path()) / "pages"
    assert {path.name for path in pages.glob("*.html")} == {"00000.html", "00001.html", "index.html"}
    assert len(list(pages.glob("0*/*.png"))) == measured
    assert finish_extraction(prepared).products == extracted.products
