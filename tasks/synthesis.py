"""Prefect tasks of a galaxy diffusion model's jobs: make a batch, fill or transfer one image, show what came out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect import task
from prefect.cache_policies import NO_CACHE

from storage.manifest import Run
from tasks.artifacts import ProgressArtifact, publish_images
from tasks.errors import ConfigurationError, SourceError

if TYPE_CHECKING:
    from tasks.sky.image_runs import ImageRequest
    from tasks.sky.inpainting_job import FilledImage
    from tasks.sky.synthesis import Generated, GeneratePlan, GenerateRequest
    from tasks.sky.transfer_job import Interpolated, InterpolateRequest


@task(name="freeze generation", cache_policy=NO_CACHE, persist_result=False)
def freeze_generation(request: GenerateRequest) -> tuple[GeneratePlan, Run]:
    """Say what is left to make, and write it into a run, or find the run that was cut short."""
    from tasks.sky.synthesis import find_or_start_run, plan_generation

    model, _ = request.weights.open("cpu")
    return plan_generation(request, model.config), find_or_start_run(request, model.config)


@task(name="make galaxies", task_run_name="batch {number}", cache_policy=NO_CACHE, persist_result=False)
def make_galaxies(
    request: GenerateRequest, run: Run, number: int, indices: tuple[int, ...], progress: ProgressArtifact
) -> None:
    """Make a batch of galaxies and commit it."""
    from tasks.sky.synthesis import make_batch, store_batch

    model, device = request.weights.open(request.device)
    first, count = indices[0], len(indices)

    def on_step(done: int, steps: int) -> None:
        progress(run.id, first + count * done // (steps + 1), request.galaxies, f"step {done} of {steps}")

    store_batch(request, make_batch(model, request, indices, device=device, on_step=on_step), run=run, number=number)
    progress(run.id, indices[-1] + 1, request.galaxies, "")


@task(name="finish generation", cache_policy=NO_CACHE, persist_result=False)
def finish_galaxies(request: GenerateRequest, run: Run, made: int, progress: ProgressArtifact) -> Generated:
    """Write FITS files where they are asked for, the run's table and its picture, and show that."""
    from tasks.sky.synthesis import export_fits, finish_generation

    if request.fits:
        export_fits(request, progress)
    found = finish_generation(request, run, made=made)
    publish_images(
        f"galaxies-{request.store}", [found.gallery], f"{request.galaxies} galaxies of {request.weights.model}"
    )
    return found


@task(name="freeze images", cache_policy=NO_CACHE, persist_result=False)
def freeze_images(request: ImageRequest) -> Run:
    """Write a request into a run."""
    from tasks.sky.image_runs import start_images

    return start_images(request)


@task(name="work on image", task_run_name="{image}", cache_policy=NO_CACHE, persist_result=False)
def work_on_image(request: ImageRequest, image: str, progress: ProgressArtifact) -> FilledImage:
    """Fill or transfer one image; what is wrong with it is its row."""
    from tasks.sky.inpainting_job import FilledImage

    try:
        return request.work(image, on_step=lambda done, steps: progress(image, done, steps, f"step {done} of {steps}"))
    except SourceError as error:
        return FilledImage(image, "failed", reason=error.reason, message=str(error))
    except ConfigurationError as error:
        return FilledImage(image, "failed", reason="invalid-input", message=str(error))


@task(name="finish images", cache_policy=NO_CACHE, persist_result=False)
def finish_images(run: Run, rows: list[FilledImage]) -> None:
    """Write the run's table, and show the pictures."""
    run.write_regions(rows)
    publish_images(run.id.rsplit("-", 2)[0], [row.picture for row in rows if row.picture], run.id)


@task(name="interpolate", cache_policy=NO_CACHE, persist_result=False)
def interpolate_pair(request: InterpolateRequest, progress: ProgressArtifact) -> Interpolated:
    """Make the images from one to another, and show them."""
    from tasks.sky.transfer_job import interpolate_images

    found = interpolate_images(
        request, on_step=lambda done, steps: progress("frames", done, steps, f"step {done} of {steps}")
    )
    publish_images("interpolation", [found.picture], f"{request.first} to {request.last}")
    return found
