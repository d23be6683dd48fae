"""A surface-brightness profile of one object in one band, whatever method measured it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntFlag
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from storage.cutouts import Cutout
from tasks.errors import SourceRejected

State = str
"""``measured``, ``outside`` (of the footprint), ``rejected`` (a bad image or row) or ``failed`` (may pass)."""
STATES: tuple[State, ...] = ("measured", "outside", "rejected", "failed")


class RadiusFlag(IntFlag):
    """What to know of one radius of a profile."""

    INSIDE_PSF = 1
    """Within one full width at half maximum of the point spread function."""
    LOW_SIGNAL = 2
    """Intensity below three times its error."""
    MOSTLY_MASKED = 4
    """Less than half of the annulus has data of the object's own."""
    OFF_IMAGE = 8
    """Part of the annulus lies off the image."""
    FIXED_GEOMETRY = 16
    """Ellipse taken over from a neighbouring radius or another band, not fitted here."""
    NOT_POSITIVE = 32
    """Intensity is zero or below: no magnitude."""


class ObjectFlag(IntFlag):
    """What to know of a whole profile."""

    INSTRUMENTAL = 1
    """Zero point not known: magnitudes and intensities are instrumental (22.5 mag for one count)."""
    ESTIMATED_VARIANCE = 2
    """The survey gave no inverse variance: errors rest on the scatter of the sky."""
    NO_WCS = 4
    """Position angle counts from the image's upward axis, anticlockwise; the centre has no sky position."""
    NO_SKY = 8
    """The object fills the image: the sky level is a guess."""
    RESTARTED = 16
    """The first fit of ellipses failed, another start was taken."""
    MOMENT_GEOMETRY = 32
    """No fit of ellipses held: one ellipse from moments at all radii."""
    TIME_LIMIT = 64
    """The fit was cut at its time limit."""
    NEIGHBOURS = 128
    """Neighbours were masked inside the profile."""
    OFF_CENTRE = 256
    """The object lies more than three arcsec, or a tenth of the image where that is less, from where the target is said to be."""
    UNRESOLVED = 512
    """Half-light radius below the point spread function's half width."""
    UNSURE = 1024
    """A network's own doubt was too large and no other method was allowed."""


def _none() -> NDArray[np.float64]:
    return np.empty(0)


def _no_flags() -> NDArray[np.int32]:
    return np.empty(0, dtype=np.int32)


