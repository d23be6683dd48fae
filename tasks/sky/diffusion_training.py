"""Train the galaxy diffusion model on generated galaxies or on cutouts of a sky store; score it and save it.

The training is a run of the warehouse, as EarthPT's is: the same request finds its unfinished run and goes on from the last
checkpoint. It may be done in pieces of some minutes; each piece leaves a model that can be used. The learning rate stays the
same to the end and the average of the weights takes the place of its fall, so that a piece more is never lost.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from models.checkpoint import Subject
from models.diffusion import DiffusionConfig, GalaxyDiffusion
from models.training import TrainConfig
from storage.location import Location, resolve
from storage.locks import hold
from tasks.earth.model_files import save_network
from tasks.earth.model_folders import require_name
from tasks.earth.processes import team
from tasks.earth.training_run import Trained, as_it_was, find_or_start, finished
from tasks.sky.cutout_pool import StoreChoice, read_cutouts
from tasks.sky.diffusion_data import GalaxyBatches, kept_conditions, measure_config
from tasks.sky.galaxy_pool import Pool, PoolChoice, Progress, open_pool
from tasks.sky.training_pieces import Piece, TrainingInPieces

KIND = "galaxy-diffusion"
HELD_OUT = 256
"""Generated galaxies that are held out."""
LEVELS = (0.25, 1.0, 4.0, 16.0, 64.0)
"""Noise levels at which held-out galaxies are denoised for the card."""
_OTHER_SEED = 1_000_003
"""Between the seed of the galaxies that are trained on and that of those held out."""
_AT_ONCE = 64
_BUSY_S = 5.0
"""How long another process may still hold the run."""


@dataclass(frozen=True)
class DiffusionRequest:
    """What is trained, on what, and how.

    Parameters
    ----------
    warehouse : str
        URL.
    name : str
        Of the model.
    train : TrainConfig
        How; `steps` in batches of `batch` galaxies.
    data : PoolChoice or StoreChoice
        On what.
    model : DiffusionConfig
        Scaling and size of the network; what depends on the data is measured.
    conditional : bool
        Whether the model is told what the data know of each galaxy.
    batch : int
        Galaxies of one.
    minutes : float or None
        Of the training loop, this time; None to the end.
    device : str or None
        ``cpu`` or ``cuda``; None for a GPU where there is one.
    fresh : bool
        Whether to begin anew where the same training was done or begun before.
    """

    warehouse: str
    name: str
    train: TrainConfig
    data: PoolChoice | StoreChoice = field(default_factory=PoolChoice)
    model: DiffusionConfig = field(default_factory=DiffusionConfig)
    conditional: bool = True
    batch: int = 32
    minutes: float | None = None
    device: str | None = None
    fresh: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON types, for the run's manifest."""
        content: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return content


def train_diffusion(request: DiffusionRequest, on_progress: Progress | None = None) -> Trained:
    """Train the model, or go on where a training of the same request stopped; save and return it.

    Raises
    ------
    ConfigurationError
        Where what is asked does not go together, galaxies are too few, or the loss does not stay finite.
    """
    require_name(request.name)
    root = resolve(request.warehouse)
    with team(request.train.parallel, request.device) as crew:
        data = _gather(root, request, on_progress)
        subject = Subject(request.train, KIND, asdict(data.config), data.description)
        done = None if request.fresh else finished(root, request.name, subject)
        if done is not None:
            return as_it_was(root, request.name, *done)
        run = find_or_start(root, request.name, subject, request.to_json(), fresh=request.fresh)
        with hold(run.location, _BUSY_S):
            piece = Piece(request.name, request.train, request.minutes)
            judge = _Judge(data, crew.device, request.train.seed)
            training = TrainingInPieces(piece, crew, run, subject, judge=judge, on_progress=on_progress)
            batches = GalaxyBatches(data.pool, request.batch, request.train.seed, crew.device)
            state = training.go(_first(data, request).to(crew.device), batches)
            return _save(root, request.name, data, training, model_of(data.config, state.weights))


@dataclass(frozen=True)
class _Data:
    """Galaxies to train on and held-out ones, what was measured of them, and what decides about them."""

    pool: Pool
    held_out: Pool
    config: DiffusionConfig
    description: dict[str, Any]
    fact: str


def _gather(root: Location, request: DiffusionRequest, on_progress: Progress | None) -> _Data:
    choice = request.data
    if isinstance(choice, StoreChoice):
        pool, held_out, described = read_cutouts(choice, on_progress)
        turned = f"{described['used']:,} cutouts of {choice.store.rstrip('/').rsplit('/', 1)[-1]}, whole ones"
    else:
        pool = open_pool(root, choice, on_progress)
        held_out = open_pool(root, replace(choice, galaxies=HELD_OUT, seed=choice.seed + _OTHER_SEED))
        described = {**choice.to_json(), "galaxies": choice.galaxies}
        turned = f"{choice.galaxies:,} galaxies of {choice.prior}, with noise, sky and neighbours, without gaps and satellite trails"
    fact = (
        f"{turned}: {'+'.join(pool.bands)}, {choice.pixels} x {choice.pixels} pixels of {pool.pixel_scale_arcsec} arcsec, each "
        "turned and mirrored in eight ways"
    )
    if not request.conditional:
        pool, held_out = (replace(each, conditions=each.conditions[:, :0], names=()) for each in (pool, held_out))
    return _Data(pool, held_out, measure_config(pool, request.model), {**described, "batch": request.batch}, fact)


