"""From a list of targets to batches and a run: cut by number and size, frozen, found again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from sky_folder_cases import make_folder

from storage.location import resolve
from storage.manifest import list_runs
from tasks.errors import ConfigurationError, UsageError
from tasks.limits import HttpLimits
from tasks.sky.extraction_plan import (
    BATCH_BYTES,
    ExtractionRequest,
    ObjectRow,
    expected_bytes,
    is_held,
    plan_batches,
    plan_extraction,
    prepare_extraction,
    prepared_of,
    read_frozen_targets,
    read_target_list,
    write_table,
)
from tasks.sky.legacy import LegacySource
from tasks.sky.target_columns import ColumnNames
from tasks.sky.targets import Target


def request_of(tmp_path: Path, count: int = 5, **change: object) -> ExtractionRequest:
    made = make_folder(tmp_path, count)
    request = ExtractionRequest(
        str(made.targets), f"folder:{made.folder}", resolve(tmp_path / "warehouse").url, bands=("g", "r"), batch_size=2
    )
    return replace(request, **change)  # type: ignore[arg-type]


def test_a_batch_holds_so_many_objects_in_the_order_of_the_list(tmp_path: Path) -> None:
    targets = tuple(Target(str(number), 0.0, 0.0) for number in range(7))
    request = ExtractionRequest("", "legacy", str(tmp_path), batch_size=3)
    assert plan_batches(targets, request) == (0, 0, 0, 1, 1, 1, 2)


def test_large_cutouts_make_small_batches(tmp_path: Path) -> None:
    request = ExtractionRequest("", "legacy", str(tmp_path), bands=("g", "r", "z"), batch_size=100)
    targets = tuple(Target(str(number), 0.0, 0.0, size_pixels=2000) for number in range(10))
    numbers = plan_batches(targets, request)
    assert numbers[-1] > 0
    for number in range(numbers[-1]):
        size = sum(
            expected_bytes(target, request) for target, own in zip(targets, numbers, strict=True) if own == number
        )
        assert BATCH_BYTES / 2 < size <= BATCH_BYTES


def test_a_size_in_arcsec_is_in_pixels_of_the_survey_or_of_a_scale_that_is_given() -> None:
    request = ExtractionRequest("", "legacy", "w", size_arcsec=26.2)
    assert request.side_pixels == 100
    assert replace(request, source="sdss:dr17").side_pixels == 66
    assert replace(request, source="folder:x", pixel_scale_arcsec=0.1).side_pixels == 262
    with pytest.raises(UsageError, match="--pixel-scale"):
        _ = replace(request, source="folder:x").side_pixels
    with pytest.raises(UsageError, match="without --size-pixels"):
        _ = replace(request, size_pixels=64).side_pixels


def test_a_request_survives_the_manifest() -> None:
    request = ExtractionRequest(
        "t.csv",
        "legacy",
        "w",
        bands=("g",),
        zero_points={"g": 25.0},
        columns=ColumnNames(ra="A", dec="D"),
        limits=HttpLimits(attempts=2),
    )
    assert ExtractionRequest.from_json(json.loads(json.dumps(request.to_json()))) == request


def test_targets_come_back_from_the_run_as_they_were_read(tmp_path: Path) -> None:
    request = request_of(tmp_path)
    prepared = prepare_extraction(request)
    frozen = read_frozen_targets(prepared.run)
    assert [len(targets) for targets in frozen.values()] == [2, 2, 1]
    first = frozen[0][0]
    assert (first.object_id, first.names, first.file) == ("g0000", ("g0000", "again"), "g0000.fits")
    assert (first.redshift, first.ebv, first.size_pixels) == (0.01, 0.05, None)
    assert prepared.objects == 5
    assert "1 rows of the target list are merged" in " ".join(prepared.notes)


def test_the_same_request_goes_on_with_its_run_and_another_begins_one(tmp_path: Path) -> None:
    request = request_of(tmp_path)
    run = prepare_extraction(request).run
    assert prepare_extraction(replace(request, workers=7)).run == run
    assert prepare_extraction(replace(request, cache="/elsewhere")).run == run
    changes: list[dict[str, object]] = [
        {"time_limit_s": 7.0},
        {"bands": ("g",)},
        {"geometry": "fixed"},
        {"zero_points": {"r": 25.0}},
        {"max_empty_share": 0.9},
        {"psf": False},
        {"refresh": True},
    ]
    for change in changes:
        assert prepare_extraction(replace(request, **change)).run != run, change  # type: ignore[arg-type]
    Path(request.targets).write_text(Path(request.targets).read_text() + "x,10,10,,,\n")
    assert prepare_extraction(request).run != run


def test_only_batches_without_a_table_of_objects_are_left_and_failed_ones_on_redrive(tmp_path: Path) -> None:
    prepared = prepare_extraction(request_of(tmp_path))
    finish_batch(prepared.run.location, 0, state="measured")
    finish_batch(prepared.run.location, 1, state="failed")
    now = {"workers": 3}
    assert [job.index for job in prepared_of(prepared.run, now=now).jobs] == [2]
    again = prepared_of(prepared.run, now=now, again=True)
    assert [(job.index, job.again) for job in again.jobs] == [(1, True), (2, False)]
    assert again.request.workers == 3


def finish_batch(location: object, index: int, *, state: str) -> None:
    from dataclasses import asdict

    import pyarrow as pa

    rows = [asdict(ObjectRow("a", 1.0, 2.0, index, state))]
    write_table(location, f"objects/{index:05d}.parquet", pa.Table.from_pylist(rows))  # type: ignore[arg-type]


def test_a_plan_writes_nothing_and_names_the_run_that_would_go_on(tmp_path: Path) -> None:
    request = request_of(tmp_path)
    plan = plan_extraction(request)
    assert (plan.batches, plan.held, plan.run) == (3, 0, None)
    assert plan.bytes == 5 * 256 * 256 * 2 * 13
    assert not (tmp_path / "warehouse").exists()
    run = prepare_extraction(request).run
    assert plan_extraction(request).run == run


def test_an_object_in_the_store_is_held_where_its_position_is_the_same() -> None:
    held = {"a": (10.0, 20.0), "b": (float("nan"), float("nan"))}
    assert is_held(Target("a", 10.0, 20.0), held)
    assert not is_held(Target("a", 10.0001, 20.0), held)
    assert not is_held(Target("c", 10.0, 20.0), held)
    assert is_held(Target("b", float("nan"), float("nan")), held)


def test_what_cannot_be_is_said_before_a_run_is_begun(tmp_path: Path) -> None:
    request = request_of(tmp_path)
    with pytest.raises(ConfigurationError, match="nowhere"):
        prepare_extraction(replace(request, source="folder:/nowhere"))
    with pytest.raises(ConfigurationError, match="names no source"):
        prepare_extraction(replace(request, source="hubble"))
    with pytest.raises(ConfigurationError, match="--targets"):
        prepare_extraction(replace(request, targets="", source="legacy"))
    assert list_runs(resolve(request.warehouse)) == []


def test_every_option_of_a_source_reaches_it(tmp_path: Path) -> None:
    request = ExtractionRequest(
        "t.csv",
        "legacy",
        "w",
        zero_points={"r": 22.4},
        max_empty_share=0.7,
        psf=False,
        viewer_url="http://localhost:1/viewer/",
        cache=str(tmp_path),
    )
    source = request.open_source()
    assert isinstance(source, LegacySource)
    assert source.url_of(Target("a", 1.0, 2.0), 64).startswith("http://localhost:1/viewer/fits-cutout?")
    assert source.answers.cache == tmp_path
    options = source._options
    assert (options.zero_points, options.max_empty_share, options.psf) == ({"r": 22.4}, 0.7, False)
    anew = replace(request, refresh=True).open_source(run="profiles-1")
    assert isinstance(anew, LegacySource)
    assert anew.answers.cache == tmp_path / "profiles-1"


def test_what_decides_a_cutout_decides_whether_the_stores_is_used_again() -> None:
    request = ExtractionRequest("", "legacy", "w")
    for change in ({"psf": False}, {"zero_points": {"*": 25.0}}, {"viewer_url": "http://x"}, {"max_empty_share": 1.0}):
        assert replace(request, **change).source_digest != request.source_digest  # type: ignore[arg-type]
    assert replace(request, geometry="fixed", cache="c").source_digest == request.source_digest


def test_columns_that_are_named_are_read_from_lists_and_from_the_tables_of_folders(tmp_path: Path) -> None:
    request = request_of(tmp_path, columns=ColumnNames(ra="east", dec="north"))
    content = Path(request.targets).read_text().replace("ra,dec", "east,north", 1)
    Path(request.targets).write_text(content)
    targets = read_target_list(request).targets
    assert (targets[1].object_id, targets[1].ra) == ("g0001", 150.01)
    Path(request.source.removeprefix("folder:"), "catalog.csv").write_text(content)
    assert read_target_list(replace(request, targets="")).targets[1].ra == 150.01
    with pytest.raises(ConfigurationError, match="no columns of right ascension"):
        read_target_list(replace(request, columns=ColumnNames()))


def test_a_folder_without_a_list_is_measured_whole(tmp_path: Path) -> None:
    request = request_of(tmp_path, targets="")
    assert [target.object_id for target in plan_extraction(request).targets.targets] == [f"g{n:04d}" for n in range(5)]
