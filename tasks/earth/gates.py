"""Checks of a staged map before it is published: structure, valid pixels, seams, drift, freshness, coverage.

Each check has a value, a limit and a sentence. What fails holds the map back; the staged map stays, so that a run with
the check allowed by hand publishes it without mapping again, and the item then says that it was allowed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from storage.classes import NO_CANOPY, NO_CLASS, LandClass
from storage.errors import StorageError
from storage.export import ArrayLike, blocks
from storage.location import Location
from storage.publish import ProductKey
from storage.schema import CHUNK
from tasks.earth.grid import TILE_PIXELS
from tasks.earth.last_map import LastMap, open_classes
from tasks.earth.layers import CLEAR_COUNT, NO_COUNT, NO_PROBABILITY, PROBABILITY_SCALE
from tasks.earth.mapping import MapPlan
from tasks.earth.product import RasterProduct, Sources, open_staged
from tasks.earth.seams import border_lines, seam_score
from tasks.errors import ChecksFailed

CHECKS = ("valid", "seams", "drift", "freshness", "coverage")
"""Checks that may be allowed by hand; the structure has to be sound whatever is allowed."""

SEAM_ERRORS = 4.0
"""Standard errors by which borders have to stand out before a ratio above the limit counts as a seam."""

SMALL_DRIFT = 0.01
"""Share of the area below which a class may come and go whatever its relative change."""

_BLOCK = 1024


@dataclass(frozen=True)
class GateRules:
    """Limits; None switches a check off.

    Parameters
    ----------
    min_valid : float or None
        Least share of the area with a class.
    max_seam : float or None
        Largest ratio of the jump over borders to the jump beside them.
    max_drift : float or None
        Largest change of a class's area against the last map, as a share of that class's area then, or of the area as a
        whole where that is less; changes below `SMALL_DRIFT` of the area do not count.
    max_age_days : int or None
        Largest age of the newest clear look on the day that the map is asked for.
    min_seen : float or None
        Least share of the area seen clear since the last map of an earlier day.
    asked : str or None
        The day that the map is asked for, ``YYYY-MM-DD``; by default that of the product.
    allow : tuple of str
        Names among `CHECKS` that may fail.
    """

    min_valid: float | None = 0.5
    max_seam: float | None = 1.5
    max_drift: float | None = 0.25
    max_age_days: int | None = 92
    min_seen: float | None = 0.05
    asked: str | None = None
    allow: tuple[str, ...] = ()


@dataclass(frozen=True)
class Check:
    """One check: what was found, what is allowed, in words."""

    name: str
    value: float | None
    limit: float | None
    passed: bool
    sentence: str
    allowed: bool = False

    @property
    def holds_back(self) -> bool:
        """Return whether the map is held back by it."""
        return not (self.passed or self.allowed)


@dataclass(frozen=True)
class MapFacts:
    """What is counted in a staged map, in one pass.

    Parameters
    ----------
    inside, valid, wrong : int
        Pixels in the area, with a class, and with values that cannot be.
    seen_since : int
        Pixels whose last clear look is later than the last map of an earlier day.
    newest : str or None
        Day of the newest clear look.
    counts : tuple of int
        Pixels of each class.
    moves : tuple of tuple of int
        Pixels by class on the last map (rows) and on this one (columns), where both have one; empty without a last map.
    """

    inside: int
    valid: int
    wrong: int
    seen_since: int
    newest: str | None
    counts: tuple[int, ...]
    moves: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class Checked:
    """A staged map that was checked.

    Parameters
    ----------
    key : ProductKey
        Of the map.
    checks : tuple of Check
        All that were made.
    facts : MapFacts
        What they are about.
    seams : mapping
        Seam scores by kind of border, in JSON types.
    last : LastMap or None
        The last published map of the same area.
    estimates : mapping or None
        Areas and accuracy from a labelled sample, in JSON types.
    """

    key: ProductKey
    checks: tuple[Check, ...]
    facts: MapFacts | None = None
    seams: Mapping[str, Any] = field(default_factory=dict)
    last: LastMap | None = None
    estimates: Mapping[str, Any] | None = None

    @property
    def failed(self) -> tuple[Check, ...]:
        """Return the checks that hold the map back."""
        return tuple(check for check in self.checks if check.holds_back)

    @property
    def nothing_new(self) -> bool:
        """Return whether all that holds the map back is that no pixel was seen clear since the last one."""
        seen = self.facts is not None and self.facts.seen_since > 0
        return [check.name for check in self.failed] == ["coverage"] and not seen

    @property
    def properties(self) -> dict[str, Any]:
        """Return what the item says of the checks."""
        return {"canopus:seam_score": dict(self.seams), "canopus:checks": [asdict(check) for check in self.checks]}

    def require(self) -> None:
        """Raise where a check holds the map back.

        Raises
        ------
        ChecksFailed
            Naming each failed check, and how to publish all the same.
        """
        if not self.failed:
            return
        words = "; ".join(f"{check.name}: {check.sentence}" for check in self.failed)
        names = " ".join(f"--allow {check.name}" for check in self.failed if check.name in CHECKS)
        by_hand = f"; to publish it all the same, run it again with {names}" if names else ""
        raise ChecksFailed(f"{self.key.item_id} was not published: {words}{by_hand}")


def check_map(
    plan: MapPlan,
    product: RasterProduct,
    classes: tuple[LandClass, ...],
    *,
    staging: Location,
    rules: GateRules,
    last: LastMap | None = None,
    earlier: LastMap | None = None,
) -> Checked:
    """Check a staged map.

    Parameters
    ----------
    plan : MapPlan
        What was mapped.
    product : RasterProduct
        What is to be published.
    classes : tuple of LandClass
        In the order of the probabilities.
    staging : Location
        As given to `create_staging`.
    rules : GateRules
        Limits.
    last : LastMap, optional
        The last published map of the same area, up to the same day: drift is counted against it.
    earlier : LastMap, optional
        The last one of an earlier day: coverage is counted from it.
    """
    try:
        sources = open_staged(product, staging)
    except StorageError as error:
        return Checked(product.key, (Check("structure", None, None, False, str(error)),))
    facts = count_map(sources, classes, last=last, since=earlier.date if earlier else None)
    seams = score_seams(plan, product, sources, classes)
    found = (
        _structure(facts),
        _valid(facts, rules),
        _seams(seams, rules),
        _drift(facts, classes, rules, last),
        _freshness(facts, rules, rules.asked or product.end),
        _coverage(facts, rules, earlier),
    )
    return Checked(product.key, tuple(check for check in found if check is not None), facts, seams, last)


def count_map(
    sources: Sources, classes: tuple[LandClass, ...], *, last: LastMap | None = None, since: str | None = None
) -> MapFacts:
    """Return what a staged map holds, read block by block.

    Parameters
    ----------
    sources : mapping of str to ArrayLike
        Staged layers.
    classes : tuple of LandClass
        In the order of the probabilities.
    last : LastMap, optional
        To compare with, on the same grid.
    since : str, optional
        Count pixels seen clear after this day; by default all that have a clear look.
    """
    index = np.full(256, len(classes))
    index[[land.value for land in classes]] = np.arange(len(classes))
    after = 0 if since is None else int(np.datetime64(since, "D").astype(int))
    inside = valid = wrong = seen = newest = 0
    counts = np.zeros(len(classes) + 1, dtype=np.int64)
    moves = np.zeros((len(classes) + 1, len(classes) + 1), dtype=np.int64)
    with open_classes(last) as before:
        for y, x in blocks(sources["class"].shape, _BLOCK):
            values, looks = np.asarray(sources["class"][y, x]), np.asarray(sources[CLEAR_COUNT][y, x])
            days = np.asarray(sources["last_clear_date"][y, x])
            stored = np.asarray(sources["probability"][:, y, x])
            inside += int((looks != NO_COUNT).sum())
            valid += int((values != NO_CLASS).sum())
            wrong += int(_impossible(values, stored, looks, index).sum())
            seen += int((days > after).sum())
            newest = max(newest, int(days.max(initial=0)))
            numbers = index[values]
            counts += np.bincount(numbers.ravel(), minlength=len(counts))
            if before is not None:
                pairs = index[before(y, x)] * len(counts) + numbers
                moves += np.bincount(pairs.ravel(), minlength=moves.size).reshape(moves.shape)
    return MapFacts(
        inside,
        valid,
        wrong,
        seen,
        str(np.datetime64(newest, "D")) if newest else None,
        tuple(int(count) for count in counts[:-1]),
        tuple(tuple(int(count) for count in row[:-1]) for row in moves[:-1]) if last is not None else (),
    )


def _impossible(values: np.ndarray, stored: np.ndarray, looks: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Return where a pixel's layers contradict each other, or hold what cannot be."""
    filled = values != NO_CLASS
    known = index[values] < len(stored)
    deviation = np.abs(stored.astype(np.int64).sum(axis=0) - round(1 / PROBABILITY_SCALE))
    sums = deviation <= len(stored) / 2  # each is rounded by at most half a step
    empty = (stored == NO_PROBABILITY).all(axis=0)
    seen = (looks > 0) & (looks != NO_COUNT)
    wrong: np.ndarray = np.where(filled, ~known | ~sums, ~empty) | (filled != seen)
    return wrong


