"""Profiles by the network from 256-pixel g, r, z cutouts: galaxies per second beside plain photutils and the published architecture."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from models.pix2prof import Pix2Prof, Pix2ProfConfig
from storage.cutouts import Cutout
from storage.location import resolve
from storage.sky import SkyReader, append_cutouts
from tasks.errors import SourceRejected
from tasks.sky.generator import BENCH_FULL, NATIVE_SCALE, draw, to_cutout
from tasks.sky.isophotes import IsophoteMethod
from tasks.sky.methods import DEFAULT_MODEL
from tasks.sky.network_profiles import images_of_cutouts, load_profile_net, read_profiles
from tasks.sky.prepare import prepare_cutout
from tasks.sky.published_photutils import PhotutilsMethod
from tasks.sky.workers import PROCESS_SETTINGS

PIXELS, BATCH = 256, 32
_HELD: list[Cutout] = []


def galaxies(count: int, seed: int) -> list[Cutout]:
    """Return generated galaxies as a survey would give them."""
    drawn = draw(
        count,
        BENCH_FULL,
        generator=torch.Generator().manual_seed(seed),
        pixels=PIXELS,
        pixel_scale_arcsec=NATIVE_SCALE,
    )
    return [to_cutout(drawn, index) for index in range(count)]


def begin(count: int, seed: int) -> None:
    """Draw the cutouts that this process reads, and load the network."""
    torch.set_num_threads(1)
    _HELD[:] = galaxies(count, seed)
    read_batches(_HELD[:BATCH])


def read_batches(cutouts: list[Cutout]) -> int:
    """Return how many galaxies were given a profile, in batches."""
    model = load_profile_net("./no-warehouse", DEFAULT_MODEL)
    found = [
        one for first in range(0, len(cutouts), BATCH) for one in read_profiles(model, cutouts[first : first + BATCH])
    ]
    return sum(not isinstance(one, SourceRejected) for one in found)


def run(_: int) -> tuple[int, float, float]:
    """Return galaxies read in this process, and its wall and processor seconds."""
    wall, used = time.perf_counter(), time.process_time()
    found = read_batches(_HELD)
    return found, time.perf_counter() - wall, time.process_time() - used


def seconds_each(measure: Callable[[Cutout], object], cutouts: list[Cutout]) -> float:
    """Return processor seconds per galaxy on one thread."""
    begun = time.process_time()
    for cutout in cutouts:
        measure(cutout)
    return (time.process_time() - begun) / len(cutouts)


def published(cutout: Cutout) -> None:
    """Read each band by Pix2Prof's published architecture."""
    with torch.inference_mode():
        for plane in images_of_cutouts([cutout]).flux[0]:
            _PUBLISHED.roll_out(plane[None, None])


_PUBLISHED = Pix2Prof(Pix2ProfConfig()).eval()


@pytest.mark.slow
def test_profiles_by_the_network(
    benchmark: BenchmarkFixture, full_size: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(1)
    for name, value in PROCESS_SETTINGS.items():
        monkeypatch.setenv(name, value)  # as the processes of bulk extraction have it
    processes, count, few = (os.cpu_count() or 1, 512, 6) if full_size else (1, 4, 1)
    with ProcessPoolExecutor(
        processes, mp_context=get_context("spawn"), initializer=begin, initargs=(count, 1)
    ) as pool:
        list(pool.map(time.sleep, [1.0] * processes))
        begun = time.perf_counter()
        parts = benchmark.pedantic(lambda: list(pool.map(run, range(processes))), rounds=1)
        wall = time.perf_counter() - begun
    found, used = sum(part[0] for part in parts), sum(part[2] for part in parts)
    some = galaxies(max(few, 8), 2)
    store = resolve(tmp_path) / "sky" / "some"
    append_cutouts(store, [prepare_cutout(cutout) for cutout in some], batch="1")
    reader = SkyReader(store)
    read_s = seconds_each(lambda cutout: reader.read(cutout.object_id), some)
    prepared = [prepare_cutout(cutout) for cutout in some[:few]]
    rivals = {
        "photutils, a fit per band": seconds_each(
            lambda cutout: PhotutilsMethod().measure(cutout, time_limit_s=60), prepared
        ),
        "isophotes": seconds_each(lambda cutout: IsophoteMethod().measure(cutout, time_limit_s=60), prepared),
        "published architecture": seconds_each(published, some[:few]),
    }
    assert found == processes * count
    print(f"\n{found} galaxies of {PIXELS} pixels in g, r, z on {processes} of {os.cpu_count()} cores")
    print(
        f"network          {found / wall:8.1f} galaxies/s by the clock, {found / used:.1f} per second of a core's time"
    )
    print(f"reading a store  {1 / read_s:8.1f} galaxies/s of a core's time")
    for name, seconds in rivals.items():
        print(f"{name:<26} {1 / seconds:8.2f}/s per core: {found / used * seconds:.0f} times")
