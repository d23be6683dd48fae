"""How good a map is, and how much of each class there is: with intervals, or not at all.

Scores of held-out labels describe those labels (`tasks.earth.scores`). Accuracy and areas *of the map* come from a
probability sample only: strata that are the map's classes by Olofsson et al. (2014), other strata by Stehman (2014).
Matrices have the map in rows and the reference in columns.

References
----------
Olofsson, P. et al. (2014). Good practices for estimating area and assessing accuracy of land change. Remote Sensing
of Environment 148, 42-57.
Stehman, S. V. (2014). Estimating area and map accuracy for stratified random sampling when the strata are different
from the map classes. International Journal of Remote Sensing 35(13), 4923-4939.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tasks.errors import ConfigurationError

NOT_ESTIMATED = "areas not estimated: there is no probability sample; mapped areas are counts of pixels, not estimates"


class ProbabilitySampleError(ConfigurationError):
    """A sample whose units were not drawn with known probabilities; no interval follows from it."""


@dataclass(frozen=True)
class Estimate:
    """An estimate and its interval.

    Parameters
    ----------
    value, standard_error : float
        NaN where the sample does not allow them.
    low, high : float
        95 % interval; NaN where there is none.
    note : str
        Why something is NaN, or which interval it is; empty for the usual normal one.
    """

    value: float
    standard_error: float
    low: float
    high: float
    note: str = ""

    def scaled(self, factor: float) -> Estimate:
        """Return the same in another unit."""
        value, error, low, high = (factor * number for number in (self.value, self.standard_error, self.low, self.high))
        return Estimate(value, error, low, high, self.note)

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON, NaN as None."""
        numbers = {
            "value": self.value,
            "standard_error": self.standard_error,
            "low": self.low,
            "high": self.high,
        }
        return {name: None if math.isnan(x) else x for name, x in numbers.items()} | (
            {"note": self.note} if self.note else {}
        )


@dataclass(frozen=True)
class AccuracyEstimates:
    """Accuracy of a map and area of its classes, estimated from a probability sample.

    Parameters
    ----------
    method : str
        ``"olofsson2014"`` or ``"stehman2014"``.
    classes : tuple of str
        Order of everything below.
    overall : Estimate
        Overall accuracy, share of area.
    users, producers : tuple of Estimate
        Per class.
    area_share : tuple of Estimate
        Share of the whole area that is of each class by the reference, not by the map.
    matrix : ndarray, shape (K, K)
        Estimated shares of area, map in rows.
    sampled : mapping of str to int
        Units used per stratum.
    notes : tuple of str
        What a reader has to know.
    """

    method: str
    classes: tuple[str, ...]
    overall: Estimate
    users: tuple[Estimate, ...]
    producers: tuple[Estimate, ...]
    area_share: tuple[Estimate, ...]
    matrix: np.ndarray
    sampled: Mapping[str, int]
    notes: tuple[str, ...] = ()

    def to_dict(self, *, total_hectares: float | None = None) -> dict[str, Any]:
        """Return it for JSON; with `total_hectares` areas stand in hectares beside their shares."""
        per_class: dict[str, Any] = {}
        for name, users, producers, share in zip(
            self.classes, self.users, self.producers, self.area_share, strict=True
        ):
            per_class[name] = {
                "users_accuracy": users.to_dict(),
                "producers_accuracy": producers.to_dict(),
                "area_share": share.to_dict(),
            }
            if total_hectares is not None:
                per_class[name]["area_hectares"] = share.scaled(total_hectares).to_dict()
        return {
            "method": self.method,
            "confidence": 0.95,
            "overall_accuracy": self.overall.to_dict(),
            "classes": per_class,
            "matrix_of_area_shares": self.matrix.tolist(),
            "sampled": dict(self.sampled),
            "notes": list(self.notes),
        }


