"""Changes found against true ones on one grid: recall, precision, errors of dates, and what confidence is worth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from scipy import ndimage

from storage.classes import NO_CLASS
from tasks.earth.change import GAIN, LOSS
from tasks.earth.change_product import KINDS

WITHIN_DAYS = (30, 60, 90)
_SQUARE = np.ones((3, 3))
_BINS = (0.0, 0.4, 0.6, 0.8, 1.0)


@dataclass(frozen=True)
class FoundChange:
    """Changes on a grid, by whatever method.

    Parameters
    ----------
    kind : ndarray, shape (y, x), uint8
        `LOSS`, `GAIN`, 0 for none, `NO_CLASS` where nothing was seen.
    day : ndarray, shape (y, x), int
        Days since 1970-01-01; of no matter without a change.
    confidence : ndarray, shape (y, x), float32, optional
        0 to 1.
    interval : ndarray, shape (y, x), int, optional
        Days.
    """

    kind: np.ndarray
    day: np.ndarray
    confidence: np.ndarray | None = None
    interval: np.ndarray | None = None


@dataclass(frozen=True)
class TrueChange:
    """The truth on a grid.

    Parameters
    ----------
    kind : ndarray, shape (y, x), uint8
        1 felled, 2 planted, 0 neither; anything else is not scored.
    day : ndarray, shape (y, x), int
        Days since 1970-01-01.
    woodland : ndarray, shape (y, x), bool
        Where there was woodland at first: felling elsewhere is neither missed nor wrong.
    """

    kind: np.ndarray
    day: np.ndarray
    woodland: np.ndarray


def scores_of(found: FoundChange, truth: TrueChange) -> dict[str, Any]:
    """Return recall, precision and date errors of losses and gains.

    Returns
    -------
    dict
        For ``loss`` and ``gain``: ``pixels`` and ``patches`` with recall and precision; ``precision_next_to`` also takes
        a pixel beside a true one for right; ``date`` with errors in days; ``confidence`` with the precision of each bin.
    """
    scored = (truth.kind <= GAIN) & (found.kind != NO_CLASS)
    return {name: _of_kind(value, found, truth, scored) for value, name in KINDS.items()}


def _of_kind(value: int, found: FoundChange, truth: TrueChange, scored: np.ndarray) -> dict[str, Any]:
    true = scored & (truth.kind == value)
    wanted = true & truth.woodland if value == LOSS else true
    mapped = scored & (found.kind == value)
    judged = mapped & (wanted | ~true)
    near = ndimage.binary_dilation(true, _SQUARE)
    hit = mapped & wanted
    error = np.abs(found.day - truth.day)[hit]
    return {
        "pixels": {
            "true": int(wanted.sum()),
            "mapped": int(mapped.sum()),
            "recall": _share(hit.sum(), wanted.sum()),
            "precision": _share(hit.sum(), judged.sum()),
            "precision_next_to": _share((mapped & near).sum(), mapped.sum()),
        },
        "patches": _of_patches(wanted, mapped, near, truth.day),
        "date": _of_dates(error, None if found.interval is None else found.interval[hit]),
        "confidence": [] if found.confidence is None else _of_confidence(found.confidence, judged, hit, near),
    }


def _of_patches(wanted: np.ndarray, mapped: np.ndarray, near: np.ndarray, day: np.ndarray) -> dict[str, Any]:
    """A true patch (of one day) is found where half of it is; a mapped one is right where half lies on or beside truth."""
    sizes, hits = [], []
    for when in np.unique(day[wanted]):
        patches, count = ndimage.label(wanted & (day == when), _SQUARE)
        sizes += list(ndimage.sum_labels(np.ones_like(patches), patches, range(1, count + 1)))
        hits += list(ndimage.mean(mapped, patches, range(1, count + 1)))
    drawn, count = ndimage.label(mapped, _SQUARE)
    right = np.array(ndimage.mean(near, drawn, range(1, count + 1)) if count else []) >= 0.5
    big = np.array(sizes) >= 10
    caught = np.array(hits) >= 0.5
    return {
        "true": len(sizes),
        "mapped": int(count),
        "recall": _share(caught.sum(), len(sizes)),
        "recall_of_10_pixels_and_more": _share(caught[big].sum(), big.sum()) if big.size else None,
        "precision": _share(right.sum(), count),
    }


def _of_dates(error: np.ndarray, interval: np.ndarray | None) -> dict[str, Any]:
    if not error.size:
        return {"n": 0}
    scores: dict[str, Any] = {
        "n": int(error.size),
        "median": float(np.median(error)),
        "mean": round(float(error.mean()), 1),
        "within": {str(days): round(float((error <= days).mean()), 4) for days in WITHIN_DAYS},
    }
    if interval is not None:
        scores["interval_median"] = float(np.median(interval))
        scores["inside_interval"] = round(float((2 * error <= interval + 1).mean()), 4)
    return scores


def _of_confidence(
    confidence: np.ndarray, judged: np.ndarray, hit: np.ndarray, near: np.ndarray
) -> list[dict[str, Any]]:
    rows = []
    for low, high in pairwise(_BINS):
        here = judged & (confidence >= low) & ((confidence < high) | (high == 1.0))
        row = {"from": low, "to": high, "n": int(here.sum()), "precision": _share((here & hit).sum(), here.sum())}
        rows.append(row | {"precision_next_to": _share((here & near).sum(), here.sum())})
    return rows


def _share(part: Any, whole: Any) -> float | None:
    return round(float(part) / float(whole), 4) if whole else None


def describe_scores(scores: Mapping[str, Any]) -> str:
    """Return the scores as a table."""
    lines = [f"{scores['item']}: {scores['pixels']} pixels"]
    for name in KINDS.values():
        lines.append(
            f"{name:<28} recall  precision  (beside)  patches found, right   date error: median  mean  <=30  <=60  <=90 d"
        )
        for method, found in scores["methods"].items():
            pixels, patches, date = (found[name][part] for part in ("pixels", "patches", "date"))
            within = date.get("within", {})
            words = [_number(pixels["recall"]), _number(pixels["precision"]), _number(pixels["precision_next_to"])]
            words += [_number(patches["recall"]), _number(patches["precision"])]
            words += [f"{date['median']:.0f}", f"{date['mean']:.0f}"] if date["n"] else ["-", "-"]
            words += [_number(within.get(str(days))) for days in WITHIN_DAYS]
            lines.append(f"  {method:<26} " + "  ".join(f"{word:>7}" for word in words))
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
