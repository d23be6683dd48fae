"""What a job of a galaxy diffusion model would do: read only, in words and as plain data."""

from __future__ import annotations

from typing import Any

from flows.config_synthesis import GenerateConfig, InpaintConfig, InterpolateConfig, TransferConfig
from flows.synthesis import to_generate, to_inpaint, to_interpolate, to_transfer
from tasks.sky.image_runs import ImageRequest
from tasks.sky.synthesis import plan_generation


def describe_generation(config: GenerateConfig) -> dict[str, Any]:
    """Return what a generation would do: galaxies, batches, what the store has, the run that goes on."""
    request = to_generate(config)
    model, _ = request.weights.open("cpu")
    plan, of = plan_generation(request, model.config), model.config
    lines = [
        f"{request.galaxies:,} galaxies of {request.weights.model}: {', '.join(of.bands)}, {of.pixels} x {of.pixels} pixels "
        f"of {of.pixel_scale_arcsec:g} arcsec, {request.rule.steps} steps of {request.rule.sampler}",
        f"{plan.held:,} in {request.location} already; {len(plan.batches):,} batches to make, {plan.bytes / 1e6:,.1f} MB of flux, "
        "uncompressed",
    ]
    if plan.run is not None:
        lines.append(f"goes on   {plan.run.id}")
    return {
        "galaxies": request.galaxies,
        "model": request.weights.model,
        "store": str(request.location),
        "held": plan.held,
        "batches": len(plan.batches),
        "bytes": plan.bytes,
        "run": plan.run.id if plan.run else None,
        "lines": lines,
    }


def describe_inpainting(config: InpaintConfig) -> dict[str, Any]:
    """Return which images would be filled; nothing is read but their digests."""
    request = to_inpaint(config)
    return _describe_images(request, f"fill what {', '.join(request.mask)} marks", config.out)


def describe_transfer(config: TransferConfig) -> dict[str, Any]:
    """Return which images would be made the survey's."""
    request = to_transfer(config)
    return _describe_images(request, f"transfer at strength {config.strength:g}", config.out)


def describe_interpolation(config: InterpolateConfig) -> dict[str, Any]:
    """Return what would be made between two images."""
    request = to_interpolate(config)
    words = f"{request.frames} images from {request.first} to {request.last} at strength {request.strength:g} into {request.out}"
    return {
        "frames": request.frames,
        "model": request.weights.model,
        "lines": [words, f"model     {request.weights.model}"],
    }


def _describe_images(request: ImageRequest, words: str, out: str) -> dict[str, Any]:
    done = [image for image in request.images if request.is_done(image)]
    left = [image for image in request.images if image not in done]
    lines = [f"{words}: {len(left)} images into {out}, {len(done)} are done", f"model     {request.weights.model}"]
    lines += [f"image     {image}" for image in left]
    return {"images": left, "done": done, "model": request.weights.model, "out": out, "lines": lines}
