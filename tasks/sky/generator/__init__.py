"""Galaxies with exact truth, rendered in batches on a CPU or a GPU.

Examples
--------
>>> import torch
>>> from tasks.sky.generator import BENCH_FULL, draw
>>> galaxies = draw(4, BENCH_FULL, generator=torch.Generator().manual_seed(7), pixels=64, pixel_scale_arcsec=0.524)
>>> galaxies.flux.shape
torch.Size([4, 3, 64, 64])
"""

from __future__ import annotations

from tasks.sky.generator.archive import GalaxyArchive, truth_table, write_archive
from tasks.sky.generator.convert import to_cutout
from tasks.sky.generator.prior import (
    BENCH_FULL,
    BENCH_SIMPLE,
    NATIVE_SCALE,
    PRIORS,
    GalaxyPrior,
    NoisePrior,
    PsfPrior,
    StructurePrior,
    SurroundingsPrior,
)
from tasks.sky.generator.psf import PsfImages, read_psf_images
from tasks.sky.generator.render import Galaxies, Truth, draw, draw_galaxies
from tasks.sky.generator.structure import KINDS
from tasks.sky.generator.truth import evaluation_radii, signal_to_noise, true_profile

__all__ = [
    "BENCH_FULL",
    "BENCH_SIMPLE",
    "KINDS",
    "NATIVE_SCALE",
    "PRIORS",
    "Galaxies",
    "GalaxyArchive",
    "GalaxyPrior",
    "NoisePrior",
    "PsfImages",
    "PsfPrior",
    "StructurePrior",
    "SurroundingsPrior",
    "Truth",
    "draw",
    "draw_galaxies",
    "evaluation_radii",
    "read_psf_images",
    "signal_to_noise",
    "to_cutout",
    "true_profile",
    "truth_table",
    "write_archive",
]
