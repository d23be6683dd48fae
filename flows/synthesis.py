"""The flows of a galaxy diffusion model's jobs: generate, inpaint, transfer, interpolate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prefect import flow
from prefect.states import Completed

from flows.config_synthesis import GenerateConfig, InpaintConfig, InterpolateConfig, TransferConfig
from flows.runtime import FAILED_NAME, Summary
from storage.location import resolve
from storage.locks import hold
from tasks.artifacts import ProgressArtifact
from tasks.synthesis import (
    finish_galaxies,
    finish_images,
    freeze_generation,
    freeze_images,
    interpolate_pair,
    make_galaxies,
    work_on_image,
)

if TYPE_CHECKING:
    from tasks.sky.diffusion_jobs import SamplingRule
    from tasks.sky.image_runs import ImageRequest
    from tasks.sky.inpainting_job import InpaintRequest
    from tasks.sky.synthesis import GenerateRequest
    from tasks.sky.transfer_job import InterpolateRequest, ReadingRule, TransferRequest


@flow(name="generate-galaxies")
def generate_galaxies(config: GenerateConfig) -> Any:
    """Make galaxies batch by batch into a sky store, go on where that was interrupted, and show the first ones."""
    request = to_generate(config)
    plan, run = freeze_generation(request)
    with hold(run.location, 0.0), ProgressArtifact("generate", run.id) as progress:
        for indices in plan.batches:
            make_galaxies(request, run, indices[0] // request.batch_size, indices, progress)
        made = finish_galaxies(request, run, request.galaxies - plan.held, progress)
    details = {"store": made.location, "snapshot": made.snapshot, "picture": made.gallery, "fits": request.fits}
    summary = Summary(run.id, {"made": made.made, "held": made.held}, details=details)
    return Completed(message=f"{summary.counts}", data=summary)


@flow(name="inpaint-images")
def inpaint_images(config: InpaintConfig) -> Any:
    """Fill the holes of images one by one; what is done already is left as it is."""
    return work_on_images(to_inpaint(config))


@flow(name="transfer-images")
def transfer_images(config: TransferConfig) -> Any:
    """Make images those of the model's survey one by one; what is done already is left as it is."""
    return work_on_images(to_transfer(config))


@flow(name="interpolate-images")
def interpolate_images(config: InterpolateConfig) -> Any:
    """Make images from one to another."""
    with ProgressArtifact("interpolate", config.out) as progress:
        made = interpolate_pair(to_interpolate(config), progress)
    summary = Summary(
        "interpolate", {"frames": len(made.files)}, products=made.files, details={"picture": made.picture}
    )
    return Completed(message=f"{summary.counts}", data=summary)


def work_on_images(request: ImageRequest) -> Any:
    """Bring each image of a request to its end, and say how that went."""
    from tasks.sky.image_runs import count_rows, failures_of

    run = freeze_images(request)
    with ProgressArtifact(request.kind, run.id) as progress:
        rows = [work_on_image(request, image, progress) for image in request.images]
    finish_images(run, rows)
    summary = Summary(
        run.id,
        count_rows(rows),
        products=tuple(row.result for row in rows if row.result),
        failures=failures_of(rows),
        notes=tuple(f"{row.image}: {row.message}" for row in rows if row.message and row.state != "failed"),
        details={"pictures": ", ".join(row.picture for row in rows if row.picture)},
    )
    return Completed(name=FAILED_NAME if summary.failures else None, message=f"{summary.counts}", data=summary)


def to_generate(config: GenerateConfig) -> GenerateRequest:
    """Return what the tasks need, from what the user wrote; the model is pinned to its version."""
    from tasks.sky.diffusion_jobs import pin_weights
    from tasks.sky.synthesis import GenerateRequest

    return GenerateRequest(
        warehouse=resolve(config.warehouse).url,
        store=config.store,
        galaxies=config.galaxies,
        weights=pin_weights(config.warehouse, config.model),
        rule=_sampling(config, guidance=config.guidance),
        seed=config.seed,
        asked=config.ask,
        batch_size=config.batch_size,
        fits=config.fits or "",
        device=config.device,
    )


def to_inpaint(config: InpaintConfig) -> InpaintRequest:
    """Return what the tasks need, from what the user wrote."""
    from tasks.sky.diffusion_jobs import pin_weights
    from tasks.sky.inpainting import InpaintRule
    from tasks.sky.inpainting_job import InpaintRequest, check_images, require_masks

    check_images(config.images, config.out)
    require_masks(config.mask)
    return InpaintRequest(
        images=config.images,
        out=config.out,
        weights=pin_weights(config.warehouse, config.model),
        mask=config.mask,
        mask_bits=config.mask_bits,
        rule=InpaintRule(config.draws, config.steps, config.resamplings, config.jump, config.smoothing, config.seed),
        all_draws=config.keep_draws,
        pixel_scale_arcsec=config.pixel_scale,
        zero_points=config.zero_point,
        device=config.device,
    )


def to_transfer(config: TransferConfig) -> TransferRequest:
    """Return what the tasks need, from what the user wrote."""
    from tasks.sky.diffusion_jobs import pin_weights
    from tasks.sky.inpainting_job import check_images
    from tasks.sky.transfer import TransferRule
    from tasks.sky.transfer_job import TransferRequest

    check_images(config.images, config.out)
    return TransferRequest(
        images=config.images,
        out=config.out,
        weights=pin_weights(config.warehouse, config.model),
        rule=TransferRule(config.strength, _sampling(config), config.flux_tolerance, config.seed),
        reading=_reading(config),
        device=config.device,
    )


def to_interpolate(config: InterpolateConfig) -> InterpolateRequest:
    """Return what the tasks need, from what the user wrote."""
    from tasks.sky.diffusion_jobs import pin_weights
    from tasks.sky.inpainting_job import check_images
    from tasks.sky.transfer_job import InterpolateRequest

    check_images((config.first, config.last), config.out)
    return InterpolateRequest(
        first=config.first,
        last=config.last,
        out=config.out,
        weights=pin_weights(config.warehouse, config.model),
        frames=config.frames,
        strength=config.strength,
        mixing=config.mixing,
        sampling=_sampling(config),
        seed=config.seed,
        reading=_reading(config),
        device=config.device,
    )


def _sampling(config: GenerateConfig | TransferConfig | InterpolateConfig, *, guidance: float = 1.0) -> SamplingRule:
    from tasks.sky.diffusion_jobs import SamplingRule

    return SamplingRule(config.sampler, config.steps, guidance)


def _reading(config: TransferConfig | InterpolateConfig) -> ReadingRule:
    from tasks.sky.transfer_job import ReadingRule

    return ReadingRule(config.magnitude, config.pixel_scale, config.zero_point)
