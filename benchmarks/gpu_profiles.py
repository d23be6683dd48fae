"""What one device makes of the sky's networks, for the table of `benchmarks/gpu.py`: profiles from its own memory, and from a store."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from models.polar import Images
from storage.location import resolve
from storage.sky import SkyReader, append_cutouts
from tasks.sky.generator import BENCH_FULL, NATIVE_SCALE, Galaxies, draw, to_cutout
from tasks.sky.methods import DEFAULT_MODEL
from tasks.sky.network_pool import images_of_galaxies
from tasks.sky.network_profiles import find_profiles, load_profile_net, read_profiles

PIXELS = 256
_READERS = 8
_STORED_AT_ONCE = 64


def profile_paces(device: torch.device, folder: Path, *, batch: int, seconds: float) -> dict[str, float]:
    """Return galaxies a second of 256-pixel g, r, z images, by where they come from.

    Parameters
    ----------
    device : torch.device
    folder : Path
        Of the sky store that is written for the occasion.
    batch : int
        Galaxies at once.
    seconds : float
        Of each measurement, after one batch that is not timed.
    """
    model = load_profile_net("./no-warehouse", DEFAULT_MODEL).to(device)
    generator = torch.Generator().manual_seed(0)
    drawn = draw(
        min(batch, _STORED_AT_ONCE), BENCH_FULL, generator=generator, pixels=PIXELS, pixel_scale_arcsec=NATIVE_SCALE
    )
    images, expected = _on_device(drawn, device, batch)

    def from_memory() -> int:
        find_profiles(model, images, expected, pixel_scale_arcsec=NATIVE_SCALE, fixed_geometry=False)
        return batch

    store = resolve(folder) / "sky" / "drawn"
    append_cutouts(store, [to_cutout(drawn, index) for index in range(len(drawn))], batch="1")
    reader = SkyReader(store)

    def from_store() -> int:
        with ThreadPoolExecutor(_READERS) as threads:
            cutouts = list(threads.map(reader.read, reader.ids))
        return len(read_profiles(model, cutouts, device=device))

    runs: dict[str, Callable[[], int]] = {"in the device's memory": from_memory, "from a sky store": from_store}
    found = {name: _pace(run, device, seconds) for name, run in runs.items()}
    model.to("cpu")
    return found


def _on_device(drawn: Galaxies, device: torch.device, batch: int) -> tuple[Images, torch.Tensor]:
    """Return the images of drawn galaxies, over and over up to a batch, and where the galaxies should be."""
    images, rows = images_of_galaxies(drawn), torch.arange(batch) % len(drawn)
    centre = torch.stack([drawn.truth.centre_x, drawn.truth.centre_y], dim=-1)
    parts = (images.flux, images.weight, images.sigma, images.shape, images.fwhm)
    return Images(*(part[rows].to(device) for part in parts)), centre[rows].to(device)


def _pace(run: Callable[[], int], device: torch.device, seconds: float) -> float:
    run()
    _wait(device)
    begun, done = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        done += run()
        _wait(device)
    return done / (time.perf_counter() - begun)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
