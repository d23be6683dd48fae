"""A gallery of cutouts: Lupton colours from three bands or more, grey from fewer, scaled to each object's own sky."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from storage.cutouts import TARGET, Cutout

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PER_PAGE = 30
PANEL_PIXELS = 420
WAVELENGTHS_NM = {"fuv": 154, "nuv": 227, "u": 355, "g": 480, "r": 630, "i": 765, "z": 905, "y": 980}
WAVELENGTHS_NM |= {"b": 445, "v": 551, "j": 1250, "h": 1650, "k": 2200, "ks": 2150, "w1": 3400, "w2": 4600}
WAVELENGTHS_NM |= {"f475w": 475, "f606w": 595, "f814w": 805, "f105w": 1055, "f125w": 1250, "f160w": 1540}
LEGACY_WEIGHTS = {"g": 6.0, "r": 3.4, "i": 3.0, "z": 2.2}
"""Weights of the Legacy Survey viewer on nanomaggies: galaxies come out in the colours that people know."""

NOT_VALID, NEIGHBOUR = (52, 58, 84), "#c9b458"
INK, MUTED, PAPER = "#f2f0ea", "#a9a79f", "#101216"
BLACK_SIGMAS = 1.0
STRETCH_SIGMAS = (9.0, 14.0)
"""Least and largest linear range of the stretch in sigmas of the sky: noise stays dark, faint discs show."""
SOFTENINGS = (8.0, 10.0, 12.0, 15.0, 20.0, 30.0)
"""Lupton's Q: the first that does not burn out the brightest pixels."""
_BRIGHT_PERCENTILE, _BRIGHT_VALUE = 99.9, 0.95
_BLOCKS = 8
_NORMAL = 1.482602218505602
"""Standard deviation of a normal distribution in median absolute deviations."""
_PANEL_INCHES, _GAP_INCHES, _TITLE_INCHES, _PIXELS_PER_INCH = 2.0, 0.12, 0.24, 110
_BARS_ARCSEC = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600)


