"""Profiles beside their references: differences at common radii, and the scores of many."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.sky.photometry import POGSON
from tasks.sky.profile import Profile
from tasks.sky.reference_profiles import Reference

RADII = 40
"""Log-spaced radii at which two profiles are compared."""
SIGNAL_BINS = (3.0, 5.0, 10.0, 30.0, 100.0, math.inf)
_FEWEST = 3


@dataclass(frozen=True)
class ComparisonRule:
    """Over which radii profiles are compared: those that both have, and

    Parameters
    ----------
    first_arcsec, last_arcsec : float
        Within these.
    signal : float
        Where both have at least this signal to noise; a reference without errors everywhere.
    """

    first_arcsec: float = 0.0
    last_arcsec: float = math.inf
    signal: float = 3.0


@dataclass(frozen=True)
class Comparison:
    """One profile beside its reference.

    Parameters
    ----------
    radius_arcsec, difference : ndarray, shape (RADII,)
        Where; measured minus reference, mag.
    signal : ndarray, shape (RADII,)
        Intensity by its error, as measured; NaN where no error is stated.
    sigma : ndarray, shape (RADII,)
        Error of the difference as both state theirs, mag; NaN where one states none.
    """

    object_id: str
    band: str
    radius_arcsec: NDArray[np.float64]
    difference: NDArray[np.float64]
    signal: NDArray[np.float64]
    sigma: NDArray[np.float64]

    @property
    def rms(self) -> float:
        """Return the root of the mean square difference, mag."""
        return float(np.sqrt(np.mean(self.difference**2)))

    @property
    def offset(self) -> float:
        """Return the median difference, mag."""
        return float(np.median(self.difference))


def match_names(references: Sequence[Reference], known: set[str]) -> tuple[Reference, ...]:
    """Return those references whose object is known, under its known name.

    Where a file's name goes on (``NAME_img_ivar``), or the object's does (``NAME_2000``), the one that begins alike is meant,
    if there is but one.
    """
    found = []
    for reference in references:
        name = reference.object_id
        alike = [each for each in known if each.startswith(f"{name}_") or name.startswith(f"{each}_")]
        matching = [name] if name in known else alike
        if len(matching) == 1:
            found.append(replace(reference, object_id=matching[0]))
    return tuple(found)


def compare(profile: Profile, reference: Reference, *, rule: ComparisonRule) -> Comparison | None:
    """Return a profile beside its reference, interpolated in the logarithm of the radius; None without common radii.

    A profile that states no errors at all is compared to its end.
    """
    good, signal = np.isfinite(profile.mu), np.full(profile.mu.size, np.nan)
    if np.isfinite(profile.intensity_error).any():
        good &= np.isfinite(profile.intensity_error) & (profile.intensity_error > 0)
        signal = np.where(good, profile.intensity / np.where(good, profile.intensity_error, 1.0), 0.0)
        good &= _until_last(signal >= rule.signal)
    known = _until_last(reference.mu_error <= POGSON / rule.signal)
    if good.sum() < _FEWEST or known.sum() < _FEWEST:
        return None
    radius, theirs = profile.radius_arcsec[good], reference.radius_arcsec[known]
    first = max(radius[0], theirs[0], rule.first_arcsec)
    last = min(radius[-1], theirs[-1], rule.last_arcsec)
    if not first < last:
        return None
    at = np.geomspace(first, last, RADII)
    mine = [np.interp(np.log(at), np.log(radius), values[good]) for values in (profile.mu, profile.mu_error, signal)]
    other = [np.interp(np.log(at), np.log(theirs), values[known]) for values in (reference.mu, reference.mu_error)]
    sigma = np.hypot(mine[1], other[1])
    return Comparison(profile.object_id, profile.band, at, mine[0] - other[0], mine[2], sigma)


def compare_all(
    profiles: Iterable[Profile], references: Sequence[Reference], *, rule: ComparisonRule
) -> dict[str, dict[str, list[Comparison | None]]]:
    """Return, by the references' tool and then by method, a comparison for each reference; None where it is lost."""
    methods: dict[str, dict[tuple[str, str], Profile]] = {}
    for profile in profiles:
        if profile.method:
            methods.setdefault(profile.method, {})[profile.object_id, profile.band] = profile
    return {
        tool: {
            method: [_compared(found, reference, rule) for reference in references if reference.tool == tool]
            for method, found in methods.items()
        }
        for tool in dict.fromkeys(reference.tool for reference in references)
    }


