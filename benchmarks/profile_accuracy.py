"""Errors of profiles of generated galaxies beside photutils and beside annuli on the true ellipse.

The protocol: 40 radii, log-spaced, from one pixel to the last at which an annulus one pixel wide has S/N 3 (sky noise
alone); the truth is the noiseless galaxy alone, through the point spread function, averaged along the generator's
reference ellipse; a radius that a method does not give counts as 1 mag; the error of a galaxy is the RMS over its radii.

    python benchmarks/profile_accuracy.py bench_simple --galaxies 300 --photutils 60 --seed 77
    python benchmarks/profile_accuracy.py bench_full --galaxies 200 --photutils 60 --band r
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from storage.cutouts import TARGET, Cutout
from tasks.sky.annuli import annulus_edges, measure_annuli
from tasks.sky.ellipses import Ellipses
from tasks.sky.generator import NATIVE_SCALE, PRIORS, Galaxies, draw, evaluation_radii, to_cutout, true_profile
from tasks.sky.isophotes import IsophoteMethod
from tasks.sky.photometry import magnitude
from tasks.sky.prepare import prepare_cutout
from tasks.sky.profile import Profile, ProfileMethod
from tasks.sky.published_photutils import PhotutilsMethod

MISSING_MAG = 1.0
STEP = 1.1


def errors_at(profile: Profile, radius: NDArray[np.float64], truth: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return measured less true magnitude at each radius; what is not given counts as 1 mag."""
    good = np.isfinite(profile.mu)
    if good.sum() < 2:
        return np.full(radius.size, MISSING_MAG)
    known = profile.radius_arcsec[good]
    found = np.interp(np.log(radius), np.log(known), profile.mu[good], right=np.nan)
    return np.where(np.isfinite(found), found - truth, MISSING_MAG)


def oracle(galaxies: Galaxies, index: int, band: int, cutout: Cutout) -> Profile:
    """Return annuli along the true ellipse, with the true sky; neighbours are masked as they were found."""
    truth = galaxies.truth
    flat = 1 - float(truth.axis_ratio[index])
    angle = math.radians(float(truth.position_angle_deg[index]) + 90)
    edges = annulus_edges(0.5, max(cutout.shape) / 1.4, STEP)
    radius = np.sqrt(edges[:-1] * edges[1:])
    shape = np.tile([flat * math.cos(2 * angle), flat * math.sin(2 * angle)], (radius.size, 1))
    x, y = float(truth.centre_x[index]), float(truth.centre_y[index])
    ellipses = Ellipses(x, y, np.zeros((radius.size, 2)), radius, shape, np.ones(radius.size))
    good = cutout.valid[band] & (cutout.segmentation <= TARGET)
    variance = 1 / np.maximum(cutout.ivar[band].astype(float), 1e-12)
    found = measure_annuli(cutout.flux[band].astype(float), good, variance, ellipses, edges, inflation=1.0)
    scale = cutout.pixel_scale_arcsec
    return Profile(
        cutout.object_id,
        cutout.band_names[band],
        radius_arcsec=radius * scale,
        mu=magnitude(found.intensity / scale**2),
    )


def score(
    name: str,
    measure: Callable[[int], Profile],
    galaxies: int,
    radii: NDArray[np.float64],
    truths: NDArray[np.float64],
) -> dict[str, object]:
    """Return median, 90th percentile and share of errors above 0.3 mag, and seconds per galaxy."""
    begun, found = time.perf_counter(), []
    for index in range(galaxies):
        good = np.isfinite(radii[index]) & np.isfinite(truths[index])
        error = errors_at(measure(index), radii[index][good], truths[index][good])
        found.append(math.sqrt(float((error**2).mean())) if error.size else math.nan)
    rms = np.array(found)
    rms = rms[np.isfinite(rms)]
    return {
        "method": name,
        "galaxies": int(rms.size),
        "median": round(float(np.median(rms)), 4),
        "p90": round(float(np.quantile(rms, 0.9)), 4),
        "above_0.3": round(float((rms > 0.3).mean()), 4),
        "seconds": round((time.perf_counter() - begun) / galaxies, 3),
    }


def main() -> None:
    """Draw the galaxies, measure them by every method, print one line of JSON for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prior", choices=sorted(PRIORS))
    parser.add_argument("--galaxies", type=int, default=300)
    parser.add_argument("--photutils", type=int, default=60, help="galaxies that photutils measures, 0 for none")
    parser.add_argument("--band", default="r")
    parser.add_argument("--seed", type=int, default=77)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    prior = PRIORS[asked.prior]
    galaxies = draw(
        asked.galaxies,
        prior,
        generator=torch.Generator().manual_seed(asked.seed),
        pixels=256,
        pixel_scale_arcsec=NATIVE_SCALE,
    )
    band = galaxies.bands.index(asked.band)
    radii = evaluation_radii(galaxies)
    truths = magnitude(true_profile(galaxies, radii).numpy()[:, band].astype(float))
    radii = radii.numpy()[:, band].astype(float)
    cutouts = [prepare_cutout(to_cutout(galaxies, index)) for index in range(asked.galaxies)]

    def by(method: ProfileMethod) -> Callable[[int], Profile]:
        return lambda index: method.measure(cutouts[index], time_limit_s=60.0)[band]

    runs: list[tuple[str, Callable[[int], Profile], int]] = [
        ("isophotes", by(IsophoteMethod()), asked.galaxies),
        ("isophotes, fixed geometry", by(IsophoteMethod(fixed_geometry=True)), asked.galaxies),
        ("true ellipse and sky", lambda index: oracle(galaxies, index, band, cutouts[index]), asked.galaxies),
        ("photutils as it comes", by(PhotutilsMethod()), asked.photutils),
        ("photutils, neighbours masked", by(PhotutilsMethod(mask_neighbours=True)), asked.photutils),
    ]
    for name, measure, count in runs:
        if count:
            print(json.dumps(score(name, measure, count, radii, truths)), flush=True)


if __name__ == "__main__":
    main()
