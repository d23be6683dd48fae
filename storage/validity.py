"""From a mask raster to ``valid``: which looks may be used."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import minimum_filter


def derive_valid(mask: np.ndarray, clear: Sequence[int] = (4, 5, 6), *, dilation: int = 2) -> np.ndarray:
    """Return True where a look is clear and more than `dilation` pixels from anything that was seen and is not.

    Parameters
    ----------
    mask : ndarray, shape (..., y, x), uint8
        Sen2Cor scene classes, or the values of another mask.
    clear : sequence of int
        Values that count as clear.
    dilation : int
        Pixels, Chebyshev distance, by which what is not clear grows. No data (0) is not valid and does not grow: the
        edge of a swath hides no cloud. What lies beyond the array is taken as clear.

    Returns
    -------
    ndarray, shape (..., y, x), bool

    Examples
    --------
    >>> derive_valid(np.array([[4, 4, 4, 9]], dtype="uint8"), dilation=1)
    array([[ True,  True, False, False]])
    """
    table = np.zeros(256, dtype=np.uint8)
    table[list(clear)] = 1
    is_clear = table[mask]
    if not dilation:
        return is_clear.astype(bool)
    table[0] = 1
    size = (1,) * (mask.ndim - 2) + (2 * dilation + 1,) * 2
    undisturbed = minimum_filter(table[mask], size=size, mode="constant", cval=1)
    return (is_clear & undisturbed).astype(bool)
