"""How wide and how large woods are, pixel by pixel, and how well each size is found: hedges and small woods apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.ndimage import binary_opening, label

from tasks.earth.scores import ranking_scores

WIDTHS = ("1", "2", "3", "4+")
"""Pixels: the side of the largest square of canopy that a pixel lies in."""
AREAS_HA = (0.1, 0.5, 2.0)
AREAS = ("<0.1", "0.1-0.5", "0.5-2", ">2")
"""Hectares of the connected canopy that a pixel belongs to, by edges and corners."""

_WIDEST = len(WIDTHS)


def width_classes(canopy: np.ndarray) -> np.ndarray:
    """Return the width of the canopy at each pixel, as a number of `WIDTHS`.

    A pixel is as wide as the largest square of canopy that holds it: a hedge of one row of pixels is 1, a diagonal one
    too. Beyond the edge of the array canopy is taken to go on.

    Parameters
    ----------
    canopy : ndarray, shape (y, x), bool

    Returns
    -------
    ndarray, shape (y, x), int8
        0 to 3; -1 where there is no canopy.

    Examples
    --------
    >>> width_classes(np.array([[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]], bool))[:, 1:]
    array([[-1, -1, -1],
           [ 1,  1, -1],
           [ 1,  1, -1],
           [-1, -1,  0],
           [-1, -1, -1]], dtype=int8)
    """
    padded = np.pad(canopy, _WIDEST, mode="edge")
    width = np.where(padded, 0, -1).astype(np.int8)
    for side in range(2, _WIDEST + 1):
        width[binary_opening(padded, np.ones((side, side), bool))] = side - 1
    return np.ascontiguousarray(width[_WIDEST:-_WIDEST, _WIDEST:-_WIDEST])


def area_classes(canopy: np.ndarray, *, pixel_area_m2: float) -> np.ndarray:
    """Return the area of the connected canopy that each pixel belongs to, as a number of `AREAS`.

    Parameters
    ----------
    canopy : ndarray, shape (y, x), bool
    pixel_area_m2 : float
        Area of a pixel.

    Returns
    -------
    ndarray, shape (y, x), int8
        0 to 3; -1 where there is no canopy. A wood that the edge of the array cuts is as large as what is seen of it.
    """
    wood, count = label(canopy, np.ones((3, 3), bool))
    hectares = np.bincount(wood.ravel(), minlength=count + 1) * pixel_area_m2 / 1e4
    of_wood = np.searchsorted(AREAS_HA, hectares + 1e-9, side="right").astype(np.int8)
    of_wood[0] = -1
    return np.asarray(of_wood[wood])


def size_scores(
    sizes: np.ndarray, canopy: np.ndarray, *, names: Sequence[str], scores: Mapping[str, tuple[np.ndarray, np.ndarray]]
) -> dict[str, Any]:
    """Return how well canopy of each size is found.

    Parameters
    ----------
    sizes : ndarray, shape (N,), int
        Of the scored pixels, as `width_classes` or `area_classes` give them.
    canopy : ndarray, shape (N,), bool
        The reference.
    names : sequence of str
        What the sizes are called.
    scores : mapping of str to (ndarray, ndarray)
        Per method: probability of canopy, and whether the map says canopy; both (N,).

    Returns
    -------
    dict
        Per size: ``pixels``; ``prevalence`` among them and all that is not canopy; and per method ``recall`` at the
        map's class and ``pr_auc`` of ranking that size above what is not canopy.
    """
    found: dict[str, Any] = {}
    for number, name in enumerate(names):
        own = canopy & (sizes == number)
        taken = own | ~canopy
        found[name] = {
            "pixels": int(own.sum()),
            "prevalence": float(own.sum() / taken.sum()) if taken.any() else None,
            **{
                method: {
                    "recall": float(mapped[own].mean()) if own.any() else None,
                    "pr_auc": ranking_scores(own[taken], probability[taken]).pr_auc,
                }
                for method, (probability, mapped) in scores.items()
            },
        }
    return found
