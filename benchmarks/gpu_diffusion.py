"""What one device makes of the diffusion models, for the table of `benchmarks/gpu.py`: images trained on and sampled a second."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from models.ddpm_published import PublishedDDPM, PublishedDDPMConfig
from models.diffusion import DiffusionConfig, GalaxyDiffusion
from models.flops import counted_flops, peak_flops
from models.samplers import sample, sigma_steps
from models.training import StepReport, TrainConfig, fit
from tasks.sky.diffusion_data import GalaxyBatches
from tasks.sky.galaxy_pool import Pool

STEPS = 18
"""Of `dpm`, one evaluation each."""
_WARM_UP, _LEAST = 5, 5
_GALAXIES = 2048


@dataclass(frozen=True)
class DiffusionSize:
    """A model to measure, and images of one batch."""

    name: str
    config: DiffusionConfig | PublishedDDPMConfig
    batch: int

    def build(self) -> GalaxyDiffusion | PublishedDDPM:
        """Return the model, in the host's memory."""
        config = self.config
        return GalaxyDiffusion(config) if isinstance(config, DiffusionConfig) else PublishedDDPM(config)


@dataclass(frozen=True)
class DiffusionRow:
    """What was measured of one size; MFU is of training, None where the peak is not known."""

    size: str
    pixels: int
    parameters: int
    batch: int
    trained_per_second: float
    mfu: float | None
    wait_share: float
    sampled_per_second: float


_LARGE = DiffusionConfig(pixels=128, patch=2, widths=(128, 256, 384, 512), depths=(2, 2, 2, 2))
DIFFUSION_SIZES = (
    DiffusionSize("diffusion, shipped size", DiffusionConfig(), 1024),
    DiffusionSize("diffusion, large", _LARGE, 256),
    DiffusionSize("DDPM as published", PublishedDDPMConfig(), 32),
)
DIFFUSION_SMOKE = (
    DiffusionSize("diffusion", replace(DiffusionConfig(), pixels=16, widths=(16,), depths=(1,), attended=1), 8),
    DiffusionSize("DDPM", PublishedDDPMConfig(width=8, multipliers=(1, 2), timesteps=20, pixels=16), 4),
)


def measure_diffusion(
    device: torch.device, size: DiffusionSize, seconds: float, *, precision: str, compiled: bool
) -> DiffusionRow:
    """Return what one size does, trained through `models.training.fit` and sampled with `STEPS` evaluations an image."""
    model = size.build().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    parameters = sum(parameter.numel() for parameter in model.parameters())
    reports = _train(model, size, seconds, precision=precision, compiled=compiled)
    elapsed = sum(report.seconds for report in reports)
    pace = size.batch * len(reports) / elapsed
    peak = peak_flops(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
    return DiffusionRow(
        size.name,
        size.config.pixels,
        parameters,
        size.batch,
        pace,
        pace * 3 * evaluation_flops(size) / peak if peak else None,
        sum(report.wait_seconds for report in reports) / elapsed,
        _sampling_pace(model.eval(), size, device, seconds, precision=precision),
    )


def evaluation_flops(size: DiffusionSize) -> float:
    """Return the operations of one evaluation of one image; training takes three times as many."""
    with torch.device("meta"):
        model = size.build()
        image = torch.zeros(1, len(size.config.bands), size.config.pixels, size.config.pixels)
        return counted_flops(lambda: model.denoise(image, torch.ones(1)))


def diffusion_table(rows: Sequence[DiffusionRow]) -> str:
    """Return rows as a Markdown table."""
    head = (
        "model", "pixels", "parameters", "batch", "training, images/s", "MFU", "waiting for data",
        f"sampling in {STEPS} evaluations, images/s",
    )  # fmt: skip
    lines = [head, ("---",) * len(head), *(_cells(row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cells(row: DiffusionRow) -> tuple[str, ...]:
    return (
        row.size,
        str(row.pixels),
        f"{row.parameters / 1e6:.1f}M",
        str(row.batch),
        f"{row.trained_per_second:,.0f}",
        "-" if row.mfu is None else f"{row.mfu:.1%}",
        f"{row.wait_share:.1%}",
        f"{row.sampled_per_second:,.1f}",
    )


class _Enough(Exception):
    """Enough updates were timed."""


def _train(
    model: GalaxyDiffusion | PublishedDDPM, size: DiffusionSize, seconds: float, *, precision: str, compiled: bool
) -> list[StepReport]:
    """Return the reports of updates after warm-up."""
    config, reports = size.config, list[StepReport]()
    rng = np.random.default_rng(0)
    count = min(_GALAXIES, 4 * size.batch)
    flux = rng.normal(scale=0.01, size=(count, len(config.bands), config.pixels, config.pixels)).astype(np.float16)
    pool = Pool(flux, np.empty((count, 0), np.float32), (), config.bands, config.pixel_scale_arcsec)

    def listen(report: StepReport) -> None:
        if report.step > _WARM_UP:
            reports.append(report)
        if len(reports) >= _LEAST and sum(each.seconds for each in reports) >= seconds:
            raise _Enough

    train = TrainConfig(
        steps=10**9,
        learning_rate=1e-4,
        ema_decay=0.999,
        precision="bf16" if precision == "bf16" else "float32",
        compile=compiled,
        log_every=1,
    )
    try:
        fit(model, GalaxyBatches(pool, size.batch, seed=0), train, on_step=listen)
    except _Enough:
        model.zero_grad(set_to_none=True)
    return reports


def _sampling_pace(
    model: GalaxyDiffusion | PublishedDDPM, size: DiffusionSize, device: torch.device, seconds: float, *, precision: str
) -> float:
    config = size.config
    levels = sigma_steps(STEPS, sigma_min=config.sigma_min, sigma_max=config.sigma_max)
    noise = torch.randn(size.batch, len(config.bands), config.pixels, config.pixels, device=device)
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        sample(model.denoise, noise, levels[-3:])
        _wait(device)
        begun, done = time.perf_counter(), 0
        while not done or time.perf_counter() - begun < seconds:
            sample(model.denoise, noise, levels)
            _wait(device)
            done += size.batch
        return done / (time.perf_counter() - begun)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
