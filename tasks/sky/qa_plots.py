"""The picture of one object to judge its profile by: image, ellipses and masks, residual, profile, geometry."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from storage.cutouts import TARGET, Cutout
from tasks.sky.noise import MAD_TO_SIGMA
from tasks.sky.photometry import magnitude
from tasks.sky.prepare import jacobian_at, read_wcs
from tasks.sky.profile import Profile, RadiusFlag

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, MUTED, PAPER = "#23291f", "#6b7266", "#ffffff"
ELLIPSE, MASK = "#d1492b", "#2563b0"
COLOURS = {"u": "#5b4fb0", "g": "#1f7a4d", "r": "#c2412d", "i": "#8a5a12", "z": "#3b3b3b"}
_OTHER_COLOURS = ("#0f766e", "#7c3aed", "#a16207", "#475569")
_SIDE = 150
"""Pixels of an image panel, about: larger images are averaged in blocks."""
_INCHES, _DOTS = (12.6, 2.5), 80
_DRAWN_ELLIPSES = 7
_APART = 1.035
"""From the left edge of one image to that of the next, in widths."""
_TICKS = tuple(figure * 10.0**power for power in range(-3, 5) for figure in (1, 3))
_REFERENCE = ("r", "i", "z", "g")


def draw_object(cutout: Cutout, profiles: Sequence[Profile]) -> bytes:
    """Return a PNG of one object: one row of five panels.

    Parameters
    ----------
    cutout : Cutout
        As it was measured.
    profiles : sequence of Profile
        One per band; one at least is ``measured``.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=_INCHES, dpi=_DOTS, facecolor=PAPER)
    FigureCanvasAgg(figure)
    shown = reference_band(profiles)
    _draw_images(figure.add_axes((0.004, 0.0, 0.528, 1.0)), _View(cutout, shown), shown)
    _draw_profiles(figure.add_axes((0.568, 0.13, 0.245, 0.75)), profiles, shown)
    _draw_geometry(
        figure.add_axes((0.842, 0.54, 0.153, 0.34)), figure.add_axes((0.842, 0.13, 0.153, 0.34)), geometry_of(profiles)
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor=PAPER, metadata={"Software": None})
    return buffer.getvalue()


def reference_band(profiles: Sequence[Profile]) -> Profile:
    """Return the profile whose image is shown: r where it was measured, else the next that was."""
    measured = {profile.band: profile for profile in profiles if profile.state == "measured"}
    return next((measured[band] for band in _REFERENCE if band in measured), next(iter(measured.values())))


def geometry_of(profiles: Sequence[Profile]) -> Profile:
    """Return the profile in whose band most ellipses were fitted: the others take them over."""
    measured = [profile for profile in profiles if profile.state == "measured"]
    return max(measured, key=lambda profile: int(((profile.flags & RadiusFlag.FIXED_GEOMETRY) == 0).sum()))