def olofsson(counts: np.ndarray, mapped: Sequence[float], classes: Sequence[str]) -> AccuracyEstimates:
    """Return accuracy and areas where the strata are the map's classes.

    Parameters
    ----------
    counts : ndarray, shape (K, K)
        Sample units, map class (the stratum) in rows, reference class in columns.
    mapped : sequence of float
        Area or number of pixels of each class on the map, any unit.
    classes : sequence of str
        Names of the K classes.

    Raises
    ------
    ConfigurationError
        Where a class that is on the map has no sample unit.

    References
    ----------
    Olofsson et al. (2014), equations 1-11: shares (4), variances of overall (5), user's (6) and producer's accuracy
    (7), areas (9)-(11). No finite population correction, as there.
    """
    counts = np.asarray(counts, float)
    units = counts.sum(axis=1)
    share = np.asarray(mapped, float) / np.sum(mapped)
    _require_units(units, share, classes)
    within = counts / np.maximum(units, 1)[:, None]  # n_ij / n_i.
    matrix = share[:, None] * within
    spread = np.where((share > 0) & (units < 2), np.nan, 1 / np.maximum(units - 1, 1))  # 1 / (n_i. - 1)
    users = np.diag(within)
    user_variance = users * (1 - users) * spread
    area = matrix.sum(axis=0)
    area_variance = (share[:, None] ** 2 * within * (1 - within) * spread[:, None]).sum(axis=0)
    single = _single_unit_note(units, classes, share)
    return AccuracyEstimates(
        method="olofsson2014",
        classes=tuple(classes),
        overall=_proportion(float(np.diag(matrix).sum()), float((share**2 * user_variance).sum()), single),
        users=tuple(_binomial(float(counts[i, i]), float(units[i])) for i in range(len(classes))),
        producers=tuple(_producers(matrix, within, share, spread, j, single) for j in range(len(classes))),
        area_share=tuple(_proportion(a, v, single) for a, v in zip(area.tolist(), area_variance.tolist(), strict=True)),
        matrix=matrix,
        sampled={name: int(n) for name, n in zip(classes, units, strict=True)},
        notes=(single,) if single else (),
    )


def stehman(
    strata: Sequence[str],
    mapped: Sequence[str],
    reference: Sequence[str],
    *,
    stratum_sizes: Mapping[str, float],
    classes: Sequence[str],
) -> AccuracyEstimates:
    """Return accuracy and areas where the strata are not the map's classes.

    Parameters
    ----------
    strata, mapped, reference : sequence of str
        Stratum, map class and reference class of each sample unit.
    stratum_sizes : mapping of str to float
        Number of pixels N_h of every stratum.
    classes : sequence of str
        Names of the K classes.

    Raises
    ------
    ConfigurationError
        Where a stratum has no sample unit.

    References
    ----------
    Stehman (2014): indicator variables (12)-(24), stratified estimator and variance (2), (25), combined ratio
    estimator and variance (27), (28), with the finite population correction.
    """
    sample = _Stratified.of(strata, stratum_sizes)
    map_is = _indicators(mapped, classes)  # (K, n)
    reference_is = _indicators(reference, classes)
    matrix = np.array([[sample.mean(a & b) for b in reference_is] for a in map_is])
    return AccuracyEstimates(
        method="stehman2014",
        classes=tuple(classes),
        overall=sample.share((map_is & reference_is).any(axis=0)),
        users=tuple(sample.ratio(a & b, a) for a, b in zip(map_is, reference_is, strict=True)),
        producers=tuple(sample.ratio(a & b, b) for a, b in zip(map_is, reference_is, strict=True)),
        area_share=tuple(sample.share(b) for b in reference_is),
        matrix=matrix,
        sampled=sample.units,
        notes=(sample.single,) if sample.single else (),
    )


def estimate_from_sample(sample: Any, classes: Sequence[str]) -> AccuracyEstimates:
    """Return accuracy and areas from an interpreted sample.

    Strata whose names equal the map class of every unit are taken as the map's classes (Olofsson 2014); any other
    strata go through Stehman (2014). Units without a reference are left out, as if missing at random in their stratum.

    Parameters
    ----------
    sample : DataFrame
        As `tasks.earth.sample.draw_sample` makes it, with ``reference`` filled in.
    classes : sequence of str
        Names of the map's classes.

    Raises
    ------
    ProbabilitySampleError
        Where inclusion probabilities are missing, not in (0, 1], or differ within a stratum.
    ConfigurationError
        Where a class is unknown, nothing is interpreted, or a stratum has no interpreted unit.
    """
    sizes = stratum_sizes_of(sample)
    sample = sample.assign(reference=references_of(sample))
    used = sample[sample["reference"] != ""]
    if used.empty:
        raise ConfigurationError("the sample's field 'reference' is empty throughout: fill in what each point is")
    _require_known_classes(used, classes)
    strata, mapped, reference = (used[field].astype(str).tolist() for field in ("stratum", "map_class", "reference"))
    estimates = (
        _from_map_strata(mapped, reference, sizes, classes)
        if strata == mapped
        else stehman(strata, mapped, reference, stratum_sizes=sizes, classes=classes)
    )
    left_out = len(sample) - len(used)
    return _with_note(
        estimates, f"{left_out} of {len(sample)} units have no reference and are left out" if left_out else ""
    )


