"""Cartoons of galaxies before and after transfer, beside the survey's own galaxies, and a floor of two sets of those.

A cartoon is a generated galaxy without noise, blurred, on the stretch of survey pictures, in a few flat colours. Each measure
is the Wasserstein-1 distance to other galaxies of the survey; the floor is that of as many of the survey's own.

    python benchmarks/transfer_accuracy.py --model galaxy-diffusion-small --galaxies 200
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from storage.location import resolve
from tasks.sky.diffusion_jobs import GalaxyModel, SamplingRule, pin_weights
from tasks.sky.galaxy_pool import whole_prior
from tasks.sky.gallery import LEGACY_WEIGHTS
from tasks.sky.generation_measures import Measured, measure_galaxies
from tasks.sky.generation_metrics import mean_of_wassersteins
from tasks.sky.generation_sets import GalaxySet
from tasks.sky.generator import Galaxies, draw
from tasks.sky.pictures import read_picture
from tasks.sky.transfer import TransferRule, transfer

_COLOURS = 5
_STRETCH = 8.0


def survey(count: int, seed: int, model: GalaxyModel) -> Galaxies:
    """Return galaxies as the model's survey shows them, without gaps and trails."""
    config = model.config
    return draw(
        count,
        whole_prior("bench_full"),
        generator=torch.Generator().manual_seed(seed),
        pixels=config.pixels,
        pixel_scale_arcsec=config.pixel_scale_arcsec,
    )


def cartoon(clean: NDArray[np.floating], bands: tuple[str, ...]) -> NDArray[np.uint8]:
    """Return a picture of a galaxy in flat colours, (y, x, 3), row 0 at the top."""
    weighted = np.stack([LEGACY_WEIGHTS[band] * plane for band, plane in zip(bands, clean, strict=True)])[::-1]
    blurred = ndimage.gaussian_filter(weighted, (0, 1.5, 1.5))
    bright = np.arcsinh(_STRETCH * (blurred / blurred.max()).clip(0)) / np.arcsinh(_STRETCH)
    flat = np.round(bright * _COLOURS) / _COLOURS
    fine = np.kron(flat, np.ones((1, 4, 4)))[:, ::-1]
    found: NDArray[np.uint8] = np.moveaxis(255 * fine, 0, -1).round().astype(np.uint8)
    return found


def distances(found: Measured, real: Measured) -> dict[str, float]:
    """Return the distance of two sets by each measure."""
    shapes = {name: (getattr(found.shapes, name), getattr(real.shapes, name)) for name in vars(found.shapes)}
    pairs = {"noise": (found.noise, real.noise), "lag-1": (found.correlation, real.correlation)}
    pairs |= {"spectrum": (found.spectrum, real.spectrum)}
    pairs |= {name: (one[:, None], other[:, None]) for name, (one, other) in shapes.items() if np.ndim(one) == 1}
    return {name: round(_distance(one, other), 4) for name, (one, other) in pairs.items()}


def _distance(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    kept = [values[np.isfinite(values).all(axis=1)] for values in (one, other)]
    least = min(map(len, kept))
    return float(mean_of_wassersteins(kept[0][:least], kept[1][:least]))


def main() -> None:
    """Draw, transfer, measure; print one line of JSON for each set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="galaxy-diffusion-small")
    parser.add_argument("--warehouse", default="./warehouse")
    parser.add_argument("--galaxies", type=int, default=200)
    parser.add_argument("--strength", type=float, nargs="*", default=[0.25, 0.35, 0.45])
    parser.add_argument("--seed", type=int, default=7)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    model, device = pin_weights(resolve(asked.warehouse).url, asked.model).open(None)
    scale = model.config.pixel_scale_arcsec

    def measure(flux: NDArray[np.floating]) -> Measured:
        return measure_galaxies(GalaxySet(flux.astype(np.float32), model.config.bands, scale))

    own = survey(asked.galaxies, asked.seed, model)
    real, floor = (measure(survey(asked.galaxies, asked.seed + more, model).flux.numpy()) for more in (1, 2))
    magnitudes = 22.5 - 2.5 * np.log10(own.clean[:, 1].sum(dim=(-2, -1)).numpy())
    with TemporaryDirectory() as folder:
        drawn = []
        for clean, magnitude in zip(own.clean.numpy(), magnitudes, strict=True):
            path = Path(folder) / "cartoon.png"
            Image.fromarray(cartoon(clean, own.bands)).save(path)
            drawn.append(read_picture(path, model.config, magnitude=float(magnitude)))
    print(json.dumps({"set": "floor", **distances(floor, real)}))
    print(json.dumps({"set": "cartoons", **distances(measure(np.stack(drawn)), real)}), flush=True)
    for strength in asked.strength:
        begun = time.perf_counter()
        rules = [TransferRule(strength, SamplingRule(), seed=asked.seed + number) for number in range(len(drawn))]
        made = [transfer(model, flux, rule=rule, device=device) for flux, rule in zip(drawn, rules, strict=True)]
        ratio = np.stack(
            [after.sum(axis=(1, 2)) / flux.sum(axis=(1, 2)) for after, flux in zip(made, drawn, strict=True)]
        )
        row = {"set": f"strength {strength:g}", **distances(measure(np.stack(made)), real)}
        row |= {
            "flux_moved_most": round(float(np.abs(ratio - 1).max()), 4),
            "seconds": round(time.perf_counter() - begun, 1),
        }
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
