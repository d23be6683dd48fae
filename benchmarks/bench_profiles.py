"""Bulk extraction of profiles: galaxies per second and core beside plain photutils on the same cutouts, and what limits it."""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from sky_cases import sersic_cutout
from sky_folder_cases import SPOIL, to_hdu

from storage.cutouts import Cutout
from storage.location import resolve
from storage.sky import SkyReader
from tasks.sky.extraction import close_processes, extract_batch
from tasks.sky.extraction_plan import ExtractionRequest, ObjectRow, Prepared, prepare_extraction
from tasks.sky.extraction_report import finish_extraction
from tasks.sky.measuring import measure_cutouts, pieces_of, warm_up
from tasks.sky.methods import Weights, open_method
from tasks.sky.workers import WorkerPool

BANDS = ("g", "r", "z")
LIMIT_S = 60.0
METHODS = ("network", "isophote", "photutils")
KINDS = tuple(SPOIL)[:10]


@dataclass(frozen=True)
class Survey:
    """A folder of so many images of so many different galaxies, one in a hundred spoilt in each of ten ways."""

    folder: Path
    targets: Path
    objects: int

    @classmethod
    def make(cls, where: Path, objects: int, different: int) -> Survey:
        """Write the images; those that are alike are links to one file, until they are spoilt."""
        folder = where / "images"
        folder.mkdir(parents=True)
        rng = np.random.default_rng(11)
        sides = np.linspace(48, 256, different).astype(int)
        for number, side in enumerate(rng.permutation(sides)):
            cutout = sersic_cutout(
                side=int(side),
                bands=BANDS,
                magnitude=float(rng.uniform(15.5, 18.5)),
                half_light=float(side) * 0.262 / rng.uniform(9, 14),
                index=float(rng.uniform(0.7, 4.0)),
                ratio=float(rng.uniform(0.3, 0.95)),
                angle=float(rng.uniform(0, 180)),
                seed=number,
            )
            to_hdu(cutout).writeto(where / f"{number}.fits")
        for number in range(objects):
            (folder / f"g{number:05d}.fits").hardlink_to(where / f"{number % different}.fits")
        for place, number in enumerate(range(1, objects, max(1, objects // (len(KINDS) * max(1, objects // 100))))):
            path = folder / f"g{number:05d}.fits"
            copied = shutil.copy(path, where / "copy.fits")
            os.replace(copied, path)
            SPOIL[KINDS[place % len(KINDS)]](path)
        targets = where / "targets.csv"
        rows = [f"g{number:05d},{10 + number / 50},0,g{number:05d}.fits" for number in range(objects)]
        targets.write_text("\n".join(["id,ra,dec,file", *rows]) + "\n")
        return cls(folder, targets, objects)


def extract(prepared: Prepared) -> tuple[list[ObjectRow], float]:
    """Run all batches, two at once as the flow does; return the rows and the seconds."""
    rows: list[ObjectRow] = []
    begun = time.perf_counter()
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda job: extract_batch(job, rows.append), prepared.jobs))
    return rows, time.perf_counter() - begun


def rate(method: str, cutouts: list[Cutout], processes: int) -> float:
    """Return cutouts per second and core that a method alone measures, as a run gives them to its processes."""
    pool, asked = WorkerPool(processes, warm_up), open_method(method, weights=Weights("./no-warehouse"))

    def work(piece: slice) -> int:
        found = measure_cutouts(pool, asked, cutouts[piece], limits_s=[LIMIT_S] * len(cutouts[piece]))
        return sum(bool(outcome.profiles) for outcome in found)

    pieces = list(pieces_of([cutout.flux.nbytes for cutout in cutouts], asked, workers=processes))
    with ThreadPoolExecutor(processes) as threads:
        list(threads.map(lambda _: measure_cutouts(pool, asked, cutouts[:2], limits_s=[LIMIT_S] * 2), range(processes)))
        begun = time.perf_counter()
        measured = sum(threads.map(work, pieces))
        seconds = time.perf_counter() - begun
    pool.close()
    return measured / seconds / processes


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_profiles_of_many_galaxies(benchmark: BenchmarkFixture, full_size: bool, tmp_path: Path) -> None:
    objects, different, sample, batch = (10_000, 200, 100, 100) if full_size else (24, 6, 2, 12)
    processes = os.cpu_count() or 1
    survey = Survey.make(tmp_path, objects, different)
    request = ExtractionRequest(
        str(survey.targets),
        f"folder:{survey.folder}",
        resolve(tmp_path / "warehouse").url,
        bands=BANDS,
        batch_size=batch,
        time_limit_s=LIMIT_S,
        workers=processes,
        pages=False,
    )
    prepared = prepare_extraction(request)
    rows, seconds = benchmark.pedantic(extract, args=(prepared,), rounds=1)
    begun = time.perf_counter()
    extracted = finish_extraction(prepared)
    published_s = time.perf_counter() - begun
    with_pages = 0.0
    if full_size:
        some = replace(request, warehouse=resolve(tmp_path / "pages").url, pages=True)
        jobs = prepare_extraction(some)
        begun = time.perf_counter()
        some_rows, _ = extract(replace(jobs, jobs=jobs.jobs[:4]))
        with_pages = len(some_rows) / (time.perf_counter() - begun) / processes
    close_processes(processes)
    assert len(rows) == objects == sum(extracted.counts.values())
    assert all(row.reason for row in rows if row.state != "measured")
    assert max(row.seconds for row in rows) <= LIMIT_S
    reader = SkyReader(resolve(request.warehouse) / "sky" / "images")
    cutouts = [reader.read(object_id) for object_id in reader.ids[:: max(1, len(reader.ids) // sample)][:sample]]
    alone = {method: rate(method, cutouts, processes) for method in METHODS}
    worked = sum(row.seconds for row in rows)
    states = dict(Counter(row.state for row in rows))
    print(f"\n{objects} galaxies of 48 to 256 pixels in {len(BANDS)} bands on {processes} cores: {states}")
    print(f"whole run        {objects / seconds / processes:8.2f} galaxies/s per core, {seconds:.0f} s")
    for method, found in alone.items():
        print(f"{method + ' alone':<16} {found:8.2f} galaxies/s per core")
    if with_pages:
        print(f"with pages       {with_pages:8.2f} galaxies/s per core")
    print(
        f"{worked / seconds / processes:.0%} of the cores' time went into preparing and measuring; publication {published_s:.0f} s"
    )
    print(f"longest object {max(row.seconds for row in rows):.2f} s of {LIMIT_S:.0f} s")