def ellipse_radius(
    profile: Profile, dx: NDArray[np.float64], dy: NDArray[np.float64], jacobian: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the semi-major axis, arcsec, of the profile's ellipse through each place; infinite beyond the last.

    Parameters
    ----------
    profile : Profile
        With one radius at least.
    dx, dy : ndarray
        Pixels from the profile's centre.
    jacobian : ndarray, shape (2, 2)
        Offsets (east, north) in arcsec per pixel of x and of y.
    """
    east = jacobian[0, 0] * dx + jacobian[0, 1] * dy
    north = jacobian[1, 0] * dx + jacobian[1, 1] * dy
    found = np.full(np.shape(dx), np.inf)
    before = np.zeros(np.shape(dx))
    inner = 0.0
    for radius, flat, angle, right, up in zip(
        profile.radius_arcsec, *_shapes(profile), *_offsets(profile), strict=True
    ):
        along = (east - right) * np.sin(angle) + (north - up) * np.cos(angle)
        across = (east - right) * np.cos(angle) - (north - up) * np.sin(angle)
        here = np.hypot(along, across / max(1 - flat, 0.02)) - radius
        new = np.isinf(found) & (here <= 0)
        share = before[new] / np.maximum(before[new] - here[new], 1e-12) if inner else 1 + here[new] / radius
        found[new] = inner + share * (radius - inner)
        before, inner = here, radius
    return found


def _shapes(profile: Profile) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return ellipticity and position angle (radians) at each radius; round and north where they are not known."""
    return np.nan_to_num(profile.ellipticity), np.radians(np.nan_to_num(profile.position_angle))


def _offsets(profile: Profile) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return how far east and north of the centre the middle of each ellipse lies; nowhere where that is not said."""
    known = profile.offset_east_arcsec.size == profile.radius_arcsec.size
    nowhere = np.zeros(profile.radius_arcsec.size)
    return (profile.offset_east_arcsec, profile.offset_north_arcsec) if known else (nowhere, nowhere)


def model_image(profile: Profile, radius: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the profile's intensity at each radius; NaN beyond the last."""
    good = np.isfinite(profile.intensity)
    if not good.any():
        return np.full(radius.shape, np.nan)
    place = np.log(np.clip(radius, profile.radius_arcsec[good][0], None))
    return np.interp(place, np.log(profile.radius_arcsec[good]), profile.intensity[good], right=np.nan)


class _View:
    """The part of a cutout that is shown, averaged in blocks, in nanomaggies per arcsec^2 with the sky taken off."""

    def __init__(self, cutout: Cutout, profile: Profile) -> None:
        index = cutout.band_names.index(profile.band)
        self.jacobian = sky_jacobian(cutout, profile.centre_x, profile.centre_y)
        rows, columns = cutout.shape
        x, y = profile.centre_x, profile.centre_y
        reach = max(1.25 * float(profile.radius_arcsec[-1]) / cutout.pixel_scale_arcsec, 12.0)
        self.left, right = max(0, int(x - reach)), min(columns, int(x + reach) + 2)
        self.low, high = max(0, int(y - reach)), min(rows, int(y + reach) + 2)
        self.block = max(1, -(-max(right - self.left, high - self.low) // _SIDE))
        window = (slice(self.low, high), slice(self.left, right))
        scale = cutout.nanomaggies_per_unit(index) / cutout.pixel_scale_arcsec**2
        valid = cutout.valid[index][window]
        flux = np.where(valid, cutout.flux[index][window] * scale - np.nan_to_num(profile.sky), np.nan)
        self.image = _averaged(flux, self.block)
        self.masked = _averaged((cutout.segmentation[window] > TARGET) | ~valid, self.block) > 0.5
        self.width_arcsec = (right - self.left) * cutout.pixel_scale_arcsec
        self.x, self.y = x, y
        outside = flux[np.isfinite(flux) & (cutout.segmentation[window] == 0)]
        deviations = np.abs(outside - np.median(outside)) if outside.size > 20 else np.abs(flux[np.isfinite(flux)])
        self.noise = float(MAD_TO_SIGMA * np.median(deviations)) / self.block if deviations.size else 1.0

    @property
    def extent(self) -> tuple[float, float, float, float]:
        rows, columns = self.image.shape
        left, low = self.left - 0.5, self.low - 0.5
        return left, left + columns * self.block, low, low + rows * self.block

    def offsets(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        rows, columns = np.indices(self.image.shape, dtype=float)
        half = (self.block - 1) / 2
        return columns * self.block + self.left + half - self.x, rows * self.block + self.low + half - self.y


def sky_jacobian(cutout: Cutout, x: float, y: float) -> NDArray[np.float64]:
    """Return offsets (east, north), arcsec, per pixel of x and of y; without a WCS, up is north and left is east."""
    wcs = read_wcs(cutout.wcs)
    if wcs is None:
        return cutout.pixel_scale_arcsec * np.array([[-1.0, 0.0], [0.0, 1.0]])
    return 3600.0 * jacobian_at(wcs, x, y)


def _averaged(image: NDArray, block: int) -> NDArray[np.float64]:
    rows, columns = (size - size % block for size in image.shape)
    cut = image[:rows, :columns].astype(float).reshape(rows // block, block, columns // block, block)
    known = np.isfinite(cut)
    count = known.sum(axis=(1, 3))
    total = np.where(known, cut, 0.0).sum(axis=(1, 3))
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def _draw_images(panel: Axes, view: _View, profile: Profile) -> None:
    """Draw image, image with ellipses, and residual side by side in one panel: a panel each costs as much as a profile."""
    noise = max(view.noise, 1e-12)
    dx, dy = view.offsets()
    left = (view.image - model_image(profile, ellipse_radius(profile, dx, dy, view.jacobian))) / noise
    left[view.masked] = np.nan
    stretched = np.arcsinh(view.image / (2 * noise))
    known = stretched[np.isfinite(stretched)]
    limits = (-0.8, max(float(np.percentile(known, 99.7)), 1.0) if known.size else 1.0)
    left_edge, right_edge, low_edge, high_edge = view.extent
    side = max(right_edge - left_edge, high_edge - low_edge)
    apart = _APART * side
    words = (f"{profile.band}, {view.width_arcsec:.3g} arcsec wide", "ellipses, masks", "image - ellipses, 5 sigma")
    for place, (values, table, span, title) in enumerate(
        (
            (stretched, "Greys", limits, words[0]),
            (stretched, "Greys", limits, words[1]),
            (left, "RdBu_r", (-5, 5), words[2]),
        )
    ):
        _show(panel, view, values, shift=place * apart, limits=span, table=table)
        panel.text(left_edge + place * apart, low_edge + 1.03 * side, title, fontsize=7.5, color=INK)
    _draw_ellipses(panel, view, profile, shift=apart)
    panel.set(xlim=(left_edge, left_edge + 2 * apart + side), ylim=(low_edge - 0.03 * side, low_edge + 1.13 * side))
    panel.set_aspect("equal", adjustable="box", anchor="W")
    panel.set_axis_off()


def _show(
    panel: Axes,
    view: _View,
    values: NDArray[np.float64],
    *,
    shift: float,
    limits: tuple[float, float],
    table: str,
) -> None:
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    left, right, low, high = view.extent
    colours = colormaps[table].with_extremes(bad="#f3e3c3")
    shown: dict[str, Any] = {"origin": "lower", "interpolation": "nearest", "aspect": "equal"}
    panel.imshow(
        np.ma.masked_invalid(values),
        cmap=colours,
        vmin=limits[0],
        vmax=limits[1],
        extent=(left + shift, right + shift, low, high),
        **shown,
    )
    panel.add_patch(Rectangle((left + shift, low), right - left, high - low, fill=False, edgecolor=INK, linewidth=0.5))


def _draw_ellipses(panel: Axes, view: _View, profile: Profile, *, shift: float) -> None:
    from matplotlib.patches import Rectangle

    left, right, low, high = view.extent
    if view.masked.any() and not view.masked.all():
        dx, dy = view.offsets()
        panel.contour(dx + view.x + shift, dy + view.y, view.masked, levels=[0.5], colors=MASK, linewidths=0.7)
    frame = Rectangle((left + shift, low), right - left, high - low, transform=panel.transData)
    inverse = np.linalg.inv(view.jacobian)
    (flat, angle), (east, north) = _shapes(profile), _offsets(profile)
    turn = np.linspace(0, 2 * np.pi, 73)
    count = profile.radius_arcsec.size
    for index in np.unique(np.linspace(min(count - 1, count // 4), count - 1, _DRAWN_ELLIPSES).astype(int)):
        radius = profile.radius_arcsec[index]
        along, across = radius * np.cos(turn), radius * (1 - flat[index]) * np.sin(turn)
        sine, cosine = np.sin(angle[index]), np.cos(angle[index])
        places = inverse @ np.stack(
            [along * sine + across * cosine + east[index], along * cosine - across * sine + north[index]]
        )
        style = ":" if profile.flags[index] & RadiusFlag.LOW_SIGNAL else "-"
        line = panel.plot(places[0] + view.x + shift, places[1] + view.y, color=ELLIPSE, linewidth=0.8, linestyle=style)
        line[0].set_clip_path(frame)
    panel.plot(view.x + shift, view.y, marker="+", color=ELLIPSE, markersize=5, markeredgewidth=0.8)


def _draw_profiles(panel: Axes, profiles: Sequence[Profile], shown: Profile) -> None:
    others = iter(_OTHER_COLOURS)
    for profile in profiles:
        if profile.state != "measured" or not np.isfinite(profile.mu).any():
            continue
        colour = COLOURS.get(profile.band) or next(others, MUTED)
        error = np.nan_to_num(np.clip(profile.mu_error, 0, 3))
        panel.fill_between(
            profile.radius_arcsec, profile.mu - error, profile.mu + error, color=colour, alpha=0.25, linewidth=0
        )
        panel.plot(profile.radius_arcsec, profile.mu, color=colour, linewidth=1.1, label=profile.band)
    limit = magnitude(3 * shown.intensity_error)
    panel.plot(shown.radius_arcsec, limit, color=MUTED, linewidth=0.8, linestyle="--", label="S/N 3")
    if np.isfinite(shown.psf_fwhm_arcsec):
        panel.axvline(shown.psf_fwhm_arcsec, color=MUTED, linewidth=0.8, linestyle=":")
    known = np.concatenate([profile.mu[np.isfinite(profile.mu)] for profile in profiles])
    if known.size:
        faintest = np.nanmax(limit) if np.isfinite(limit).any() else known.max()
        panel.set_ylim(min(known.max(), float(faintest)) + 1.2, known.min() - 0.5)
    _style(panel, shown.radius_arcsec, ylabel="")
    panel.set_title("mag / arcsec$^2$ by semi-major axis (arcsec)", fontsize=7.5, color=INK, loc="left", pad=3)
    panel.legend(fontsize=6.5, frameon=False, loc="upper right", handlelength=1.2, labelspacing=0.2)


def _draw_geometry(upper: Axes, lower: Axes, profile: Profile) -> None:
    fitted = (profile.flags & RadiusFlag.FIXED_GEOMETRY) == 0
    for panel, values, name in (
        (upper, profile.ellipticity, "ellipticity"),
        (lower, profile.position_angle, "position angle"),
    ):
        panel.plot(profile.radius_arcsec, values, ".", color=MUTED, markersize=1.5)
        panel.plot(profile.radius_arcsec[fitted], values[fitted], ".", color=ELLIPSE, markersize=3)
        _style(panel, profile.radius_arcsec, ylabel="")
        panel.text(0.03, 0.88, name, transform=panel.transAxes, fontsize=6.5, color=INK, va="top")
    upper.set_ylim(0, 1)
    upper.tick_params(labelbottom=False)
    lower.set_ylim(0, 180)
    lower.set_yticks([0, 90, 180])


def _style(panel: Axes, radius: NDArray[np.float64], *, ylabel: str) -> None:
    logarithmic(panel, radius[0] * 0.9, radius[-1] * 1.1)
    panel.grid(color="#e4e6df", linewidth=0.5)
    panel.tick_params(labelsize=6.5, labelcolor=MUTED, color=MUTED, pad=1.5, length=2)
    panel.set_ylabel(ylabel, fontsize=7)
    for side, spine in panel.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(MUTED)


def logarithmic(panel: Axes, low: float, high: float) -> None:
    """Make the horizontal axis logarithmic between two values, with plain numbers for ticks."""
    panel.set_xscale("log")
    panel.set_xlim(low, high)
    ticks = [tick for tick in _TICKS if low <= tick <= high]
    panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    panel.set_xticks([], minor=True)
