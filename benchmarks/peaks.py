"""One step in a process of its own: ``python -m benchmarks.peaks ingest|map FOLDER SIZE`` prints its peak memory."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from factories import Archive
from peak import peak_bytes

from benchmarks.archives import job_of
from models.forest import ForestClassifier, ForestConfig
from models.temporal_statistics import temporal_statistics
from storage.classes import CANOPY_CLASSES
from storage.cube import SeriesBlock, read_block
from storage.location import resolve
from storage.schema import SENTINEL2_BANDS
from tasks.earth.ingest import TileJob, ingest_tile
from tasks.earth.mapping import classify_block, to_physical


def job_in(folder: Path, size: int) -> TileJob:
    """Return the job for an archive that was written before."""
    items = sorted(path.stem for path in (folder / "archive").rglob("S2A*.json"))
    return job_of(Archive(folder / "archive", items=items), size, folder / "warehouse")


def ingest(job: TileJob) -> int:
    """Ingest all dates and return how many."""
    return sum(row.state == "ingested" for row in ingest_tile(job).rows)


def map_regions(job: TileJob, count: int = 2) -> int:
    """Read regions of 256 x 256 with all their looks, classify them, and return the number of looks."""
    for column in range(min(count, job.tile.window[3] // 256)):
        region = {"y": slice(0, 256), "x": slice(256 * column, 256 * column + 256)}
        block = read_block(resolve(job.warehouse) / job.tile.path, region)
        layers = classify_block(block, _forest(block), CANOPY_CLASSES)
        assert set(np.unique(layers["class"])) <= {0, 1, 2, 255}
    return len(block.times)


def _forest(block: SeriesBlock) -> ForestClassifier:
    """Return a small forest for made-up labels: brightness by turns."""
    few = block.reflectance.reshape(*block.reflectance.shape[:2], -1)[:, :, :900]
    valid = block.valid.reshape(len(block.times), -1)[:, :900]
    features = temporal_statistics(to_physical(few), valid, block.times.astype("datetime64[D]"), SENTINEL2_BANDS)
    usable = np.isfinite(features).all(axis=1)
    labels = np.argsort(np.argsort(features[usable, 0])) * 3 // max(1, int(usable.sum()))
    return ForestClassifier(SENTINEL2_BANDS, (0, 1, 2), ForestConfig(trees=20)).fit(features[usable], labels)


if __name__ == "__main__":
    step = {"ingest": ingest, "map": map_regions}[sys.argv[1]]
    dates = step(job_in(Path(sys.argv[2]), int(sys.argv[3])))
    print(json.dumps({"dates": dates, "peak": peak_bytes()}))
