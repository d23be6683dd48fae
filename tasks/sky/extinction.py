"""What dust of the Milky Way takes from a band, per E(B-V) on the scale of Schlegel, Finkbeiner and Davis (1998)."""

from __future__ import annotations

import math

_LEGACY = {"u": 3.995, "g": 3.214, "r": 2.165, "i": 1.592, "z": 1.211, "Y": 1.064}
"""Legacy Surveys DR8 and later, DECam filters."""
_SDSS = {"u": 4.239, "g": 3.303, "r": 2.285, "i": 1.698, "z": 1.263}
"""Schlafly and Finkbeiner (2011), table 6, R_V = 3.1."""
_HST = {"F814W": 1.526, "F105W": 0.969}
"""The same: ACS and WFC3."""


def extinction(survey: str, band: str, ebv: float) -> float:
    """Return A in a band, mag; NaN where E(B-V) or the filter is not known.

    Examples
    --------
    >>> round(extinction("sdss", "r", 0.1), 4)
    0.2285
    """
    table = _SDSS if survey.startswith("sdss") else _LEGACY
    return ebv * (table | _HST).get(band, math.nan)
