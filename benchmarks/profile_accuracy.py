"""Errors of profiles of generated galaxies beside photutils and beside annuli on the true ellipse.

The protocol: 40 radii, log-spaced, from one pixel to the last at which an annulus one pixel wide has S/N 3 (sky noise
alone); the truth is the noiseless galaxy alone, through the point spread function, averaged along the generator's
reference ellipse; a radius that a method does not give counts as 1 mag; the error of a galaxy is the RMS over its radii.

Beside it: how often the 68 % interval holds the truth, by the S/N of that annulus; and the median absolute deviation at truths of
26.5 mag per arcsec^2 and brighter, the median over galaxies of each one's median (Pix2Prof's measure, whose 0.34 mag is against a
human on real SDSS images).

    python benchmarks/profile_accuracy.py bench_simple --galaxies 500 --photutils 60 --seed 77
    python benchmarks/profile_accuracy.py bench_full --galaxies 500 --photutils 60 --band r
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from storage.cutouts import AB_ZERO_POINT, TARGET, Cutout
from tasks.errors import SourceRejected
from tasks.sky.annuli import annulus_edges, measure_annuli
from tasks.sky.ellipses import Ellipses
from tasks.sky.generator import (
    NATIVE_SCALE,
    PRIORS,
    Galaxies,
    draw,
    evaluation_radii,
    signal_to_noise,
    to_cutout,
    true_profile,
)
from tasks.sky.isophotes import IsophoteMethod
from tasks.sky.methods import Weights, open_method
from tasks.sky.photometry import magnitude
from tasks.sky.prepare import prepare_cutout
from tasks.sky.profile import Profile, ProfileMethod
from tasks.sky.published_photutils import PhotutilsMethod

MISSING_MAG = 1.0
BRIGHTER_THAN = 26.5
BINS = {"3-10": (3.0, 10.0), "10-30": (10.0, 30.0), ">30": (30.0, math.inf)}
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


@dataclass(frozen=True)
class Case:
    """One galaxy: where it is asked, what is true there, and how well an annulus shows it."""

    radius: NDArray[np.float64]
    truth: NDArray[np.float64]
    signal: NDArray[np.float64]

    @classmethod
    def of(cls, radius: NDArray[np.float64], truth: NDArray[np.float64], signal: NDArray[np.float64]) -> Case:
        """Return a case without the radii that are not asked."""
        asked = np.isfinite(radius) & np.isfinite(truth)
        return cls(radius[asked], truth[asked], signal[asked])

    def held(self, profile: Profile) -> NDArray[np.bool_]:
        """Return whether the profile's 68 % interval holds the truth, at each radius that it reaches."""
        known, at = np.log(profile.radius_arcsec), np.log(self.radius)
        found = np.interp(at, known, profile.intensity, left=np.nan, right=np.nan)
        error = np.interp(at, known, profile.intensity_error)
        return np.abs(found - 10 ** (0.4 * (AB_ZERO_POINT - self.truth))) <= error


def score(name: str, measure: Callable[[int], Profile], cases: Sequence[Case]) -> dict[str, object]:
    """Return median, 90th percentile and share of errors above 0.3 mag, coverage, and seconds per galaxy."""
    begun = time.perf_counter()
    profiles = [measure(index) for index in range(len(cases))]
    seconds = time.perf_counter() - begun
    rms, bright, held = [], [], {label: [] for label in BINS}  # type: list[float], list[float], dict[str, list[bool]]
    for case, profile in zip(cases, profiles, strict=True):
        if not case.radius.size:
            continue
        error = errors_at(profile, case.radius, case.truth)
        rms.append(math.sqrt(float((error**2).mean())))
        above = case.truth <= BRIGHTER_THAN
        if above.any():
            bright.append(float(np.median(np.abs(error[above]))))
        if profile.intensity_error.size > 1:
            inside = case.held(profile)
            for label, (low, high) in BINS.items():
                held[label] += inside[(case.signal >= low) & (case.signal < high)].tolist()
    found = np.array(rms)
    return {
        "method": name,
        "galaxies": int(found.size),
        "median": round(float(np.median(found)), 4),
        "p90": round(float(np.quantile(found, 0.9)), 4),
        "above_0.3": round(float((found > 0.3).mean()), 4),
        "mad_26.5": round(float(np.median(bright)), 4),
        "held_68": {label: round(float(np.mean(inside)), 3) for label, inside in held.items() if inside},
        "seconds": round(seconds / len(cases), 3),
    }


def main() -> None:
    """Draw the galaxies, measure them by every method, print one line of JSON for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prior", choices=sorted(PRIORS))
    parser.add_argument("--galaxies", type=int, default=300)
    parser.add_argument("--photutils", type=int, default=60, help="galaxies that photutils measures, 0 for none")
    parser.add_argument("--band", default="r")
    parser.add_argument("--seed", type=int, default=77)
    parser.add_argument("--warehouse", default="warehouse", help="of --model")
    parser.add_argument("--model", default="", help="weights of the network, by default the shipped ones")
    parser.add_argument("--only", nargs="*", help="methods whose names begin so")
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
    truths, signals = (part(galaxies, radii).numpy()[:, band] for part in (true_profile, signal_to_noise))
    places = radii.numpy()[:, band].astype(float)
    cases = [Case.of(*parts) for parts in zip(places, magnitude(truths.astype(float)), signals, strict=True)]
    cutouts = [prepare_cutout(to_cutout(galaxies, index)) for index in range(asked.galaxies)]

    def by(method: ProfileMethod) -> Callable[[int], Profile]:
        return lambda index: measured(method, cutouts[index], band)

    weights = Weights(asked.warehouse, asked.model)
    runs: list[tuple[str, Callable[[int], Profile], int]] = [
        ("network", by(open_method("network", weights=weights)), asked.galaxies),
        ("network, fixed geometry", by(open_method("network", geometry="fixed", weights=weights)), asked.galaxies),
        (
            "network, fixed geometry, 5 passes",
            by(open_method("network", geometry="fixed", weights=replace(weights, members=5))),
            asked.galaxies,
        ),
        (
            "network, fixed geometry, isophotes where unsure",
            by(open_method("auto", geometry="fixed", weights=weights)),
            asked.galaxies,
        ),
        ("isophotes", by(IsophoteMethod()), asked.galaxies),
        ("isophotes, fixed geometry", by(IsophoteMethod(fixed_geometry=True)), asked.galaxies),
        ("true ellipse and sky", lambda index: oracle(galaxies, index, band, cutouts[index]), asked.galaxies),
        ("photutils as it comes", by(PhotutilsMethod()), asked.photutils),
        ("photutils, neighbours masked", by(PhotutilsMethod(mask_neighbours=True)), asked.photutils),
    ]
    for name, measure, count in runs:
        if count and (not asked.only or any(name.startswith(word) for word in asked.only)):
            print(json.dumps(score(name, measure, cases[:count])), flush=True)


def measured(method: ProfileMethod, cutout: Cutout, band: int) -> Profile:
    """Return the profile of a band; an empty one where the method found nothing to measure."""
    try:
        return method.measure(cutout, time_limit_s=60.0)[band]
    except SourceRejected:
        return Profile(cutout.object_id, cutout.band_names[band], state="rejected")


if __name__ == "__main__":
    main()
