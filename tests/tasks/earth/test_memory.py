"""Peak memory is bounded by a date, whatever the length of the series."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import peak
import pytest
from factories import EARTH_SEARCH, Archive, write_cog
from ingest_cases import area_of, days, grid, properties, request_of

from storage.schema import SENTINEL2_BANDS

TILE = grid(0, 0, 1024)
WORK = """
import json, sys
from peak import peak_bytes
from storage.cube import read_block
from storage.location import resolve
from storage.regions import cut_regions
from tasks.earth.ingest import ingest_tile
from tasks.earth.request import IngestRequest, prepare_ingest

request = IngestRequest.from_json(json.loads(open(sys.argv[1]).read()))
imported = peak_bytes()
(job,) = prepare_ingest(request).jobs
rows = ingest_tile(job).rows
ingested = peak_bytes()
looks = valid = 0
for region in list(cut_regions((1024, 1024)))[:int(sys.argv[2])]:
    block = read_block(resolve(request.warehouse) / job.tile.path, region)
    looks, valid = len(block.times), valid + int(block.valid.sum())
states = sorted({row.state for row in rows})
print(json.dumps({"imported": imported, "ingested": ingested, "read": peak_bytes(), "looks": looks, "valid": valid, "states": states}))
"""


def make_long_archive(folder: Path, count: int) -> Archive:
    """Return an archive of a whole tile in ten bands, on many days that share three days' files."""
    archive = Archive(folder)
    rng = np.random.default_rng(8)
    for kind in range(3):
        for band in SENTINEL2_BANDS:
            pixel = 10.0 if band in ("B02", "B03", "B04", "B08") else 20.0
            geobox = grid(0, 0, 1024, pixel=pixel)
            write_cog(folder / "files" / f"{kind}_{band}.tif", rng.integers(200, 4000, geobox.shape, np.uint16), geobox)
        coarse = grid(0, 0, 1024, pixel=20.0)
        write_cog(folder / "files" / f"{kind}_SCL.tif", np.full(coarse.shape, 4, np.uint8), coarse)
    for index, day in enumerate(days(count)):
        assets = {
            EARTH_SEARCH[band]: {"href": f"../../files/{index % 3}_{band}.tif"} for band in (*SENTINEL2_BANDS, "SCL")
        }
        name = f"S2A_30UXC_{day.replace('-', '')}_0_L2A"
        archive.add_item(name, f"{day}T10:56:21Z", assets, TILE.geographic_extent.geom, properties=properties(day))
    return archive


def measure(folder: Path, count: int, regions: int = 2) -> dict[str, int]:
    """Ingest in a process of its own and read some blocks; return its peaks in bytes."""
    archive = make_long_archive(folder / "archive", count)
    request = request_of(archive.catalog, folder / "warehouse", area=area_of(TILE), bands=SENTINEL2_BANDS)
    (folder / "request.json").write_text(json.dumps(request.to_json()))
    command = [sys.executable, "-c", WORK, str(folder / "request.json"), str(regions)]
    environment = os.environ | {"PYTHONPATH": str(Path(peak.__file__).parent)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    assert found["states"] == ["ingested"]
    assert found["looks"] == count
    assert found["valid"] == regions * count * 256 * 256
    return found


@pytest.mark.slow
def test_a_hundred_dates_of_a_whole_tile_stay_under_three_gigabytes(tmp_path: Path) -> None:
    found = measure(tmp_path, 100)
    sys.stdout.write(f"\npeak bytes: {found}\n")
    assert max(found["ingested"], found["read"]) < 3e9


@pytest.mark.slow
def test_ingest_takes_no_more_memory_for_a_longer_series(tmp_path: Path) -> None:
    short, long = measure(tmp_path / "short", 10), measure(tmp_path / "long", 40)
    assert long["ingested"] < short["ingested"] + 2**28
