"""The settings of the flows of the sky."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from flows.config import Dask, Settings, Warehouse
from models.profile_network import ProfileNetConfig
from tasks.sky.source_options import EVERY_BAND, SMALLEST_SIDE, VIEWER_URL, SourceOptions


def _as_names(value: Any) -> Any:
    """Return names of bands, given as a list or with commas between them; the sky's are told apart by their case."""
    names = value.split(",") if isinstance(value, str) else value
    return [str(name).strip() for name in names] if isinstance(names, list | tuple) else names


def _as_pairs(value: Any) -> Any:
    """Return ``name=value`` with commas between them as a mapping."""
    if not isinstance(value, str):
        return value
    parts = [part.partition("=") for part in value.split(",")]
    wrong = [name for name, equals, said in parts if not (name.strip() and equals and said.strip())]
    if wrong:
        raise ValueError(f"{value!r}: name=value is expected, with commas between them")
    return {name.strip(): said.strip() for name, _, said in parts}


def _as_zero_points(value: Any) -> Any:
    """Return zero points by band; a number alone is every band's."""
    try:
        return {EVERY_BAND: float(value)}
    except (TypeError, ValueError):
        return _as_pairs(value)


FilterNames = Annotated[tuple[str, ...], BeforeValidator(_as_names)]


ZeroPoints = Annotated[dict[str, float], BeforeValidator(_as_zero_points)]


class HostSettings(Settings):
    """How hard a survey's server may be leant on."""

    attempts: int = Field(6, ge=1, description="tries per request")
    concurrent: int = Field(4, ge=1, description="requests at once")
    requests_per_s: float = Field(4.0, gt=0)
    connect_timeout_s: float = Field(10.0, gt=0)
    read_timeout_s: float = Field(60.0, gt=0)


class ColumnSettings(Settings):
    """Names of columns of a list of targets that are not to be guessed."""

    ra: str | None = None
    dec: str | None = None
    id: str | None = None
    redshift: str | None = None
    ebv: str | None = None
    size: str | None = None
    file: str | None = None


class ProfilesConfig(Settings):
    """Measure the surface-brightness profile of every object of a list, and publish them."""

    targets: str | None = Field(
        None,
        description="CSV, Parquet, FITS or VOTable of positions, or a query: sdss:, vizier:, ned:; none: a whole folder or store",
    )
    source: str = Field(
        "legacy",
        description="legacy, legacy:LAYER, sdss, bricks:PATH_OR_URL, folder:PATH of FITS files, or store:NAME in the warehouse",
    )
    bands: FilterNames = Field((), description="by default the source's own, such as g, r, z")
    warehouse: Warehouse = "./warehouse"
    method: Literal["auto", "network", "isophote", "published"] = Field(
        "auto", description="auto: the network, and isophotes where it is unsure"
    )
    geometry: Literal["free", "fixed"] = Field(
        "free", description="an ellipse for each radius, or the outer ones' at all radii"
    )
    model: str | None = Field(None, description="weights of network or published: name, or name/version")
    members: int = Field(1, ge=1, le=32, description="of the network: passes put together, as many times the work")
    training_mode: bool = Field(
        False, description="of published: run as its authors did, norms by the one image and dropout on, seeded"
    )
    ebv_map: str | None = Field(
        None, description="dust map for E(B-V) that the list does not give: folder of the SFD maps, or HEALPix in FITS"
    )
    columns: Annotated[ColumnSettings, BeforeValidator(_as_pairs)] = Field(
        ColumnSettings(), description="of the list, where their names do not say what they are"
    )
    size_pixels: int | None = Field(
        None, ge=SMALLEST_SIDE, description="side of a cutout; by default the target's or the source's"
    )
    size_arcsec: float | None = Field(None, gt=0, description="the same in arcsec")
    pixel_scale: float | None = Field(
        None, gt=0, description="arcsec per pixel: of what is asked for, or of files that do not say"
    )
    zero_point: ZeroPoints = Field(
        {}, description="AB magnitude of one unit of flux, by band or for all, of files that do not say"
    )
    max_empty_share: float = Field(
        SourceOptions.max_empty_share, ge=0, le=1, description="an image with more of its pixels empty is rejected"
    )
    psf: bool = Field(True, description="ask for point spread functions where they are requests of their own")
    viewer_url: str = Field(VIEWER_URL, pattern="^https?://", description="of the Legacy Survey's viewer")
    cache: str | None = Field(None, description="folder for the services' raw answers; by default the user's")
    batch_size: int = Field(100, ge=1, description="objects of one commit and one page")
    time_limit_s: float = Field(60.0, gt=0, description="for one object")
    merge_radius_arcsec: float = Field(1.0, ge=0, description="targets nearer to each other are one")
    workers: int | None = Field(None, ge=1, description="processes that measure; by default one for each core")
    pages: bool = Field(True, description="draw a picture of each object, and pages to leaf through them")
    http: HostSettings = HostSettings()
    refresh: bool = Field(False, description="begin a new run, and fetch anew what the store holds")
    collection: str = Field("profiles", description="of the product")
    title: str = "Surface-brightness profiles"
    dask: Dask = None

    @model_validator(mode="after")
    def _zero_points_are_of_bands(self) -> ProfilesConfig:
        unknown = set(self.zero_point) - {*self.bands, EVERY_BAND} if self.bands else set()
        if unknown:
            raise ValueError(f"zero_point: {', '.join(sorted(unknown))} is none of the bands {', '.join(self.bands)}")
        return self