def _first(data: _Data, request: DiffusionRequest) -> GalaxyDiffusion:
    """Return the model with first weights and the conditions that it keeps, laid out as convolutions on a CPU want it."""
    seed = request.train.seed
    model = GalaxyDiffusion(data.config, generator=torch.Generator().manual_seed(seed))
    if data.pool.names:
        model.keep_conditions(kept_conditions(data.pool, seed))
    return model


def model_of(config: DiffusionConfig, weights: Mapping[str, Tensor]) -> GalaxyDiffusion:
    """Return a model with some weights, in eval mode."""
    model = GalaxyDiffusion(config)
    model.load_state_dict(weights)
    return model.eval()


class _Judge:
    """From weights to the loss on held-out galaxies; the same draws each time."""

    def __init__(self, data: _Data, device: torch.device, seed: int) -> None:
        pool = data.held_out
        self.config, self.device, self.seed = data.config, device, seed
        flux, conditions = torch.from_numpy(pool.flux), torch.from_numpy(pool.conditions)
        self.batches = list(zip(flux.split(_AT_ONCE), conditions.split(_AT_ONCE), strict=True))

    @torch.inference_mode()
    def __call__(self, weights: Mapping[str, Tensor]) -> float:
        model = model_of(self.config, weights).to(self.device)
        generator = torch.Generator(device=self.device).manual_seed(self.seed)
        losses = []
        for flux, conditions in self.batches:
            batch = {"flux": flux.to(self.device), "conditions": conditions.to(self.device)}
            losses.append(float(model.loss(batch, generator=generator)))
        return sum(losses) / len(losses)


def _save(root: Location, name: str, data: _Data, training: TrainingInPieces, model: GalaxyDiffusion) -> Trained:
    """Score the average of the weights, and save it."""
    metrics = {
        "held_out_loss": [list(found) for found in training.losses],
        "held_out_error": denoising_errors(model, data.held_out),
    }
    told = {**training.summary(), "data": data.description, "facts": [data.fact]}
    reference = save_network(
        root,
        name,
        model,
        kind=KIND,
        config=asdict(data.config),
        metrics=metrics,
        training=told,
        card=write_card(model, told, metrics),
    )
    curve = training.close(reference)
    return Trained(reference, training.run.id, metrics, told, curve, tuple(training.notes))


@torch.inference_mode()
def denoising_errors(model: GalaxyDiffusion, pool: Pool) -> dict[str, float]:
    """Return the root mean square error of denoised galaxies over their own, by noise level; 1 is that of knowing nothing.

    Parameters
    ----------
    model : GalaxyDiffusion
        In eval mode, on the CPU.
    pool : Pool
        Galaxies that it was not trained on.
    """
    generator = torch.Generator().manual_seed(0)
    clean = model.to_scaled(torch.from_numpy(pool.flux).float())
    noise = torch.randn(clean.shape, generator=generator)
    condition = torch.from_numpy(pool.conditions) if pool.names else None
    errors = {}
    for level in LEVELS:
        parts = [
            model.denoise(
                clean[rows] + level * noise[rows],
                torch.full((len(rows),), level),
                None if condition is None else condition[rows],
            )
            for rows in torch.arange(len(clean)).split(_AT_ONCE)
        ]
        errors[f"{level:g}"] = float(((torch.cat(parts) - clean).square().mean() / clean.square().mean()).sqrt())
    return errors


def write_card(model: GalaxyDiffusion, training: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    """Return the card of a trained model, in Markdown, without a title."""
    config, cost, loop = model.config, training["cost"], training["loop"]
    size = sum(parameter.numel() for parameter in model.parameters())
    told = ", ".join(config.conditions) or "nothing"
    first, last = metrics["held_out_loss"][0][1], metrics["held_out_loss"][-1][1]
    train = training["train"]
    return "\n".join(
        [
            f"Galaxy diffusion: images of galaxies in {'+'.join(config.bands)}, {config.pixels} x {config.pixels} pixels of "
            f"{config.pixel_scale_arcsec} arcsec, in nanomaggies per pixel, noise and sky included. U-Net over blocks of "
            f"{config.patch} x {config.patch} pixels, {size:,} parameters, EDM preconditioning, flux scaled by {config.scaling}. "
            f"May be asked for: {told}.",
            "",
            "## Trained on",
            "",
            *(f"- {line}" for line in training["facts"]),
            "",
            "## Training",
            "",
            f"- {training['galaxies']:,} galaxies seen, in {training['steps']:,} updates of {training['data']['batch']}, "
            f"{training['minutes']:.1f} minutes on {training['device']}",
            f"- {loop['galaxies_per_second']:,.1f} galaxies/s; the loop waited for data {100 * loop['wait_share']:.1f} % of its time",
            f"- {cost['cpu_hours']:.3g} CPU-hours, {cost['gpu_hours']:.3g} GPU-hours; {train['precision']}, learning rate "
            f"{train['learning_rate']:g} to the end",
            f"- weights: their average (decay {train['ema_decay']:g}) at the end",
            "",
            "## Scores on generated galaxies of another seed",
            "",
            f"- loss {last:.4f}, at the first checkpoint {first:.4f}",
            "- error of the denoised image over its own root mean square, by noise level: "
            + ", ".join(f"{level}: {error:.3f}" for level, error in metrics["held_out_error"].items()),
            "",
            "## Limits",
            "",
            "It knows galaxies like those it was trained on, at their pixel scale and noise; images of another scale are resampled "
            "first. Conditions are followed as far as training galaxies cover them. `canopus evaluate generation` scores what it "
            "makes.",
        ]
    )
