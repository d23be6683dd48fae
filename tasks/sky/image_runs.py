"""Runs over images in files: one request for many, a row for each, the inputs frozen in ``runs/``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Protocol

from models.samplers import OnStep
from storage.location import resolve
from storage.manifest import Run, start_run
from tasks.sky.diffusion_jobs import Weights
from tasks.sky.inpainting_job import FilledImage


class ImageRequest(Protocol):
    """A request that works on images one by one: `InpaintRequest` and `TransferRequest` are such."""

    @property
    def kind(self) -> str:
        """Return the first part of the run's id."""

    @property
    def images(self) -> tuple[str, ...]:
        """Return the files."""

    @property
    def weights(self) -> Weights:
        """Return the model."""

    def digest(self, image: str) -> str:
        """Return a digest of everything that decides the result for an image."""

    def is_done(self, image: str) -> bool:
        """Return whether the result of an image is there."""

    def work(self, image: str, *, on_step: OnStep | None = None) -> FilledImage:
        """Bring an image to its end."""


def start_images(request: ImageRequest) -> Run:
    """Freeze a request in a run: settings, model, and a digest for each image that can be read."""
    manifest = {
        "request": asdict(request),  # type: ignore[call-overload]
        "model": request.weights.model,
        "weights_sha256": request.weights.sha256,
        "software": {"canopus": version("canopus")},
    }
    return start_run(resolve(request.weights.warehouse), request.kind, manifest)


def count_rows(rows: Sequence[FilledImage]) -> dict[str, int]:
    """Return the number of images in each state."""
    return dict(sorted(Counter(row.state for row in rows).items()))


def failures_of(rows: Sequence[FilledImage]) -> tuple[str, ...]:
    """Return a line for each image that failed."""
    return tuple(f"{row.image} [{row.reason}] {row.message}" for row in rows if row.state == "failed")
