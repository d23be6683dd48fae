"""In-painting of drawn satellite trails on real Legacy cutouts, beside biharmonic and median fill; and how trails are found.

A trail of 1.5 to 2.5 arcsec FWHM and 5 to 60 times the noise of a pixel is drawn through each image near its middle, in one
band (as a satellite leaves it) or in all; `find_trails` has to find it, and what it masks is filled. Errors are those of
masked pixels where the galaxy's S/N is above 1, in units of the noise of a pixel, against the image without the trail.

    python benchmarks/inpainting_accuracy.py --model galaxy-diffusion-small --trails 3
    python benchmarks/inpainting_accuracy.py --model mine --warehouse ./warehouse --in all --out pictures
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import csr_matrix, diags, identity, kron
from scipy.sparse.linalg import spsolve

from storage.cutouts import Cutout
from tasks.sky.cutout_files import read_cutout
from tasks.sky.diffusion_jobs import pin_weights
from tasks.sky.inpainting import Inpainted, InpaintRule, inpaint
from tasks.sky.inpainting_job import comparison
from tasks.sky.noise import robust_scatter
from tasks.sky.trails import across, find_trails

IMAGES = ("decals_dr3_a", "decals_dr3_b", "decals_dr3_d", "decals_59.1067_-30.4848_img_ivar")
_SMOOTH_ARCSEC = 0.5
_APERTURE_ARCSEC = 6.0
_ANNULUS_ARCSEC = 1.0
_SIGNAL = 10.0
Image = NDArray[np.float64]


@dataclass(frozen=True)
class Spoilt:
    """An image with a drawn trail, and what is true of it."""

    before: Cutout
    after: Cutout
    bands: tuple[int, ...]
    angle_deg: float


def draw_trail(cutout: Cutout, rng: np.random.Generator, *, every_band: bool) -> Spoilt:
    """Return an image with a trail through its middle part."""
    angle, offset = float(rng.uniform(0, 180)), float(rng.uniform(-0.15, 0.15)) * min(cutout.shape)
    width = float(rng.uniform(1.5, 2.5)) / 2.3548 / cutout.pixel_scale_arcsec
    peak, band = math.exp(float(rng.uniform(math.log(5), math.log(60)))), int(rng.integers(len(cutout.bands)))
    bands = tuple(range(len(cutout.bands))) if every_band else (band,)
    shape = np.exp(-0.5 * ((across(cutout.shape, math.radians(angle)) - offset) / width) ** 2)
    flux = cutout.flux.copy()
    flux[band] += (peak * noise_of(cutout.flux[band]) * shape).astype(np.float32)
    return Spoilt(cutout, replace(cutout, flux=flux), bands, angle)


def noise_of(plane: NDArray[np.floating]) -> float:
    """Return the scatter of the pixels of the faintest quarter of an image, about their own means."""
    smooth = ndimage.gaussian_filter(plane.astype(float), 8)
    faint = smooth < np.quantile(smooth, 0.25)
    return robust_scatter((plane - smooth)[faint])


def biharmonic(plane: Image, hole: NDArray[np.bool_]) -> Image:
    """Return an image whose hole solves the biharmonic equation, given all pixels around it."""
    rows, columns = plane.shape
    step = [diags([1.0, -2.0, 1.0], [-1, 0, 1], shape=(side, side)).tolil() for side in (rows, columns)]
    for matrix in step:
        matrix[0, 0] = matrix[-1, -1] = -1.0
    laplace = csr_matrix(kron(step[0], identity(columns)) + kron(identity(rows), step[1]))
    twice = csr_matrix(laplace @ laplace)[hole.ravel()]
    found = plane.copy()
    found[hole] = spsolve(twice[:, hole.ravel()].tocsc(), -twice[:, ~hole.ravel()] @ plane[~hole])
    return found


def median_fill(plane: Image, hole: NDArray[np.bool_], *, least: int = 24) -> Image:
    """Return an image each of whose hole's pixels is the median of the known ones about it, so many at the least."""
    found, known = plane.copy(), ~hole
    for row, column in np.argwhere(hole):
        for half in range(1, max(plane.shape)):
            window = np.s_[max(row - half, 0) : row + half + 1, max(column - half, 0) : column + half + 1]
            if known[window].sum() >= least:
                found[row, column] = np.median(plane[window][known[window]])
                break
    return found


