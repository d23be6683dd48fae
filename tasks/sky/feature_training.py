"""Training of the network whose features FID and KID are taken from: it learns what is true of generated galaxies."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from models.galaxy_features import KINDS, DescribedGalaxies, GalaxyFeatures, GalaxyFeaturesConfig
from models.registry import GALAXY_FEATURES
from models.training import StepReport, TrainConfig, fit
from storage.location import resolve
from tasks.earth.model_files import save_network
from tasks.earth.model_folders import ModelReference
from tasks.errors import ConfigurationError
from tasks.progress import report
from tasks.sky.galaxy_pool import whole_prior
from tasks.sky.generator import Galaxies, draw

PIECE, BATCH = 256, 64
HELD_OUT = 4
"""Pieces that are not trained on."""
PIXELS = 64
PRIOR = "bench_full"


@dataclass(frozen=True)
class FeatureRequest:
    """What is trained.

    Parameters
    ----------
    warehouse : str
        URL.
    name : str
        Of the model.
    galaxies : int
        How many are drawn; each is seen several times, turned and mirrored.
    steps : int
        Updates of 64 galaxies.
    seed : int
        Of galaxies, weights and order.
    """

    warehouse: str
    name: str = "galaxy-features"
    galaxies: int = 16_384
    steps: int = 1200
    seed: int = 1906


@dataclass(frozen=True)
class _Drawn:
    flux: Tensor
    quantities: Tensor
    kind: Tensor


class FeatureBatches:
    """Batches of drawn galaxies: a piece is drawn when it is first asked for, and kept."""

    def __init__(self, request: FeatureRequest, config: GalaxyFeaturesConfig) -> None:
        self.request, self.config = request, config
        self.pieces = max(1, request.galaxies // PIECE)
        self.piece = lru_cache(maxsize=None)(self._draw)
        first = self.piece(0).quantities
        self.mean, self.spread = first.mean(dim=0), first.std(dim=0)

    def at(self, position: int) -> DescribedGalaxies:
        """Return the batch at a position."""
        per_piece = PIECE // BATCH
        rounds, place = divmod(position, per_piece * self.pieces)
        order = torch.randperm(PIECE, generator=torch.Generator().manual_seed(rounds))
        rows = order[place % per_piece * BATCH :][:BATCH]
        drawn = self.piece(place // per_piece)
        # the eight symmetries of the square, one for each batch
        turn = int(torch.randint(8, (1,), generator=torch.Generator().manual_seed(position)))
        flux = torch.rot90(drawn.flux[rows], turn % 4, (-2, -1))
        flux = flux.flip(-1) if turn >= 4 else flux
        return DescribedGalaxies(flux.contiguous(), self._standard(drawn.quantities[rows]), drawn.kind[rows])

    def tokens(self, batch: DescribedGalaxies) -> int:
        """Return how many galaxies a batch holds."""
        return len(batch)

    def held_out(self) -> DescribedGalaxies:
        """Return galaxies that no batch has."""
        parts = [self._draw(self.pieces + number) for number in range(HELD_OUT)]
        quantities = torch.cat([part.quantities for part in parts])
        flux, kinds = torch.cat([part.flux for part in parts]), torch.cat([part.kind for part in parts])
        return DescribedGalaxies(flux, self._standard(quantities), kinds)

    def _standard(self, quantities: Tensor) -> Tensor:
        return (quantities - self.mean) / self.spread

    def _draw(self, number: int) -> _Drawn:
        generator = torch.Generator().manual_seed(self.request.seed * 100_003 + number)
        galaxies = draw(
            PIECE,
            whole_prior(PRIOR),
            generator=generator,
            pixels=PIXELS,
            pixel_scale_arcsec=self.config.pixel_scale_arcsec,
        )
        described = torch.stack(list(describe(galaxies).values()), dim=1)
        return _Drawn(galaxies.flux, described, galaxies.truth.kind)


def describe(galaxies: Galaxies) -> dict[str, Tensor]:
    """Return what the network learns to tell, by name, each shape (galaxy,)."""
    truth = galaxies.truth
    found = {
        f"magnitude_{band}": 22.5 - 2.5 * truth.flux[:, place].log10() for place, band in enumerate(galaxies.bands)
    }
    found["log_radius_arcsec"] = truth.radius_arcsec.log10()
    found["axis_ratio"] = truth.axis_ratio
    found["bulge_share"] = truth.bulge_share
    found["log_sersic_index"] = truth.sersic_index.clamp(min=0.1).log10()
    for place, band in enumerate(galaxies.bands):
        found[f"log_psf_fwhm_{band}"] = truth.psf_fwhm_arcsec[:, place].log10()
        found[f"log_noise_{band}"] = truth.sigma[:, place].log10()
    return found


def train_features(request: FeatureRequest) -> tuple[ModelReference, dict[str, Any]]:
    """Train a network of features, save it, and return where it lies and how well it tells what is true.

    Raises
    ------
    ConfigurationError
        Where there are fewer galaxies than one piece, or no updates.
    """
    if request.galaxies < PIECE or request.steps < 1:
        raise ConfigurationError(
            f"{request.galaxies} galaxies and {request.steps} updates: ask for at least {PIECE} galaxies and one update"
        )
    names = tuple(describe(draw(1, whole_prior(PRIOR), generator=torch.Generator().manual_seed(0), pixels=PIXELS)))
    config = GalaxyFeaturesConfig(quantities=names)
    batches = FeatureBatches(request, config)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(request.seed)
        model = GalaxyFeatures(config)
    train = TrainConfig(
        steps=request.steps,
        learning_rate=2e-3,
        final_share=0.02,
        weight_decay=0.01,
        ema_decay=0.99,
        seed=request.seed,
        log_every=20,
    )
    begun = time.process_time()
    state = fit(model, batches, train, on_step=lambda step: _show(request, step))
    model.load_state_dict(state.weights, strict=False)
    held_out = batches.held_out()
    model.eval().standardise(held_out.flux)
    metrics = score_features(model, held_out)
    training = {
        "data": f"{request.galaxies:,} galaxies of {PRIOR}, {PIXELS} pixels of {config.pixel_scale_arcsec} arcsec, no gaps or trails",
        "galaxies": batches.pieces * PIECE,
        "seen": state.position * BATCH,
        "updates": state.step,
        "cpu_minutes": round((time.process_time() - begun) / 60, 2),
        "seed": request.seed,
        "batch": BATCH,
        "train": asdict(train),
        "standard": {
            name: [round(float(mean), 6), round(float(spread), 6)]
            for name, mean, spread in zip(names, batches.mean, batches.spread, strict=True)
        },
        "software": {"canopus": version("canopus"), "torch": torch.__version__},
    }
    reference = save_network(
        resolve(request.warehouse),
        request.name,
        model,
        kind=GALAXY_FEATURES.name,
        config=asdict(config),
        metrics=metrics,
        training=training,
        card=_card(model, metrics, training, request),
    )
    return reference, metrics


@torch.inference_mode()
def score_features(model: GalaxyFeatures, held_out: DescribedGalaxies) -> dict[str, Any]:
    """Return the share of each quantity's variance that is told, and of kinds told right."""
    told, kinds = zip(*(model.answers(part) for part in held_out.flux.split(BATCH)), strict=True)
    quantities = torch.cat(told)
    left = (quantities - held_out.quantities).square().mean(dim=0)
    explained = 1 - left / held_out.quantities.var(dim=0, unbiased=False)
    right = (torch.cat(kinds).argmax(dim=1) == held_out.kind).float().mean()
    return {
        "galaxies": len(held_out),
        "explained": {
            name: round(float(value), 4) for name, value in zip(model.config.quantities, explained, strict=True)
        },
        "kinds_right": round(float(right), 4),
        "kinds_by_chance": round(float(torch.bincount(held_out.kind, minlength=KINDS).max()) / len(held_out), 4),
    }