def score_seams(
    plan: MapPlan, product: RasterProduct, sources: Sources, classes: tuple[LandClass, ...]
) -> dict[str, dict[str, float]]:
    """Return the seam scores of a staged map's canopy probability, for borders of tiles and those of regions alone."""
    anchor = plan.cubes[0].tile.geobox
    rows, columns = (int(size) for size in product.geobox.shape)
    canopy = _Canopy(sources["probability"], classes)
    scores = {}
    for kind, every, but in (("tiles", TILE_PIXELS, 0), ("regions", CHUNK, TILE_PIXELS)):
        lines = border_lines(product.geobox, anchor, every, but=but)
        found = seam_score(canopy, (rows, columns), *lines)
        scores[kind] = {
            "ratio": round(found.ratio, 4),
            "errors": round(float(np.clip(found.errors, -1e6, 1e6)), 2),
            "pieces": found.pieces,
        }
    return scores


@dataclass(frozen=True)
class _Canopy:
    """Gives the probability of any class but `NO_CANOPY`; where no class is called so, of any but the first."""

    probability: ArrayLike
    classes: tuple[LandClass, ...]

    def __call__(self, rows: slice, columns: slice) -> np.ndarray:
        none = next((number for number, land in enumerate(self.classes) if land.name == NO_CANOPY), 0)
        stored = np.asarray(self.probability[none, rows, columns])
        canopy = 1 - stored.astype(np.float32) * np.float32(PROBABILITY_SCALE)
        canopy[stored == NO_PROBABILITY] = np.nan
        return canopy


