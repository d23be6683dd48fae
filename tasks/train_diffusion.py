"""The Prefect task that trains the galaxy diffusion model and shows how it went."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.artifacts import ProgressArtifact, publish_markdown
from tasks.earth.training_run import Trained
from tasks.sky.diffusion_training import DiffusionRequest, train_diffusion


@task(name="train diffusion", cache_policy=NO_CACHE, persist_result=False)
def train_diffusion_task(request: DiffusionRequest) -> Trained:
    """Draw the galaxies that are not there yet, train, and publish scores and cost."""
    with ProgressArtifact("train", request.name) as progress:
        trained = train_diffusion(request, progress)
    publish_markdown(f"training-{request.name}", _in_words(trained), f"Training of {request.name}")
    return trained


def _in_words(trained: Trained) -> str:
    reference, training = trained.reference, trained.training
    errors = trained.metrics["held_out_error"]
    rows = [f"| {level} | {error:.4f} |" for level, error in errors.items()]
    lines = [
        f"# {reference.name}, version {reference.version}",
        "",
        *(f"- {fact}" for fact in (*training["facts"], *trained.notes)),
        f"- {training['galaxies']:,} galaxies seen in {training['minutes']:.1f} minutes, "
        f"{training['loop']['galaxies_per_second']:,.1f} galaxies/s",
        "",
        "| noise level | error of denoised held-out galaxies over their own root mean square |",
        "| ---: | ---: |",
        *rows,
        "",
        f"Model: `{reference.url}`, run: `{trained.run}`, loss curve: `{trained.curve}`",
    ]
    return "\n".join(lines) + "\n"
