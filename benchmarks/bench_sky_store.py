"""The sky store beside a file for each object: a thousand cutouts of 64 to 256 pixels written, and read one by one."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from astropy.io import fits
from pytest_benchmark.fixture import BenchmarkFixture

from storage.cutouts import BandFacts, Cutout
from storage.location import resolve
from storage.sky import SkyReader, append_cutouts
from storage.sky_schema import PLANES

BANDS = ("g", "r", "z")
TOGETHER = 100


def galaxy(number: int, side: int) -> Cutout:
    """Return a disc in noise as a survey gives it: full inverse variance, no mask bit, a labelled neighbour."""
    rng = np.random.default_rng(number)
    radius = np.hypot(*(np.mgrid[:side, :side] - side / 2))
    size = (len(BANDS), side, side)
    flux = (np.exp(-radius / 8) + rng.normal(0, 0.02, size)).astype(np.float32)
    segmentation = (radius < side / 4).astype(np.int32)
    segmentation[: side // 8, : side // 8] = 2
    bands = tuple(BandFacts(name, psf_fwhm_arcsec=1.2, ivar_source="survey") for name in BANDS)
    ivar = rng.normal(2500, 50, size).astype(np.float32)
    empty = np.zeros(size, dtype=np.int32)
    return Cutout(str(number), 0.0, 0.0, bands, flux, np.ones(size, bool), ivar, empty, segmentation, "", 0.262)


def write_npz(folder: Path, cutout: Cutout) -> None:
    np.savez(folder / f"{cutout.object_id}.npz", **{plane.name: getattr(cutout, plane.name) for plane in PLANES})


def read_npz(folder: Path, object_id: str) -> np.ndarray:
    with np.load(folder / f"{object_id}.npz") as file:
        planes = {name: file[name] for name in file.files}
    return planes["flux"]


def write_fits(folder: Path, cutout: Cutout) -> None:
    """Write five images of one object, not compressed."""
    planes = [getattr(cutout, plane.name) for plane in PLANES]
    units = [fits.ImageHDU(plane.astype(np.uint8) if plane.dtype == bool else plane) for plane in planes]
    fits.HDUList([fits.PrimaryHDU(), *units]).writeto(folder / f"{cutout.object_id}.fits")


def read_fits(folder: Path, object_id: str) -> np.ndarray:
    with fits.open(io.BytesIO((folder / f"{object_id}.fits").read_bytes())) as file:
        planes = [np.array(unit.data) for unit in file[1:]]
    return planes[0]


def seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def disk_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_sky_store(benchmark: BenchmarkFixture, full_size: bool, tmp_path: Path) -> None:
    count = 1000 if full_size else 20
    rng = np.random.default_rng(1)
    cutouts = [galaxy(number, int(side)) for number, side in enumerate(rng.integers(64, 257, count))]
    ids = [cutout.object_id for cutout in cutouts]
    size = sum(getattr(cutout, plane.name).nbytes for cutout in cutouts for plane in PLANES)
    store = resolve(tmp_path) / "sky/legacy"

    def append() -> None:
        for start in range(0, count, TOGETHER):
            append_cutouts(store, cutouts[start : start + TOGETHER], batch=f"{start:05d}")

    def read() -> list[Cutout]:
        reader = SkyReader(store)
        return [reader.read(object_id) for object_id in ids]

    rows = {"sky store": (seconds(append), seconds(read), disk_bytes(tmp_path / "sky"))}
    for name, write, take in (("npz", write_npz, read_npz), ("FITS", write_fits, read_fits)):
        folder = tmp_path / name
        folder.mkdir()
        written = seconds(lambda: [write(folder, cutout) for cutout in cutouts])  # noqa: B023
        rows[name] = written, seconds(lambda: [take(folder, one) for one in ids]), disk_bytes(folder)  # noqa: B023
    reader = SkyReader(store)
    for cutout in cutouts[:5]:
        np.testing.assert_array_equal(reader.read(cutout.object_id).flux, cutout.flux)
        np.testing.assert_array_equal(read_npz(tmp_path / "npz", cutout.object_id), cutout.flux)
        np.testing.assert_array_equal(read_fits(tmp_path / "FITS", cutout.object_id), cutout.flux)
    benchmark.pedantic(reader.read, args=(ids[0],), rounds=5)
    print(f"\n{count} objects of 64 to 256 pixels in {len(BANDS)} bands, {size / 1e6:.0f} MB in memory")
    for name, (written, taken, held) in rows.items():
        rates = (
            f"write {size / 1e6 / written:.0f} MB/s, read {size / 1e6 / taken:.0f} MB/s, {1e3 * taken / count:.1f} ms"
        )
        print(f"{name}: {rates} an object, {held / 1e6:.0f} MB on disk")