def stratum_sizes_of(sample: Any) -> dict[str, float]:
    """Return the number of pixels in each stratum of a probability sample: its units over their inclusion probability.

    Raises
    ------
    ProbabilitySampleError
        As in `estimate_from_sample`.
    """
    missing = {"stratum", "inclusion_probability", "map_class", "reference"} - set(sample.columns)
    if missing:
        raise ProbabilitySampleError(
            f"the sample lacks {', '.join(sorted(missing))}: areas and map accuracy need a probability sample; "
            "draw one with `canopus sample` and fill in its field 'reference'"
        )
    probability = sample["inclusion_probability"].astype(float)
    if not ((probability > 0) & (probability <= 1)).all():
        raise ProbabilitySampleError("inclusion_probability must be above 0 and at most 1 for every unit of the sample")
    sizes = {}
    for stratum, units in sample.assign(inclusion_probability=probability).groupby("stratum"):
        if units["inclusion_probability"].nunique() > 1 and np.ptp(units["inclusion_probability"]) > 1e-9:
            raise ProbabilitySampleError(
                f"inclusion_probability differs within stratum {stratum!r}: it must be one value"
            )
        sizes[str(stratum)] = _stratum_size(units)
    return sizes


def references_of(sample: Any) -> Any:
    """Return the field ``reference`` as text, ``""`` where it is not filled in."""
    given = sample["reference"]
    return given.astype(object).where(given.notna(), "").astype(str).str.strip()


def mapped_areas(pixels: Mapping[str, int], *, pixel_area_m2: float) -> dict[str, Any]:
    """Return areas as the map counts them, and the line that says what they are not.

    Parameters
    ----------
    pixels : mapping of str to int
        Pixels of each class on the map.
    pixel_area_m2 : float
        Area of a pixel.
    """
    hectares = {name: count * pixel_area_m2 / 10_000 for name, count in pixels.items()}
    return {"mapped_hectares": hectares, "note": NOT_ESTIMATED}


@dataclass(frozen=True)
class _Stratified:
    """A stratified random sample: which units lie in which stratum (H, n), N_h and n_h."""

    member: np.ndarray
    size: np.ndarray
    taken: np.ndarray
    names: tuple[str, ...]

    @classmethod
    def of(cls, strata: Sequence[str], stratum_sizes: Mapping[str, float]) -> _Stratified:
        names = tuple(stratum_sizes)
        unknown = set(strata) - set(names)
        if unknown:
            raise ConfigurationError(f"the size of stratum {', '.join(sorted(unknown))} is not given")
        member = _indicators(strata, names)
        size = np.array([stratum_sizes[name] for name in names], float)
        sample = cls(member, size, member.sum(axis=1).astype(float), names)
        _require_units(sample.taken, size / size.sum(), names)
        return sample

    @property
    def units(self) -> dict[str, int]:
        return {name: int(n) for name, n in zip(self.names, self.taken, strict=True)}

    @property
    def single(self) -> str:
        return _single_unit_note(self.taken, self.names, self.size)

    def mean(self, y: np.ndarray) -> float:
        """Return the estimated mean of y over all pixels: equation 2."""
        return float((self.size * self._stratum_mean(y)).sum() / self.size.sum())

    def share(self, y: np.ndarray) -> Estimate:
        return self._estimate(self.mean(y), self._variance_of_total(y) / self.size.sum() ** 2)

    def ratio(self, y: np.ndarray, x: np.ndarray) -> Estimate:
        """Return Y / X: equations 27 and 28; the variance of y - R x is s2_y + R2 s2_x - 2 R s_xy."""
        total = self.mean(x) * self.size.sum()
        if total == 0:
            return _nothing("no sampled unit is of this class")
        value = self.mean(y) * self.size.sum() / total
        return self._estimate(value, self._variance_of_total(y - value * x) / total**2)

    def _estimate(self, value: float, variance: float) -> Estimate:
        if (self.taken >= self.size).all():
            return Estimate(value, 0.0, value, value, "every pixel was looked at")
        return _proportion(value, variance, self.single)

    def _stratum_mean(self, y: np.ndarray) -> np.ndarray:
        return np.asarray((self.member * y).sum(axis=1) / np.maximum(self.taken, 1))

    def _variance_of_total(self, y: np.ndarray) -> float:
        deviation = np.where(self.member, y - self._stratum_mean(y)[:, None], 0)
        variance = (deviation**2).sum(axis=1) / np.where(self.taken > 1, self.taken - 1, np.nan)
        with np.errstate(divide="ignore", invalid="ignore"):
            of_stratum = self.size**2 * (1 - self.taken / self.size) * variance / self.taken
        census = self.taken >= self.size  # every pixel was looked at: nothing is uncertain
        return float(np.where(census, 0, of_stratum).sum())


