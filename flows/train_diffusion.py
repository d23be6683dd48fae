"""The flow that trains the galaxy diffusion model."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.states import Completed

from flows.config_sky import TrainDiffusionConfig
from flows.runtime import Summary
from models.diffusion import DiffusionConfig
from models.training import TrainConfig
from storage.location import resolve
from tasks.earth.training_run import Trained
from tasks.sky.cutout_pool import StoreChoice
from tasks.sky.diffusion_training import DiffusionRequest
from tasks.sky.galaxy_pool import PoolChoice
from tasks.train_diffusion import train_diffusion_task


@flow(name="train-diffusion")
def train_diffusion_model(config: TrainDiffusionConfig) -> Any:
    """Train a galaxy diffusion model, or go on where that was stopped."""
    trained = train_diffusion_task(to_request(config))
    return Completed(message=f"{trained.reference.name}/{trained.reference.version}", data=summarise(trained))


def to_request(config: TrainDiffusionConfig) -> DiffusionRequest:
    """Return what the task needs, from what the user wrote."""
    train = TrainConfig(
        steps=-(-config.samples // config.batch),
        learning_rate=config.learning_rate,
        final_share=1.0,
        warmup_steps=config.warmup_steps,
        betas=(0.9, 0.99),
        weight_decay=0.0,
        clip=config.clip,
        ema_decay=config.ema_decay,
        precision=config.precision,
        compile=config.compile,
        checkpoint_every=config.checkpoint_every,
        log_every=config.log_every,
        seed=config.seed,
    )
    return DiffusionRequest(
        warehouse=resolve(config.warehouse).url,
        name=config.name,
        train=train,
        data=_data(config),
        model=DiffusionConfig(scaling=config.scaling, **config.network.model_dump()),
        conditional=config.conditional,
        batch=config.batch,
        minutes=config.minutes,
        device=config.device,
        fresh=config.fresh,
    )


def _data(config: TrainDiffusionConfig) -> PoolChoice | StoreChoice:
    if config.source is None:
        scale = config.pixel_scale or PoolChoice.pixel_scale_arcsec
        return PoolChoice(galaxies=config.galaxies, pixels=config.pixels, pixel_scale_arcsec=scale, seed=config.seed)
    return StoreChoice(
        store=resolve(config.source).url,
        bands=config.bands,
        pixels=config.pixels,
        binned=config.binned or 1,
        galaxies=config.galaxies,
        conditions=config.conditions,
    )


def summarise(trained: Trained) -> Summary:
    """Return what the command line prints."""
    errors = ", ".join(f"{level}: {error:.3f}" for level, error in trained.metrics["held_out_error"].items())
    details = {
        "model": trained.reference.url,
        "run": trained.run,
        "curve": trained.curve,
        "pace": f"{trained.training['loop']['galaxies_per_second']:,.1f} galaxies/s",
        "error": f"of denoised held-out galaxies, by noise level: {errors}",
    }
    name = f"{trained.reference.name}/{trained.reference.version}"
    counts = {"updates": trained.training["steps"], "galaxies seen": trained.training["galaxies"]}
    return Summary(name, counts, notes=trained.notes, details=details)