def gallery_picture(cutouts: Sequence[Cutout], *, titles: Sequence[str] | None = None) -> bytes:
    """Return a PNG of up to `PER_PAGE` cutouts; the same input gives the same bytes.

    Sky is dark, one sigma below it is black, and the stretch follows the noise of each image at the size shown, so that
    faint discs show whatever the depth. Pixels without data are slate blue, neighbours are outlined.

    Parameters
    ----------
    cutouts : sequence of Cutout
        What is beyond `PER_PAGE` is left out, and the picture says so.
    titles : sequence of str, optional
        One for each; by default the ids.

    Raises
    ------
    ValueError
        Where there is no cutout, or not one title for each.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    words = [cutout.object_id for cutout in cutouts] if titles is None else list(titles)
    if not cutouts or len(words) != len(cutouts):
        raise ValueError(f"a gallery of {len(cutouts)} cutouts with {len(words)} titles: give one title for each")
    shown = min(len(cutouts), PER_PAGE)
    columns = min(6, max(1, math.ceil(math.sqrt(shown * 1.3))))
    rows = math.ceil(shown / columns)
    width = columns * (_PANEL_INCHES + _GAP_INCHES) + _GAP_INCHES
    height = rows * (_PANEL_INCHES + _TITLE_INCHES + _GAP_INCHES) + _GAP_INCHES + _TITLE_INCHES
    figure = Figure(figsize=(width, height), dpi=_PIXELS_PER_INCH, facecolor=PAPER)
    FigureCanvasAgg(figure)
    for index, (cutout, title) in enumerate(zip(cutouts[:shown], words, strict=False)):
        row, column = divmod(index, columns)
        left = _GAP_INCHES + column * (_PANEL_INCHES + _GAP_INCHES)
        bottom = height - (row + 1) * (_PANEL_INCHES + _TITLE_INCHES + _GAP_INCHES)
        axes = figure.add_axes(
            (left / width, bottom / height, _PANEL_INCHES / width, _PANEL_INCHES / height), facecolor=PAPER
        )
        _draw_cutout(axes, cutout, title)
    rest = len(cutouts) - shown
    footer = "slate blue: no data; outlined: neighbours"
    figure.text(
        _GAP_INCHES / width,
        0.1 / height,
        f"{shown} of {len(cutouts)} objects; {footer}" if rest else footer,
        color=MUTED,
        fontsize=6.5,
        va="center",
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor=PAPER, metadata={"Software": None, "Title": "cutouts"})
    return buffer.getvalue()


def colour_image(cutout: Cutout, *, most: int = PANEL_PIXELS) -> NDArray[np.uint8]:
    """Return a cutout in colours, (y, x, 3), row 0 the lowest; averaged in blocks to at most `most` pixels a side.

    Three bands go by wavelength to blue, green and red, of more than three the first, the middle and the last; one or
    two give grey.
    """
    from astropy.visualization import make_lupton_rgb

    chosen = _colour_bands(cutout.band_names)
    step = -(-max(cutout.shape) // most)
    planes, share = [], np.ones((1, 1))
    for band in chosen:
        flux, has_data = _averaged(cutout.flux[band], cutout.valid[band], step)
        level, sigma = _sky_of(flux, has_data)
        planes.append(((flux - level), sigma))
        share = np.minimum(share, has_data)
    weights = _weights(cutout, chosen, [sigma for _, sigma in planes])
    scaled = [plane * weight for (plane, _), weight in zip(planes, weights, strict=True)]
    # noise of the mean of the three, which is what the stretch works on
    noise = math.sqrt(sum((sigma * weight) ** 2 for (_, sigma), weight in zip(planes, weights, strict=True))) / 3
    noise *= 1.0 if len(set(chosen)) > 1 else math.sqrt(3.0)
    if noise == 0:
        noise = max(float(np.max(np.abs(scaled))) / 1e3, 1e-30)
    blue, green, red = ((plane / noise + BLACK_SIGMAS).clip(min=0) for plane in scaled)
    stretch, softening = _stretch_of((blue + green + red)[share >= 0.5] / 3)
    # astropy divides by the intensity first and puts 0 for black pixels afterwards
    with np.errstate(invalid="ignore"):
        rgb: NDArray[np.uint8] = make_lupton_rgb(red, green, blue, minimum=0, stretch=stretch, Q=softening)
    rgb[share < 0.5] = NOT_VALID
    return rgb


def _draw_cutout(axes: Axes, cutout: Cutout, title: str) -> None:
    image = colour_image(cutout)
    rows, columns = cutout.shape
    axes.imshow(image, origin="lower", extent=(0, columns, 0, rows), interpolation="nearest")
    neighbours = cutout.segmentation > TARGET
    if neighbours.any():
        centres = np.arange(columns) + 0.5, np.arange(rows) + 0.5
        axes.contour(*centres, neighbours, levels=[0.5], colors=NEIGHBOUR, linewidths=0.5, alpha=0.8)
    # every panel is square and equal, whatever the shape of the image
    side = max(rows, columns)
    axes.set_xlim((columns - side) / 2, (columns + side) / 2)
    axes.set_ylim((rows - side) / 2, (rows + side) / 2)
    axes.set_axis_off()
    words = title if len(title) <= 34 else f"{title[:33]}…"
    axes.text(0, 1.02, words, transform=axes.transAxes, color=INK, fontsize=7.5, va="bottom", parse_math=False)
    axes.text(
        0.97, 0.03, " ".join(cutout.band_names), transform=axes.transAxes, color=INK, fontsize=6.5, ha="right",
        parse_math=False,
    )  # fmt: skip
    _draw_scale_bar(axes, cutout, side)


def _draw_scale_bar(axes: Axes, cutout: Cutout, side: int) -> None:
    width = side * cutout.pixel_scale_arcsec
    fitting = [length for length in _BARS_ARCSEC if length <= 0.3 * width]
    if not fitting:
        return
    share = fitting[-1] / width
    axes.plot([0.04, 0.04 + share], [0.045, 0.045], transform=axes.transAxes, color=INK, linewidth=1.4)
    axes.text(
        0.04 + share / 2, 0.06, f'{fitting[-1]:g}"', transform=axes.transAxes, color=INK, fontsize=6.5, ha="center"
    )


def _colour_bands(names: tuple[str, ...]) -> tuple[int, int, int]:
    """Return the bands for blue, green and red; unknown bands keep their place after the known ones."""
    order = sorted(range(len(names)), key=lambda index: WAVELENGTHS_NM.get(names[index].lower(), 10_000))
    if len(order) >= 3:
        return order[0], order[len(order) // 2], order[-1]
    # grey: the band in the middle of two is the redder one, which shows more of a galaxy
    return order[-1], order[-1], order[-1]


def _weights(cutout: Cutout, chosen: tuple[int, ...], sigmas: list[float]) -> list[float]:
    """Return what each band is multiplied by: the viewer's weights where all are known, else equal noise."""
    names = [cutout.band_names[band] for band in chosen]
    if len(set(names)) > 1 and all(name in LEGACY_WEIGHTS for name in names) and cutout.flux_unit == "nanomaggies":
        return [
            LEGACY_WEIGHTS[name] * cutout.nanomaggies_per_unit(band) for name, band in zip(names, chosen, strict=True)
        ]
    return [1.0 / sigma if sigma > 0 else 1.0 for sigma in sigmas]