def _compared(
    found: Mapping[tuple[str, str], Profile], reference: Reference, rule: ComparisonRule
) -> Comparison | None:
    profile = found.get((reference.object_id, reference.band))
    return compare(profile, reference, rule=rule) if profile is not None and profile.state == "measured" else None


def score(profiles: Iterable[Profile], references: Sequence[Reference], *, rule: ComparisonRule) -> dict[str, Any]:
    """Return scores as plain data.

    ``methods`` are those against the first tool of the references; ``references`` has each tool, and ``between`` the
    tools' own differences from each other.
    """
    compared = compare_all(profiles, references, rule=rule)
    scores = {tool: {method: _score(found) for method, found in by.items()} for tool, by in compared.items()}
    galaxies = {
        tool: {
            method: {f"{one.object_id} {one.band}": {"rms": one.rms, "offset": one.offset} for one in found if one}
            for method, found in by.items()
        }
        for tool, by in compared.items()
    }
    first = next(iter(scores))
    return plain(
        {
            "methods": scores[first],
            "references": {tool: {"methods": found} for tool, found in scores.items()},
            "between": _between(references, rule),
            "galaxies": galaxies,
        }
    )


def _score(found: Sequence[Comparison | None]) -> dict[str, Any]:
    there = [one for one in found if one is not None]
    scores: dict[str, Any] = {"n": len(found), "lost": 1 - len(there) / len(found)}
    rms = np.array([one.rms for one in there])
    stated = [one for one in there if np.isfinite(one.sigma).all()]
    inside = np.concatenate([np.abs(one.difference) <= one.sigma for one in stated]) if stated else np.empty(0)
    scores |= {
        "rms_median": float(np.median(rms)) if there else None,
        "rms_p90": float(np.percentile(rms, 90)) if there else None,
        "offset_median": float(np.median([one.offset for one in there])) if there else None,
        "coverage68": float(inside.mean()) if stated else None,
        "by_signal": list(_by_signal(there)),
    }
    return scores


def _by_signal(there: Sequence[Comparison]) -> Iterable[dict[str, Any]]:
    if not there:
        return
    signal, difference, sigma = (
        np.concatenate([getattr(one, name) for one in there]) for name in ("signal", "difference", "sigma")
    )
    for low, high in pairwise(SIGNAL_BINS):
        inside = (signal >= low) & (signal < high)
        if inside.any():
            part = difference[inside]
            yield {
                "from": low,
                "to": high if math.isfinite(high) else None,
                "radii": int(inside.sum()),
                "rms": float(np.sqrt(np.mean(part**2))),
                "offset": float(np.median(part)),
                "coverage68": float((np.abs(part) <= sigma[inside]).mean()),
            }


def _between(references: Sequence[Reference], rule: ComparisonRule) -> dict[str, Any]:
    """Return how far the references of two tools lie from each other, as if one were the measured one."""
    tools = list(dict.fromkeys(reference.tool for reference in references))
    found: dict[str, Any] = {}
    for index, one in enumerate(tools):
        for other in tools[index + 1 :]:
            theirs = {(each.object_id, each.band): each for each in references if each.tool == other}
            pairs = [(each, theirs.get((each.object_id, each.band))) for each in references if each.tool == one]
            compared = [compare(_as_profile(each), match, rule=rule) for each, match in pairs if match is not None]
            there = [comparison for comparison in compared if comparison is not None]
            if there:
                found[f"{one} and {other}"] = {
                    "n": len(there),
                    "rms_median": float(np.median([comparison.rms for comparison in there])),
                    "galaxies": {f"{comparison.object_id} {comparison.band}": comparison.rms for comparison in there},
                }
    return found


def _as_profile(reference: Reference) -> Profile:
    intensity = 10 ** (-0.4 * reference.mu)
    error = np.maximum(reference.mu_error, 1e-6)
    return Profile(
        reference.object_id,
        reference.band,
        radius_arcsec=reference.radius_arcsec,
        intensity=intensity,
        intensity_error=intensity * error / POGSON,
        mu=reference.mu,
        mu_error=error,
    )


def _until_last(good: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return what is good up to the first two that are not: single dips are forgiven, what comes after is not counted."""
    bad = ~good
    both = np.flatnonzero(bad[:-1] & bad[1:])
    end = both[0] if both.size else good.size
    return good & (np.arange(good.size) < end)


def plain(value: Any) -> Any:
    """Return plain data without infinities and NaN, which JSON does not have."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