def crps(draws: NDArray[np.floating], truth: NDArray[np.floating]) -> float:
    """Return the mean CRPS of an ensemble, (draw, pixel), without a bias for its size (Ferro 2014); of one draw, |error|."""
    count = len(draws)
    error = np.abs(draws - truth).mean(axis=0)
    if count == 1:
        return float(error.mean())
    order = np.sort(draws, axis=0)
    weights = (2 * np.arange(1, count + 1) - count - 1)[:, None]
    apart = 2 * (weights * order).sum(axis=0) / (count * (count - 1))
    return float((error - 0.5 * apart).mean())


def lag(values: Image, where: NDArray[np.bool_]) -> float:
    """Return the correlation of pixels side by side, of those that both lie in `where`, what is beyond 4 sigma cut off."""
    limit = 4 * robust_scatter(values[where])
    cut = values.clip(-limit, limit)
    found = [
        np.mean((one * other)[both])
        for one, other, both in (
            (cut[:, 1:], cut[:, :-1], where[:, 1:] & where[:, :-1]),
            (cut[1:], cut[:-1], where[1:] & where[:-1]),
        )
    ]
    return float(np.mean(found) / np.mean(cut[where] ** 2))


def score(spoilt: Spoilt, filled: Inpainted) -> dict[str, object]:
    """Return the errors of one filled image beside those of the floors."""
    rows = []
    for band in np.flatnonzero(filled.mask.any(axis=(1, 2))):
        truth, hole = spoilt.before.flux[band].astype(float), filled.mask[band]
        noise = noise_of(truth)
        smooth = ndimage.gaussian_filter(truth, _SMOOTH_ARCSEC / spoilt.before.pixel_scale_arcsec)
        bright = hole & (smooth > noise)
        draws = np.stack([filled.filled(draw)[band] for draw in filled.draws]).astype(float)
        floors = {"biharmonic": biharmonic(truth, hole), "median": median_fill(truth, hole)}
        row: dict[str, float] = {"bright_pixels": float(bright.sum())}
        if bright.any():
            for name, image in {"mean": draws.mean(axis=0), "draw": draws[0], **floors}.items():
                row[f"rmse_{name}"] = float(np.sqrt(np.mean((image - truth)[bright] ** 2))) / noise
            row["crps_draws"] = crps(draws[:, bright], truth[bright]) / noise
            row |= {f"crps_{name}": crps(image[None, bright], truth[bright]) / noise for name, image in floors.items()}
        row |= _noise_in_hole(draws, truth, hole, noise, spoilt.before.pixel_scale_arcsec)
        row |= _photometry(draws, truth, noise, spoilt.before.pixel_scale_arcsec)
        rows.append(row)
    outside = ~filled.mask
    same = all(filled.filled(draw)[outside].tobytes() == spoilt.after.flux[outside].tobytes() for draw in filled.draws)
    means = {name: float(np.nanmean([row[name] for row in rows if name in row])) for name in rows[0]}
    return {"bit_for_bit": same, **means}


def _noise_in_hole(draws: Image, truth: Image, hole: NDArray[np.bool_], noise: float, scale: float) -> dict[str, float]:
    """Return variance and lag-1 of the sky in the hole over those beside it, about what is smooth in each."""
    wide = 1.2 / scale
    sky = ndimage.gaussian_filter(truth, 2 / scale) < 0.7 * noise
    beside = sky & ~hole & (ndimage.distance_transform_edt(~hole) < 6 / scale)
    inside = sky & hole
    if min(inside.sum(), beside.sum()) < 400:
        return {}
    around = truth - ndimage.gaussian_filter(truth, wide)
    within = [draw - ndimage.gaussian_filter(draw, wide) for draw in draws[:4]]
    variance = np.mean([robust_scatter(one[inside]) ** 2 for one in within])
    return {
        "variance_ratio": float(variance / robust_scatter(around[beside]) ** 2),
        "lag": float(np.mean([lag(one, inside) for one in within])),
        "lag_beside": lag(around, beside),
    }