def _show(request: FeatureRequest, step: StepReport) -> None:
    report("features", request.name, step.step, request.steps, f"update {step.step}, loss {step.loss:.3f}")


def _card(model: GalaxyFeatures, metrics: dict[str, Any], training: dict[str, Any], request: FeatureRequest) -> str:
    size = sum(parameter.numel() for parameter in model.parameters())
    rows = "\n".join(f"| {name} | {value:.3f} |" for name, value in metrics["explained"].items())
    learned, fixed = model.config.features, model.num_features - model.config.features
    bands = ", ".join(model.config.bands)
    return f"""Features of galaxies for FID and KID: a small convolutional network, {size:,} parameters, with {learned} learned features
and {fixed} fixed ones of differences of pixels; bands {bands}, pixels of {model.config.pixel_scale_arcsec} arcsec, flux in nanomaggies.

## Training

- {training["data"]}; turned and mirrored
- {training["updates"]:,} updates of {BATCH}, {training["seen"]:,} images seen, {training["cpu_minutes"]:.1f} CPU-minutes
- `canopus train features --name {request.name} --galaxies {request.galaxies} --steps {request.steps} --seed {request.seed}`

## Scores

Of {metrics["galaxies"]:,} generated galaxies that were not trained on: share of the variance that is told. Kinds told right:
{metrics["kinds_right"]:.3f} (the commonest alone: {metrics["kinds_by_chance"]:.3f}).

| quantity | explained |
| --- | --- |
{rows}

Point spread functions and noise are not told by what was learned; that is why differences of pixels stand beside it.

## Limits

It has seen generated galaxies alone. Distances by these features compare sets that were measured with the same weights, and nothing else:
they are not Inception's FID, and not those of a paper.
"""
