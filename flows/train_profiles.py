"""The flow that trains the network that reads profiles off images."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.states import Completed

from flows.config_sky import TrainProfilesConfig
from flows.runtime import Summary
from models.profile_network import ProfileNetConfig
from models.training import TrainConfig
from storage.location import resolve
from tasks.earth.training_run import Trained
from tasks.sky.network_training import ProfileNetRequest
from tasks.train_profiles import train_profiles_task


@flow(name="train-profiles")
def train_profile_network(config: TrainProfilesConfig) -> Any:
    """Train the network that reads profiles off images, or go on where that was interrupted."""
    trained = train_profiles_task(to_request(config))
    name = f"{trained.reference.name}/{trained.reference.version}"
    return Completed(message=name, data=summarise(trained))


def to_request(config: TrainProfilesConfig) -> ProfileNetRequest:
    """Return what the task needs, from what the user wrote."""
    return ProfileNetRequest(
        warehouse=resolve(config.warehouse).url,
        name=config.name,
        train=TrainConfig(
            steps=config.steps,
            learning_rate=config.learning_rate,
            final_share=0.02,
            warmup_steps=min(100, config.steps // 4),
            weight_decay=0.02,
            ema_decay=config.ema_decay,
            precision=config.precision,
            checkpoint_every=config.checkpoint_every,
            log_every=config.log_every,
            seed=config.seed,
        ),
        model=ProfileNetConfig(channels=config.channels, width=config.width, layers=config.layers),
        batch=config.batch,
        shards=config.shards,
        shard_size=config.shard_size,
        updates_per_shard=config.updates_per_shard,
        seed=config.seed,
        real=config.real,
        real_share=config.real_share,
        calibrated_on=config.calibrated_on,
        minutes=config.minutes,
        device=config.device,
        fresh=config.fresh,
    )


def summarise(trained: Trained) -> Summary:
    """Return what the command line prints."""
    metrics = trained.metrics
    return Summary(
        f"{trained.reference.name}/{trained.reference.version}",
        {"updates": trained.training["steps"]},
        notes=trained.notes,
        details={
            "model": trained.reference.url,
            "run": trained.run,
            "curve": trained.curve,
            "held out": f"RMS {metrics['rms_median']:.3f} mag, 90th percentile {metrics['rms_p90']:.3f}; plain means "
            f"{metrics['plain_rms_median']:.3f}",
        },
    )
