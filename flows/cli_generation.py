"""The commands that score generated galaxies, and train the features they are scored by; `flows.cli` registers them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from flows.console import Json, Warehouse, bars, say


def register(evaluate: typer.Typer, train: typer.Typer) -> None:
    """Add the commands to those that evaluate and those that train."""
    evaluate.command(
        "generation",
        epilog="Example: canopus evaluate generation --generated galaxy-diffusion-small --real generated:bench_full:7 --out report; "
        "canopus evaluate generation --generated warehouse/sky/synthetic --real warehouse/sky/legacy --json",
    )(evaluate_generation)
    train.command("features", epilog="Example: canopus train features --name galaxy-features --steps 1200")(
        train_features
    )


def evaluate_generation(
    *,
    generated: Annotated[
        str, typer.Option(help="A sky store, generated:PRIOR:SEED, or a diffusion model, which is sampled.")
    ],
    real: Annotated[str, typer.Option(help="A sky store, or generated:PRIOR:SEED; held out of training.")],
    train: Annotated[
        str | None,
        typer.Option(help="What the model was trained on, as --real: then galaxies learned by heart are looked for."),
    ] = None,
    count: Annotated[
        int, typer.Option(help="Galaxies of each set; twice as many real ones are read, half of them for the floor.")
    ] = 5000,
    seed: Annotated[int, typer.Option(help="Of choices, of the bootstrap and of a model's noise.")] = 0,
    steps: Annotated[int, typer.Option(help="Of a model's sampler.")] = 20,
    sampler: Annotated[str, typer.Option(help="Of a model: dpm, heun, ddim or ancestral.")] = "dpm",
    features: Annotated[str, typer.Option(help="Network of FID and KID; by default the shipped one.")] = (
        "galaxy-features-small"
    ),
    inception: Annotated[
        Path | None,
        typer.Option(
            help="Inception's weights for FID, a file that you have; nothing is downloaded. Colours are scored then."
        ),
    ] = None,
    beside_steps: Annotated[
        int,
        typer.Option(help="Also sample a model by as many steps, from the same noise, and score what differs."),
    ] = 0,
    beside_sampler: Annotated[
        str,
        typer.Option(
            help="Of that: ddim adds no noise, so that galaxies come in pairs; ancestral, as published, does."
        ),
    ] = "ddim",
    beside_count: Annotated[int, typer.Option(help="Galaxies of that.")] = 512,
    resamples: Annotated[int, typer.Option(help="Of the bootstrap.")] = 200,
    warehouse: Warehouse = "./warehouse",
    out: Annotated[
        Path | None, typer.Option(help="Folder for report, page and picture; by default none is written.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Score generated galaxies against real ones, every metric beside its floor: real against real."""
    from tasks.sky.diffusion_jobs import SamplingRule
    from tasks.sky.generation_evaluation import GenerationRequest
    from tasks.sky.generation_evaluation import evaluate_generation as evaluate
    from tasks.sky.generation_sampling import sampling
    from tasks.sky.generation_scores import describe_generation
    from tasks.sky.methods import require_sky_extra

    require_sky_extra()
    rule = SamplingRule(sampler, steps)  # type: ignore[arg-type]
    request = GenerationRequest(
        warehouse,
        generated,
        real,
        train=train,
        count=count,
        seed=seed,
        features=features,
        inception=str(inception) if inception else None,
        resamples=resamples,
        beside_count=beside_count,
        out=out,
    )
    beside = sampling(SamplingRule(beside_sampler, beside_steps)) if beside_steps else None  # type: ignore[arg-type]
    with bars():
        found = evaluate(request, sampling(rule), beside)
    say(json.dumps(found) if as_json else describe_generation(found))


def train_features(
    *,
    name: Annotated[str, typer.Option(help="Name of the model.")] = "galaxy-features",
    warehouse: Warehouse = "./warehouse",
    galaxies: Annotated[int, typer.Option(help="Of the generator, different ones.")] = 16_384,
    steps: Annotated[int, typer.Option(help="Updates of 64 galaxies.")] = 1200,
    seed: Annotated[int, typer.Option(help="Of galaxies, weights and order.")] = 1906,
    as_json: Json = False,
) -> None:
    """Train the network whose features FID and KID are taken from: it learns what is true of generated galaxies."""
    from tasks.sky.feature_training import FeatureRequest
    from tasks.sky.feature_training import train_features as train

    with bars():
        reference, metrics = train(FeatureRequest(warehouse, name, galaxies, steps, seed))
    model = f"{reference.name}/{reference.version}"
    explained = ", ".join(f"{quantity} {share:.2f}" for quantity, share in metrics["explained"].items())
    words = f"{model}: share of variance told: {explained}\n  model    {reference.url}"
    say(json.dumps({"model": model, "url": reference.url, "metrics": metrics}) if as_json else words)
