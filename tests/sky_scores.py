"""How far profiles are from one another, from public tools' and from the truth of generated galaxies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from storage.cutouts import AB_ZERO_POINT
from tasks.errors import SourceRejected
from tasks.sky.generator import Galaxies, evaluation_radii, true_profile
from tasks.sky.profile import Profile


def differences(
    one: Profile, other: Profile, *, beyond: float, signal_to_noise: float = 10.0, points: int = 60
) -> NDArray[np.float64]:
    """Return what two profiles differ by, mag, from a radius to where either falls below a signal-to-noise."""
    ends = [p.radius_arcsec[p.intensity > signal_to_noise * p.intensity_error].max() for p in (one, other)]
    at = np.geomspace(beyond, min(ends), points)
    assert min(ends) > 1.5 * beyond
    return at_radii(other, at) - at_radii(one, at)


def at_radii(profile: Profile, radius: NDArray[np.float64]) -> NDArray[np.float64]:
    known = np.isfinite(profile.mu)
    return np.interp(np.log(radius), np.log(profile.radius_arcsec[known]), profile.mu[known])


def rms(values: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(values**2)))


def peer_profile(folder: Path, name: str, tool: str) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Return radii, magnitudes and the last radius of S/N 3 of a public tool's profile."""
    table = pd.read_csv(folder / "peer_profiles" / f"{name}_r.{tool}.csv").apply(pd.to_numeric, errors="coerce")
    radius, mu, error = (table[key].to_numpy(float) for key in ("R_arcsec", "SB_mag_arcsec2", "SB_e"))
    known = np.isfinite(mu) & (mu < 90) & (radius > 0)
    return radius[known], mu[known], float(radius[known & (error < 1.0857 / 3)].max())


def against_peers(folder: Path, name: str, profile: Profile) -> tuple[float, float, float]:
    """Return the RMS to the nearer peer, the peers' to each other, and the median offset to the nearer one."""
    peers = [peer_profile(folder, name, tool) for tool in ("autoprof", "photutils")]
    trusted = profile.radius_arcsec[profile.intensity > 3 * profile.intensity_error].max()
    at = np.geomspace(1.5, min(trusted, *(end for _, _, end in peers)), 40)
    one, other = (np.interp(np.log(at), np.log(radius), mu) for radius, mu, _ in peers)
    nearer = min((at_radii(profile, at) - one, at_radii(profile, at) - other), key=rms)
    return rms(nearer), rms(one - other), abs(float(np.median(nearer)))


def protocol_errors(
    galaxies: Galaxies, found: Sequence[tuple[Profile, ...] | SourceRejected], *, band: str = "r"
) -> NDArray[np.float64]:
    """Return the RMS over the true ellipse's radii of each galaxy; a radius without a measurement counts as 1 mag."""
    index, asked_at = galaxies.bands.index(band), evaluation_radii(galaxies)
    truths, radii = (part.numpy()[:, index].astype(float) for part in (true_profile(galaxies, asked_at), asked_at))
    scores = []
    for profiles, radius, flux in zip(found, radii, truths, strict=True):
        truth = AB_ZERO_POINT - 2.5 * np.log10(np.where(flux > 0, flux, np.nan))
        asked = np.isfinite(radius) & np.isfinite(truth)
        if not asked.any():
            continue
        if isinstance(profiles, SourceRejected):
            scores.append(1.0)
            continue
        profile = profiles[index]
        known = profile.radius_arcsec[np.isfinite(profile.mu)]
        apart = at_radii(profile, radius[asked]) - truth[asked]
        scores.append(rms(np.where(radius[asked] <= known.max(), apart, 1.0)))
    return np.array(scores)
