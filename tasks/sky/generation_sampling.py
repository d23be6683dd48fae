"""Galaxies of a diffusion model to be scored: those that `canopus generate` would make, kept in memory."""

from __future__ import annotations

from functools import partial

import numpy as np

from storage.location import Location
from tasks.progress import report
from tasks.sky.diffusion_jobs import SamplingRule, pin_weights
from tasks.sky.generation_sets import GalaxySet, Sampled
from tasks.sky.synthesis import GenerateRequest, make_batch

_TOGETHER = {"cpu": 50, "cuda": 1024}
"""Images of a batch, by kind of device."""


def sampling(rule: SamplingRule, *, device: str | None = None) -> Sampled:
    """Return what draws galaxies from a model by name, by a rule."""
    return partial(sample_galaxies, rule=rule, device=device)


def sample_galaxies(
    warehouse: Location, name: str, count: int, seed: int, *, rule: SamplingRule, device: str | None = None
) -> GalaxySet:
    """Return galaxies of a model of the warehouse, or a shipped one.

    A galaxy's noise and conditions come from its own seed: sets of one seed are pairs, whatever the rule.

    Parameters
    ----------
    warehouse : Location
        Root of the warehouse.
    name : str
        Name, or ``name/version``.
    count, seed : int
        How many; of the galaxies' own seeds.
    rule : SamplingRule
        How images are made from noise.
    device : str, optional
        ``cpu`` or ``cuda``; by default a GPU where there is one.

    Raises
    ------
    NotFound, ConfigurationError
        Where there is no such model, it makes no galaxies, or numbers that are not finite.
    """
    weights = pin_weights(str(warehouse), name)
    model, where = weights.open(device)
    request = GenerateRequest(str(warehouse), "", count, weights, rule, seed)
    made, together = [], _TOGETHER[where.type]
    for start in range(0, count, together):
        numbers = tuple(range(start, min(start + together, count)))
        made += [cutout.flux for cutout in make_batch(model, request, numbers, device=where)]
        report("sample", weights.model, len(made), count)
    config = model.config
    origin = f"{weights.model}, {rule.steps} steps of {rule.sampler}, seed {seed}"
    return GalaxySet(np.stack(made), config.bands, config.pixel_scale_arcsec, origin)