def _indicators(values: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """Return where values equal each name, (names, values)."""
    return np.asarray(np.array(list(values))[None] == np.array(list(names))[:, None])


def _producers(
    matrix: np.ndarray, within: np.ndarray, share: np.ndarray, spread: np.ndarray, column: int, note: str
) -> Estimate:
    """Return producer's accuracy of one class: equation 7 divided by the squared size of the map."""
    total = matrix[:, column].sum()
    if total == 0:
        return _nothing("no sampled unit is of this class")
    value = matrix[column, column] / total
    variance = share**2 * within[:, column] * (1 - within[:, column]) * spread
    own = variance[column]
    others = variance.sum() - own
    return _proportion(float(value), float(((1 - value) ** 2 * own + value**2 * others) / total**2), note)


def _proportion(value: float, variance: float, note: str) -> Estimate:
    """Return a share with its normal interval, cut to 0-1; none where the variance is unknown or estimated as 0."""
    from scipy.stats import norm

    error = math.sqrt(variance)
    if math.isnan(error):
        return Estimate(value, math.nan, math.nan, math.nan, note)
    if error == 0:
        return Estimate(
            value,
            0.0,
            math.nan,
            math.nan,
            "all sampled units agree: the variance is estimated as 0, which is no interval",
        )
    half = float(norm.ppf(0.975)) * error
    return Estimate(value, error, max(value - half, 0.0), min(value + half, 1.0))


def _binomial(successes: float, units: float) -> Estimate:
    """Return a share of independent units: equation 6; the exact (Clopper-Pearson) interval where all agree."""
    from scipy.stats import beta

    if units == 0:
        return _nothing("no sampled unit is of this class on the map")
    value = successes / units
    if units < 2:
        return Estimate(value, math.nan, math.nan, math.nan, "one sampled unit has no variance")
    if 0 < successes < units:
        return _proportion(value, value * (1 - value) / (units - 1), "")
    low = float(beta.ppf(0.025, successes, 1)) if successes else 0.0
    high = 1.0 if successes else float(beta.ppf(0.975, 1, units))
    return Estimate(value, 0.0, low, high, "all sampled units agree: exact binomial interval")


def _nothing(note: str) -> Estimate:
    return Estimate(math.nan, math.nan, math.nan, math.nan, note)


def _require_units(units: np.ndarray, share: np.ndarray, names: Sequence[str]) -> None:
    empty = [name for name, n, part in zip(names, units, share, strict=True) if part > 0 and n == 0]
    if empty:
        raise ConfigurationError(
            f"stratum {', '.join(empty)} has no interpreted sample unit, so nothing can be said of the whole map: "
            "interpret at least two in each"
        )


def _single_unit_note(units: np.ndarray, names: Sequence[str], share: np.ndarray) -> str:
    single = [name for name, n, part in zip(names, units, share, strict=True) if part > 0 and n == 1]
    return f"stratum {', '.join(single)} has one sampled unit, which has no variance: no interval" if single else ""


def _require_known_classes(used: Any, classes: Sequence[str]) -> None:
    for field in ("reference", "map_class"):
        unknown = sorted(set(used[field].astype(str)) - set(classes))
        if unknown:
            raise ConfigurationError(
                f"the sample's field {field!r} holds {', '.join(unknown)}; the map's classes are {', '.join(classes)}"
            )


def _stratum_size(units: Any) -> float:
    """Return N_h; a sample that carries it may have lost rows, so the field comes before the count."""
    if "stratum_pixels" in units.columns and units["stratum_pixels"].notna().all():
        return float(units["stratum_pixels"].iloc[0])
    return float(len(units) / units["inclusion_probability"].iloc[0])


def _from_map_strata(
    mapped: Sequence[str], reference: Sequence[str], sizes: Mapping[str, float], classes: Sequence[str]
) -> AccuracyEstimates:
    position = {name: i for i, name in enumerate(classes)}
    counts = np.zeros((len(classes), len(classes)))
    for row, column in zip(mapped, reference, strict=True):
        counts[position[row], position[column]] += 1
    return olofsson(counts, [sizes.get(name, 0.0) for name in classes], classes)


def _with_note(estimates: AccuracyEstimates, note: str) -> AccuracyEstimates:
    return replace(estimates, notes=(*estimates.notes, note)) if note else estimates