@dataclass(frozen=True)
class Profile:
    """One object in one band: convolved with the point spread function, not corrected for extinction or redshift.

    Parameters
    ----------
    object_id, band : str
        Whose.
    state : str
        One of `STATES`; anything but ``measured`` has empty lists and NaN scalars.
    reason, message : str
        Code (see `tasks.errors.Reason`) and words, where it was not measured.
    method : str
        ``isophote``, ``network``, ``published`` or ``photutils``.
    radius_arcsec : ndarray, shape (radius,)
        Semi-major axis: geometric mean of the annulus' edges, log-spaced.
    intensity, intensity_error : ndarray, shape (radius,)
        nanomaggies per arcsec^2, sky taken off, negatives kept; error 1 sigma, with the sky's.
    mu, mu_error : ndarray, shape (radius,)
        AB mag per arcsec^2; NaN where intensity is not positive.
    ellipticity, position_angle : ndarray, shape (radius,)
        1 - b/a; degrees east of north, 0 to 180.
    offset_east_arcsec, offset_north_arcsec : ndarray, shape (radius,)
        From the centre to the middle of each ellipse; zero where all share one.
    flags : ndarray, shape (radius,), int32
        `RadiusFlag`.
    object_flags : int
        `ObjectFlag`.
    centre_ra, centre_dec : float
        ICRS degrees.
    centre_x, centre_y : float
        Pixels from the centre of the lower-left pixel, x before y.
    sky, sky_error : float
        nanomaggies per arcsec^2 that were taken off, and how well they are known.
    psf_fwhm_arcsec : float
        NaN = not known.
    r24_arcsec, r25_arcsec, r26_arcsec, d25_arcsec : float
        Semi-major axis of the isophote of 24, 25, 26 mag per arcsec^2 in this band, and the diameter at 25; NaN = not reached.
    half_light_radius_arcsec : float
        Semi-major axis of the ellipse that holds half of the total flux.
    magnitude, magnitude_error : float
        AB, all light within the last radius of S/N 3.
    total_magnitude : float
        AB, extrapolated to infinity by an exponential through the outer profile.
    ebv, extinction : float
        E(B-V) and A_band, mag, where a map or a column gives them; never applied.
    redshift : float
        As the target list gives it; never applied.
    seconds : float
        Wall time of the object divided by its bands.
    release : str
        Of the image.
    snapshot : str
        Of the sky store that was read.
    """

    object_id: str
    band: str
    state: State = "measured"
    reason: str = ""
    message: str = ""
    method: str = ""
    radius_arcsec: NDArray[np.float64] = field(default_factory=_none)
    intensity: NDArray[np.float64] = field(default_factory=_none)
    intensity_error: NDArray[np.float64] = field(default_factory=_none)
    mu: NDArray[np.float64] = field(default_factory=_none)
    mu_error: NDArray[np.float64] = field(default_factory=_none)
    ellipticity: NDArray[np.float64] = field(default_factory=_none)
    position_angle: NDArray[np.float64] = field(default_factory=_none)
    offset_east_arcsec: NDArray[np.float64] = field(default_factory=_none)
    offset_north_arcsec: NDArray[np.float64] = field(default_factory=_none)
    flags: NDArray[np.int32] = field(default_factory=_no_flags)
    object_flags: int = 0
    ra: float = math.nan
    dec: float = math.nan
    centre_ra: float = math.nan
    centre_dec: float = math.nan
    centre_x: float = math.nan
    centre_y: float = math.nan
    sky: float = math.nan
    sky_error: float = math.nan
    psf_fwhm_arcsec: float = math.nan
    r24_arcsec: float = math.nan
    r25_arcsec: float = math.nan
    r26_arcsec: float = math.nan
    d25_arcsec: float = math.nan
    half_light_radius_arcsec: float = math.nan
    magnitude: float = math.nan
    magnitude_error: float = math.nan
    total_magnitude: float = math.nan
    ebv: float = math.nan
    extinction: float = math.nan
    redshift: float = math.nan
    seconds: float = math.nan
    release: str = ""
    snapshot: str = ""


class ProfileMethod(Protocol):
    """What measures profiles: isophotes now, networks beside them."""

    @property
    def name(self) -> str:
        """Return what its profiles say under `method`."""

    def measure(self, cutout: Cutout, *, time_limit_s: float) -> tuple[Profile, ...]:
        """Return one profile per band of the cutout, whatever happens to it.

        Raises
        ------
        SourceRejected
            Where the image holds nothing to measure (no valid pixel, no object); the caller writes it into the rows.
        """
        ...


@runtime_checkable
class ManyAtOnce(ProfileMethod, Protocol):
    """A method that measures many cutouts in less time than one by one."""

    @property
    def together(self) -> int:
        """Return how many cutouts it takes at once."""

    def measure_many(self, cutouts: Sequence[Cutout]) -> list[tuple[Profile, ...] | SourceRejected]:
        """Return for each cutout one profile per band, or why there is none; no other method is asked."""
        ...

    def second_method(self, found: tuple[Profile, ...]) -> ProfileMethod | None:
        """Return what should measure an object instead, None where the answer stands."""
        ...


def unmeasured(object_id: str, bands: Sequence[str], *, state: State, reason: str, message: str) -> tuple[Profile, ...]:
    """Return a row for each band of an object that was not measured."""
    return tuple(Profile(object_id, band, state=state, reason=reason, message=message) for band in bands)