def _stretch_of(intensity: NDArray[np.float64]) -> tuple[float, float]:
    """Return the stretch and Q that bring the brightest pixels, in sigmas of the sky, near white."""
    brightest = float(np.percentile(intensity, _BRIGHT_PERCENTILE)) if intensity.size else 0.0
    low, high = STRETCH_SIGMAS
    softening = SOFTENINGS[0]
    # Lupton et al. 2004: value = asinh(Q I / stretch) 0.1 / asinh(0.1 Q)
    wanted = softening * brightest / math.sinh(_BRIGHT_VALUE * math.asinh(0.1 * softening) / 0.1)
    stretch = min(max(wanted, low), high)
    for softening in SOFTENINGS:
        if math.asinh(softening * brightest / stretch) * 0.1 / math.asinh(0.1 * softening) <= _BRIGHT_VALUE:
            break
    return stretch, softening


def _averaged(
    flux: NDArray[np.float32], valid: NDArray[np.bool_], step: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean of valid pixels in blocks, and the share of them; what has none is 0."""
    held = np.where(valid, flux, 0.0).astype(float)
    share = valid.astype(float)
    if step > 1:
        held, share = _in_blocks(held, step), _in_blocks(share, step)
    return np.divide(held, share, out=np.zeros_like(held), where=share > 0), share


def _in_blocks(values: NDArray[np.float64], step: int) -> NDArray[np.float64]:
    rows, columns = (-(-side // step) * step for side in values.shape)
    padded = np.pad(values, ((0, rows - values.shape[0]), (0, columns - values.shape[1])), mode="edge")
    blocks: NDArray[np.float64] = padded.reshape(rows // step, step, columns // step, step).mean(axis=(1, 3))
    return blocks


def _sky_of(flux: NDArray[np.float64], share: NDArray[np.float64]) -> tuple[float, float]:
    """Return level and scatter of the darkest eighth of the image: a galaxy may fill the rest."""
    known = np.where(share > 0.5, flux, np.nan)
    (rows, beyond), (columns, aside) = map(_parts_of, flux.shape)
    cells = known[rows][..., columns]  # (row, y, column, x) of cells
    cells[beyond], cells[:, :, aside] = np.nan, np.nan
    cells = cells.swapaxes(1, 2).reshape(-1, rows.shape[1] * columns.shape[1])
    cells = cells[np.isfinite(cells).sum(axis=1) >= 4]
    if not len(cells):
        return 0.0, 0.0
    levels = _medians(cells)
    darkest = np.argsort(levels, kind="stable")[: max(1, len(cells) // _BLOCKS)]
    scatter = _NORMAL * _medians(np.abs(cells[darkest] - levels[darkest, None]))
    return float(np.median(levels[darkest])), float(np.median(scatter))


def _parts_of(side: int) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Return the places of each of `_BLOCKS` nearly equal parts of a side, and which of them lie beyond it."""
    parts = np.array_split(np.arange(side), _BLOCKS)
    places = np.array([part[0] if part.size else 0 for part in parts])[:, None] + np.arange(parts[0].size)
    beyond = np.arange(parts[0].size) >= np.array([part.size for part in parts])[:, None]
    return np.minimum(places, side - 1), beyond


def _medians(cells: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the median of each row's numbers; each has some. A sort puts NaN last."""
    ordered, count = np.sort(cells, axis=1), np.isfinite(cells).sum(axis=1)
    middle = np.stack([(count - 1) // 2, count // 2], axis=1)
    medians: NDArray[np.float64] = np.take_along_axis(ordered, middle, axis=1).mean(axis=1)
    return medians
