"""Generated galaxies: single ones against GalSim, and ones with structure for training, on one core."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.sidebyside import by_turns, ratio
from tasks.sky.generator import BENCH_FULL, BENCH_SIMPLE, Galaxies, draw

PIXELS, SCALE = 64, 0.524


def by_galsim(galaxies: Galaxies) -> np.ndarray:
    """Return the clean images of galaxies of `BENCH_SIMPLE` as GalSim draws them by default."""
    import galsim

    truth, images = galaxies.truth, []
    psf = galsim.Moffat(beta=3.5, fwhm=1.2)
    for k in range(len(galaxies)):
        ratio_ = float(truth.axis_ratio[k])
        radius = float(truth.radius_arcsec[k]) * ratio_**0.5
        law = galsim.Sersic(n=float(truth.sersic_index[k]), half_light_radius=radius, flux=float(truth.flux[k, 0]))
        law = law.shear(q=ratio_, beta=(float(truth.position_angle_deg[k]) + 90) * galsim.degrees)
        centre = galsim.PositionD(float(truth.centre_x[k]) + 1, float(truth.centre_y[k]) + 1)
        image = galsim.ImageF(galaxies.clean.shape[-1], galaxies.clean.shape[-1], scale=galaxies.pixel_scale_arcsec)
        images.append(galsim.Convolve(law, psf).drawImage(image, center=centre).array)
    return np.stack(images)


@pytest.mark.parametrize(("pixels", "scale"), [(64, 0.524), (256, 0.262)])
def test_single_galaxies(benchmark: BenchmarkFixture, full_size: bool, pixels: int, scale: float) -> None:
    torch.set_num_threads(1)
    count = 64 if full_size else 4
    generator = torch.Generator().manual_seed(0)
    galaxies = draw(count, BENCH_SIMPLE, generator=generator, pixels=pixels, pixel_scale_arcsec=scale)
    apart = np.abs(galaxies.clean[:, 0].numpy() - by_galsim(galaxies)).max() / float(galaxies.clean.max())
    assert apart < 0.03

    def ours() -> None:
        draw(count, BENCH_SIMPLE, generator=generator, pixels=pixels, pixel_scale_arcsec=scale)

    seconds = by_turns({"galsim": lambda: by_galsim(galaxies), "canopus": ours}, 3 if full_size else 1)
    benchmark.pedantic(ours, rounds=1)
    print(f"\nsingle galaxies of {pixels} pixels, one band: ", end="")
    print(", ".join(f"{name} {count / np.median(spent):.0f}/s" for name, spent in seconds.items()), end="")
    print(f"; {ratio(seconds['galsim'], seconds['canopus']):.1f} times, {apart:.1e} of the peak apart")


def test_galaxies_with_structure(benchmark: BenchmarkFixture, full_size: bool) -> None:
    torch.set_num_threads(1)
    count = 256 if full_size else 4
    generator = torch.Generator().manual_seed(0)

    def run() -> Galaxies:
        return draw(count, BENCH_FULL, generator=generator, pixels=PIXELS, pixel_scale_arcsec=SCALE)

    run()
    begun, used = time.perf_counter(), time.process_time()
    galaxies = benchmark.pedantic(run, rounds=1)
    wall, cpu = time.perf_counter() - begun, time.process_time() - used
    assert galaxies.flux.shape == (count, 3, PIXELS, PIXELS)
    print(f"\ngalaxies with structure, {PIXELS} pixels, g, r, z, one of {os.cpu_count()} cores: ", end="")
    print(f"{count / wall:.0f}/s by the clock, {count / cpu:.0f} per second of the core's time")
