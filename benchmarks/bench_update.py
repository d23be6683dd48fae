"""An update of some tiles in which one was seen again, beside making all of it: seconds, bytes, regions."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from factories import Archive
from ingest_cases import Look, add_look, area_of, days, grid, ingest, request_of
from map_cases import LOOSE, fill_map, with_model
from pytest_benchmark.fixture import BenchmarkFixture

from tasks.earth.map_release import check_prepared, publish_checked

TILE = 1024


@dataclass(frozen=True)
class Cost:
    """What a run took."""

    ingest_s: float
    map_s: float
    bytes_written: int
    regions: int
    key: str


def run(archive: Archive, warehouse: Path, area: dict[str, Any], until: str) -> Cost:
    """Ingest what is new up to a day, map, check and publish."""
    begun = time.perf_counter()
    rows = ingest(request_of(archive.catalog, warehouse, area=area, end=until)).rows
    ingested = time.perf_counter()
    prepared, regions = fill_map(warehouse, area, until)
    filled = time.perf_counter()
    receipt = publish_checked(prepared, check_prepared(prepared, LOOSE))
    written = sum(row.bytes for row in rows if row.state == "ingested")
    return Cost(ingested - begun, filled - ingested, written, regions, receipt.key.item_id)


@pytest.mark.filterwarnings("ignore")
def test_update(benchmark: BenchmarkFixture, full_size: bool, tmp_path: Path) -> None:
    tiles, rows, dates = (4, 256, 24) if full_size else (2, 64, 2)
    names = days(dates + 1, start="2021-01-01")
    archive = Archive(tmp_path / "archive")
    whole = grid(0, 0, tiles * TILE)[:rows]
    for number, day in enumerate(names[:-1]):
        add_look(archive, f"S2A_30UXC_{number:04d}_0_L2A", day, Look(number, geobox=whole, cloudy=(0, 0)))
    last = Look(99, geobox=grid(0, (tiles - 1) * TILE, TILE)[:rows], cloudy=(0, 0))
    add_look(archive, "S2A_30UXC_9999_0_L2A", names[-1], last)
    area, warehouse = area_of(whole), with_model(tmp_path / "warehouse")
    run(archive, warehouse, area, names[-2])
    update = benchmark.pedantic(lambda: run(archive, warehouse, area, names[-1]), rounds=1)
    shutil.rmtree(warehouse)
    anew = run(archive, with_model(warehouse), area, names[-1])
    assert update.key == anew.key
    assert update.bytes_written * (dates * tiles + 1) == pytest.approx(anew.bytes_written)
    assert update.regions < anew.regions
    print(f"\n{tiles} tiles of {rows} x {TILE} pixels, {dates} dates; then one date that sees one tile")
    for name, cost in (("update", update), ("anew", anew)):
        megabytes = cost.bytes_written / 1e6
        print(
            f"{name:8s}ingest {cost.ingest_s:6.2f} s {megabytes:8.1f} MB; map {cost.map_s:6.2f} s {cost.regions} regions"
        )