def _photometry(draws: Image, truth: Image, noise: float, scale: float) -> dict[str, float]:
    """Return by how much the aperture magnitude and the brightest annuli's surface brightness move, at most."""
    rows, columns = np.indices(truth.shape)
    middle = np.s_[truth.shape[0] // 4 : -(truth.shape[0] // 4), truth.shape[1] // 4 : -(truth.shape[1] // 4)]
    smooth = ndimage.gaussian_filter(truth, 1 / scale)[middle]
    y, x = np.array(np.unravel_index(int(smooth.argmax()), smooth.shape)) + np.array(truth.shape) // 4
    radius = np.hypot(rows - y, columns - x) * scale
    sky = float(np.median(truth[radius > np.quantile(radius, 0.8)]))
    aperture = radius < _APERTURE_ARCSEC
    found: dict[str, float] = {}
    for name, image in (("mean", draws.mean(axis=0)), ("draw", draws[0])):
        moved = 2.5 * math.log10((image - sky)[aperture].sum() / (truth - sky)[aperture].sum())
        annuli = []
        for inner in np.arange(0, radius.max(), _ANNULUS_ARCSEC):
            ring = (radius >= inner) & (radius < inner + _ANNULUS_ARCSEC)
            light = (truth - sky)[ring]
            # neighbouring pixels of these images share their noise: an annulus has fewer independent ones
            if ring.sum() > 20 and light.mean() > _SIGNAL * noise * math.sqrt((1.2 / scale) ** 2 / ring.sum()):
                annuli.append(abs(2.5 * math.log10(max((image - sky)[ring].mean(), 1e-12) / light.mean())))
        found |= {f"aperture_mag_{name}": abs(moved), f"annulus_mag_{name}": max(annuli, default=0.0)}
    return found


def main() -> None:
    """Spoil, find, fill and score; print one line of JSON for each image and one for all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="galaxy-diffusion-small")
    parser.add_argument("--warehouse", default="./warehouse")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/galaxies/legacy_grz_cutouts"))
    parser.add_argument("--trails", type=int, default=3, help="of each image")
    parser.add_argument("--in", dest="bands", choices=("one", "all"), default="one", help="bands that are filled")
    parser.add_argument("--draws", type=int, default=16)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--resamplings", type=int, default=4)
    parser.add_argument("--smoothing", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--images", nargs="*", default=IMAGES)
    parser.add_argument("--out", type=Path, help="folder for a picture of each")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    model, device = pin_weights(asked.warehouse, asked.model).open(None)
    rng = np.random.default_rng(asked.seed)
    rule = InpaintRule(asked.draws, asked.steps, asked.resamplings, smoothing=asked.smoothing, seed=asked.seed)
    rows, found, false = [], 0, 0
    for name in asked.images:
        cutout = read_cutout(asked.data / f"{name}.fits")
        for number in range(asked.trails):
            spoilt = draw_trail(cutout, rng, every_band=asked.bands == "all")
            trails = find_trails(spoilt.after)
            hits = [t for t in trails if abs((t.angle_deg - spoilt.angle_deg + 90) % 180 - 90) < 3]
            found, false = found + bool(hits), false + len(trails) - len(hits)
            if not hits:
                continue
            mask = np.zeros(cutout.flux.shape, dtype=bool)
            mask[list(spoilt.bands)] = hits[0].mask(cutout.shape)
            begun = time.perf_counter()
            filled = inpaint(model, spoilt.after, mask, rule=rule, device=device)
            row = {"image": name, **score(spoilt, filled), "seconds": round(time.perf_counter() - begun, 1)}
            rows.append(row)
            print(json.dumps({key: round(v, 4) if isinstance(v, float) else v for key, v in row.items()}), flush=True)
            if asked.out:
                asked.out.mkdir(parents=True, exist_ok=True)
                (asked.out / f"{name}-{asked.bands}-{number}.png").write_bytes(comparison(filled))
    names = dict.fromkeys(key for row in rows for key in row if key not in ("image", "bit_for_bit", "seconds"))
    means = {key: round(float(np.nanmean([row.get(key, np.nan) for row in rows])), 4) for key in names}
    worst = {key: round(max(row[key] for row in rows), 4) for key in names if "_mag_" in key}
    total = len(asked.images) * asked.trails
    summary = {"images": len(rows), "recall": found / total, "false_alarms": false, "mean": means, "worst": worst}
    print(json.dumps({**summary, "bit_for_bit": all(row["bit_for_bit"] for row in rows)}))


if __name__ == "__main__":
    main()