class TrainProfilesConfig(Settings):
    """Train the network that reads profiles off images."""

    warehouse: Warehouse = "./warehouse"
    name: str = "profiles"
    real: FilterNames = Field((), description="products of profiles by isophotes, whose galaxies are learned from too")
    real_share: float = Field(0.2, ge=0, le=1, description="of the examples, where there are real ones")
    channels: int = Field(ProfileNetConfig.channels, ge=4, multiple_of=4, description="of the convolutions over cells")
    width: int = Field(ProfileNetConfig.width, ge=16, description="of the transformer along radius")
    layers: int = Field(ProfileNetConfig.layers, ge=1, description="of it")
    steps: int = Field(2400, ge=1, description="updates")
    batch: int = Field(64, ge=2, description="examples of one")
    learning_rate: float = Field(2e-3, gt=0)
    ema_decay: float = Field(0.998, ge=0, lt=1)
    shards: int = Field(90, ge=1, description="of generated galaxies")
    shard_size: int = Field(256, ge=32, multiple_of=32, description="galaxies of one")
    updates_per_shard: int = Field(20, ge=1, description="after so many there is one shard more to draw from")
    calibrated_on: int = Field(2048, ge=64, description="generated galaxies that set the errors' scale")
    checkpoint_every: int = Field(100, ge=1, description="updates; the clock is looked at as often")
    log_every: int = Field(10, ge=1)
    precision: Literal["float32", "bf16"] = "float32"
    minutes: float | None = Field(None, gt=0, description="of this piece; the same command goes on from there")
    device: str | None = Field(None, description="cpu or cuda; by default a GPU where there is one")
    seed: int = 1
    fresh: bool = False


class NetworkSettings(Settings):
    """Size of the network of a diffusion model."""

    patch: int = Field(4, ge=1, description="side of the blocks of pixels that become channels")
    widths: tuple[int, ...] = Field((64, 128, 192), description="channels of each level, finest first; multiples of 16")
    depths: tuple[int, ...] = Field((1, 1, 1), description="residual blocks of each level, each way")
    attended: int = Field(2, ge=0, description="coarsest levels with attention")


class TrainDiffusionConfig(Settings):
    """Train a galaxy diffusion model: on generated galaxies, or on the cutouts of a sky store."""

    warehouse: Warehouse = "./warehouse"
    name: str = Field("galaxy-diffusion", description="of the model")
    source: str | None = Field(
        None, description="sky store of real cutouts, e.g. warehouse/sky/legacy; by default generated"
    )
    galaxies: int = Field(
        50_000, ge=64, description="different ones; generated ones are drawn once and kept in the warehouse"
    )
    pixels: int = Field(64, ge=8, le=512, description="side of an image")
    pixel_scale: float | None = Field(None, gt=0, description="arcsec, of generated galaxies; by default 0.524")
    binned: int | None = Field(
        None, ge=1, description="pixels of a store, to a side, that are summed into one; by default 1"
    )
    bands: FilterNames = Field(("g", "r", "z"), description="of a store; generated galaxies have g, r, z")
    conditions: str | None = Field(
        None, description="of a store: CSV or Parquet with object_id and a column for each quantity to be asked for"
    )
    conditional: bool = Field(
        True, description="tell the model what is known of each galaxy, so that it can be asked for"
    )
    scaling: Literal["asinh", "clip"] = Field("asinh", description="of flux; clip: 0 to 5.5 nanomaggies, as published")
    network: NetworkSettings = NetworkSettings()
    samples: int = Field(1_000_000, ge=1, description="galaxies seen in all, each as often as it takes")
    minutes: float | None = Field(None, gt=0, description="of the training loop this time; run again, it goes on")
    batch: int = Field(32, ge=1)
    learning_rate: float = Field(
        8e-4, gt=0, description="the same to the end; the average of the weights is what is saved"
    )
    warmup_steps: int = Field(200, ge=0)
    clip: float = Field(1.0, gt=0, description="largest norm of the gradients")
    ema_decay: float = Field(0.999, gt=0, lt=1, description="of the average of weights that is saved")
    precision: Literal["float32", "bf16"] = Field("bf16", description="of the forward pass")
    compile: bool = Field(False, description="torch.compile: pays after some minutes, on a GPU")
    device: Literal["cpu", "cuda"] | None = Field(None, description="by default a GPU where there is one")
    checkpoint_every: int = Field(100, ge=1, description="updates; also how often held-out galaxies are asked")
    log_every: int = Field(10, ge=1, description="updates of one line in metrics.jsonl")
    seed: int = 0
    fresh: bool = Field(False, description="begin anew where the same was done or begun before")

    @model_validator(mode="after")
    def _goes_together(self) -> TrainDiffusionConfig:
        wanting = [name for name in ("binned", "conditions") if getattr(self, name) is not None]
        if self.source is None and wanting:
            raise ValueError(f"{', '.join(wanting)}: of a sky store; name one (source)")
        if self.source is not None and self.pixel_scale is not None:
            raise ValueError("pixel_scale: of generated galaxies; a store has its own, which can be binned")
        if self.source is None and self.bands != ("g", "r", "z"):
            raise ValueError("bands: of a store; generated galaxies have g, r, z")
        return self
