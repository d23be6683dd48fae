"""The settings of the jobs of a galaxy diffusion model."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from flows.config import Settings, Warehouse
from flows.config_sky import ZeroPoints as Numbers

SHIPPED_MODEL = "galaxy-diffusion-small"


def _as_words(value: Any) -> Any:
    """Return words, given as a list or with commas between them."""
    words = value.split(",") if isinstance(value, str) else value
    return (
        [word.strip() if isinstance(word, str) else word for word in words]
        if isinstance(words, list | tuple)
        else words
    )


Words = Annotated[tuple[str, ...], BeforeValidator(_as_words)]
Bits = Annotated[tuple[int, ...], BeforeValidator(_as_words)]
Device = Annotated[Literal["cpu", "cuda"] | None, Field(description="by default a GPU where there is one")]
Model = Annotated[str, Field(description="of galaxies: name, or name/version, of the warehouse or shipped")]
Strength = Annotated[float, Field(ge=0, le=1, description="0 leaves the image, 1 leaves nothing of it")]


class SamplingSettings(Settings):
    """How images are made from noise."""

    sampler: Literal["dpm", "heun", "ddim", "ancestral"] = "dpm"
    steps: int = Field(20, ge=1, description="noise levels")


class GenerateConfig(SamplingSettings):
    """Make galaxies with a diffusion model, and store them."""

    warehouse: Warehouse = "./warehouse"
    model: Model = SHIPPED_MODEL
    store: str = Field("synthetic", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="name of the sky store")
    galaxies: int = Field(100, ge=1, description="how many")
    seed: int = Field(0, ge=0, description="of the galaxies' own seeds")
    ask: Numbers = Field(
        {}, description="what every galaxy is asked to be, such as magnitude=17, by the model's conditions"
    )
    guidance: float = Field(1.0, ge=0, description="how far that is followed; 1 as the model has learned it")
    batch_size: int = Field(64, ge=1, description="galaxies of one commit")
    fits: str | None = Field(None, description="folder for a FITS file of each; by default none is written")
    device: Device = None


class ReadingSettings(Settings):
    """How files are read that do not say all."""

    pixel_scale: float | None = Field(None, gt=0, description="arcsec per pixel, of FITS files without a WCS")
    zero_point: Numbers = Field({}, description="AB magnitude of one unit of flux, by band or for all, of FITS files")


class InpaintConfig(ReadingSettings):
    """Fill holes of images."""

    images: tuple[str, ...] = Field(min_length=1, description="FITS files")
    out: str = Field(description="folder of the results")
    warehouse: Warehouse = "./warehouse"
    model: Model = SHIPPED_MODEL
    mask: Words = Field(
        ("trails",), description="trails, survey, missing, FITS files whose pixels are not 0; all together"
    )
    mask_bits: Bits = Field((), description="of the survey's mask; by default every one")
    draws: int = Field(16, ge=1, description="fillings of each image: their mean and spread are written")
    steps: int = Field(25, ge=1, description="noise levels")
    resamplings: int = Field(4, ge=1, description="how often each stretch of steps is gone through (RePaint)")
    jump: int = Field(1, ge=1, description="steps of a stretch")
    smoothing: float = Field(2.0, ge=0, description="0 keeps the model's noise; see docs/synthetic.md")
    keep_draws: bool = Field(False, description="write every draw")
    seed: int = Field(0, ge=0)
    device: Device = None


class TransferConfig(SamplingSettings, ReadingSettings):
    """Make pictures and images those of the model's survey."""

    images: tuple[str, ...] = Field(min_length=1, description="FITS files, or pictures (PNG, JPEG)")
    out: str = Field(description="folder of the results")
    warehouse: Warehouse = "./warehouse"
    model: Model = SHIPPED_MODEL
    strength: Strength = 0.35
    magnitude: float = Field(16.5, description="of pictures: total AB magnitude in the middle band")
    flux_tolerance: float = Field(0.05, gt=0, description="by what share the total flux of a band may change")
    seed: int = Field(0, ge=0)
    device: Device = None


class InterpolateConfig(SamplingSettings, ReadingSettings):
    """Make images from one to another."""

    first: str = Field(description="FITS file, or picture")
    last: str = Field(description="FITS file, or picture")
    out: str = Field(description="folder of the results")
    warehouse: Warehouse = "./warehouse"
    model: Model = SHIPPED_MODEL
    frames: int = Field(7, ge=2, description="the ends among them")
    strength: float = Field(0.4, gt=0, le=1, description="the higher, the more the model says")
    mixing: Literal["spherical", "linear"] = Field("spherical", description="of the noise; linear as published")
    magnitude: float = Field(16.5, description="of pictures: total AB magnitude in the middle band")
    seed: int = Field(0, ge=0)
    device: Device = None