def _structure(facts: MapFacts) -> Check:
    words = "every region is filled, every class is known, probabilities sum to 1"
    if facts.wrong:
        words = f"{facts.wrong:,} pixels hold no known class, or probabilities that do not sum to 1"
    return Check("structure", float(facts.wrong), 0.0, facts.wrong == 0, words)


def _valid(facts: MapFacts, rules: GateRules) -> Check | None:
    if rules.min_valid is None:
        return None
    share = _share(facts.valid, facts.inside)
    words = f"{share:.1%} of the area has a class, at least {rules.min_valid:.1%} is asked"
    return _judged("valid", share, rules.min_valid, share >= rules.min_valid, words, rules)


def _seams(seams: Mapping[str, Mapping[str, float]], rules: GateRules) -> Check | None:
    if rules.max_seam is None:
        return None
    # a ratio counts where it stands out of what lines nearby do by themselves
    measured = {kind: found for kind, found in seams.items() if found["pieces"]}
    standing = {kind: found for kind, found in measured.items() if found["errors"] > SEAM_ERRORS}
    kind, found = max((standing or measured or seams).items(), key=lambda pair: pair[1]["ratio"])
    bad = bool(standing) and found["ratio"] > rules.max_seam
    words = (
        f"canopy probability jumps {found['ratio']:.2f} times as much over borders of {kind} as beside them "
        f"({found['errors']:.1f} standard errors, {found['pieces']} pieces), up to {rules.max_seam:g} times is allowed"
    )
    if not measured:
        words = "the area lies within one region: it has no border"
    return _judged("seams", found["ratio"], rules.max_seam, not bad, words, rules)


def _drift(facts: MapFacts, classes: tuple[LandClass, ...], rules: GateRules, last: LastMap | None) -> Check | None:
    if rules.max_drift is None or last is None:
        return None
    moves = np.array(facts.moves)
    before, now, whole = moves.sum(axis=1), moves.sum(axis=0), max(int(moves.sum()), 1)
    change = np.abs(now - before)
    drift = np.where(change / whole > SMALL_DRIFT, change / np.maximum(before, 1), 0.0)
    # a class that was not there has no area to be measured by: the whole area's then
    drift = np.where(before > 0, drift, change / whole)
    worst = int(drift.argmax())
    value = float(drift[worst])
    words = (
        f"the mapped area of {classes[worst].name} went from {before[worst]:,} to {now[worst]:,} pixels since the map of "
        f"{last.date}, up to {rules.max_drift:.0%} is allowed"
    )
    if not moves.sum():
        words = f"no pixel has a class both on this map and on that of {last.date}"
    return _judged("drift", round(value, 4), rules.max_drift, value <= rules.max_drift, words, rules)


def _freshness(facts: MapFacts, rules: GateRules, asked: str) -> Check | None:
    if rules.max_age_days is None:
        return None
    if facts.newest is None:
        return _judged("freshness", None, float(rules.max_age_days), False, "no pixel has a clear look", rules)
    age = int((np.datetime64(asked, "D") - np.datetime64(facts.newest, "D")).astype(int))
    words = f"the newest clear look, of {facts.newest}, is {age} days before {asked}, up to {rules.max_age_days} are allowed"
    return _judged("freshness", float(age), float(rules.max_age_days), age <= rules.max_age_days, words, rules)


def _coverage(facts: MapFacts, rules: GateRules, earlier: LastMap | None) -> Check | None:
    if rules.min_seen is None or earlier is None:
        return None
    share = _share(facts.seen_since, facts.inside)
    words = f"{share:.1%} of the area was seen clear since the map of {earlier.date}, at least {rules.min_seen:.1%} is asked"
    return _judged("coverage", share, rules.min_seen, facts.seen_since > 0 and share >= rules.min_seen, words, rules)


def _judged(name: str, value: float | None, limit: float, passed: bool, sentence: str, rules: GateRules) -> Check:
    return Check(name, value, limit, passed, sentence, allowed=not passed and name in rules.allow)


def _share(part: int, whole: int) -> float:
    return round(part / whole, 4) if whole else 0.0
