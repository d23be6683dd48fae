"""The settings of every run, checked before anything starts. The one place that reads YAML."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tasks.errors import ConfigurationError

BANDS = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")


class Settings(BaseModel):
    """Base: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ClassSettings(Settings):
    """One class of the map."""

    value: int = Field(ge=0, le=254)
    name: str
    title: str
    colour: str = Field(pattern="^#[0-9a-fA-F]{6}$", description="#rrggbb")


CANOPY = (
    ClassSettings(value=0, name="none", title="No tree canopy", colour="#e8e0cf"),
    ClassSettings(value=1, name="broadleaved", title="Broadleaved", colour="#7fb53c"),
    ClassSettings(value=2, name="conifer", title="Conifer", colour="#1d5b3a"),
)

CANOPY_OR_NOT = (
    ClassSettings(value=0, name="none", title="No tree canopy", colour="#e8e0cf"),
    ClassSettings(value=1, name="canopy", title="Tree canopy", colour="#2e7d32"),
)

DEFAULT_RUN = Path(__file__).parent / "configs" / "default.yaml"

Warehouse = Annotated[str, Field(description="URL of the warehouse: a folder, s3://bucket/prefix, gs://, az://")]
Area = Annotated[str, Field(description="minx,miny,maxx,maxy in degrees, or the path of a vector file")]
Crs = Annotated[str | None, Field(description="projected CRS of the grid, e.g. EPSG:27700; by default the UTM zone")]

AllowUnmasked = Annotated[bool, Field(description="count looks of items that have no mask")]


class HttpSettings(Settings):
    """How hard another's server may be leant on."""

    attempts: int = Field(6, ge=1, description="tries per request")
    concurrent: int = Field(8, ge=1, description="requests to one host at once")
    requests_per_s: float = Field(100.0, gt=0, description="requests to one host per second")
    connect_timeout_s: float = Field(10.0, gt=0)
    read_timeout_s: float = Field(60.0, gt=0)
    allowed_hosts: tuple[str, ...] = Field((), description="where not empty, the only hosts read from")


class MaskSettings(Settings):
    """Which asset is the mask of clear looks."""

    asset: str = Field("scl", description="asset name of the mask")
    clear: tuple[int, ...] = Field((4, 5, 6), description="values that count as clear")
    dilation: int = Field(2, ge=0, le=20, description="pixels by which everything else grows")


class IngestConfig(Settings):
    """Bring the cubes of an area up to date from a STAC catalogue."""

    catalog: str = Field(description="URL of a STAC API, or a static catalogue: URL, folder or file")
    collection: str = "sentinel-2-l2a"
    aoi: Area
    start: date
    end: date = Field(default_factory=lambda: datetime.now(UTC).date())
    warehouse: Warehouse = "./warehouse"
    crs: Crs = None
    resolution: float = Field(10.0, gt=0, description="metres per pixel")
    bands: tuple[str, ...] = BANDS
    max_cloud: float | None = Field(None, ge=0, le=100, description="leave out items with more cloud, per cent")
    mask: MaskSettings = MaskSettings()
    resampling: Literal["nearest", "bilinear", "cubic"] = "nearest"
    http: HttpSettings = HttpSettings()
    time_limit_s: float = Field(3600.0, gt=0, description="for one tile")
    dask: str | None = Field(None, description="scheduler address, or local:N; by default threads")

    @model_validator(mode="after")
    def _in_order(self) -> IngestConfig:
        if self.start > self.end:
            raise ValueError(f"start {self.start} lies after end {self.end}")
        return self


class LabelSettings(Settings):
    """Where the classes are known."""

    path: str = Field(description="GeoPackage, GeoJSON, Shapefile or raster")
    class_field: str = Field("class", description="polygons: the attribute that holds the class")
    values: dict[str, str] = Field({}, description="value in the file to class name, where they differ")
    at_least: float | None = Field(None, description="raster: values from here on are the last class, others the first")
    outside: Literal["none", "ignore"] = Field("none", description="what lies outside every polygon")
    margin: int = Field(1, ge=0, description="pixels left out on either side of a class boundary")


class TrainFloorConfig(Settings):
    """Train the floor: temporal statistics and a forest."""

    warehouse: Warehouse = "./warehouse"
    aoi: Area
    crs: Crs = None
    resolution: float = 10.0
    labels: LabelSettings
    classes: tuple[ClassSettings, ...] = CANOPY
    until: date | None = Field(None, description="use looks up to this day; by default all")
    allow_unmasked: AllowUnmasked = False
    name: str = "floor"
    trees: int = Field(100, ge=1)
    folds: int = Field(5, ge=2)
    block: int = Field(20, ge=1, description="pixels on a side of the blocks that a fold holds out")
    seed: int = 0


class ExtraSettings(Settings):
    """A channel beside the bands, from a Zarr store on the grid of the tiles."""

    url: str = Field(description="folder or URL; {grid} and {tile} stand for the names of grid and tile")
    name: str = Field(description="of the array")
    unit: str = Field("1", description="as the array's units state it")
    offset: float = 0.0
    scale: float = Field(1.0, gt=0, description="a value v becomes (v - offset) / scale")
    tolerance_days: float | None = Field(None, ge=0, description="with a time dimension: how old a value may be")


class TokeniseConfig(Settings):
    """Pack pixel series of an area into a token store, or bring it up to date."""

    warehouse: Warehouse = "./warehouse"
    aoi: Area
    crs: Crs = None
    resolution: float = 10.0
    name: str = Field(description="of the token store")
    steps: int = Field(256, ge=2, description="most looks of one series, the newest")
    pixels: int = Field(100_000, ge=1, description="series, drawn evenly over the area")
    before: date | None = Field(None, description="read nothing of this day or later; by default all")
    bands: tuple[str, ...] | None = Field(None, description="of the cubes; by default all")
    extra: tuple[ExtraSettings, ...] = ()
    holdout_blocks: str | None = Field(None, description="FOLDS:FOLD[:BLOCK]: leave the blocks of one fold out")
    allow_unmasked: AllowUnmasked = False
    seed: int = 0


class MapConfig(Settings):
    """Publish a map of an area from a trained model."""

    warehouse: Warehouse = "./warehouse"
    aoi: Area
    crs: Crs = None
    resolution: float = 10.0
    model: str = Field("floor", description="name, or name/version")
    collection: str = "canopy"
    title: str = "Tree canopy"
    until: date | None = Field(None, description="use looks up to this day; by default all")
    allow_unmasked: AllowUnmasked = False
    dask: str | None = None


class EvaluateForecastConfig(Settings):
    """Score forecasts beside every floor."""

    warehouse: Warehouse = "./warehouse"
    aoi: Area
    crs: Crs = None
    resolution: float = 10.0
    model: str | None = Field(None, description="name, or name/version; without it the floors alone")
    origins: str = Field(description="START:END:FREQ, e.g. 2019-01-01:2019-07-01:MS; FREQ as pandas spells it")
    horizon: int = Field(150, ge=1, description="days ahead that are scored")
    bin_days: int = Field(30, ge=1, description="errors and coverage are given by bins of so many days")
    context: Literal["valid", "clear"] = Field("valid", description="looks before the origin that may be used")
    bands: tuple[str, ...] | None = Field(None, description="of the cubes; by default all")
    holdout_blocks: str | None = Field(None, description="FOLDS:FOLD[:BLOCK]: score only blocks that training left out")
    share: float = Field(1.0, gt=0, le=1, description="of the pixels that are scored, drawn by their place")
    allow_unmasked: AllowUnmasked = False
    out: str | None = Field(None, description="folder or URL of report and pictures; by default the run's")
    dask: str | None = None


class UpdateConfig(Settings):
    """The recurring update: ingest what is new, then map it."""

    ingest: IngestConfig
    map: MapConfig
    map_without_news: bool = Field(False, description="publish even where no new look came in")


class SimulateSettings(Settings):
    """The generated archive with known truth."""

    folder: str = "./archive"
    seed: int = 7
    size_km: float = Field(5.0, gt=0, le=50)
    years: float = Field(2.0, gt=0, le=12)


class PipelineConfig(Settings):
    """The main job: archive to published map."""

    simulate: SimulateSettings | None = Field(None, description="make the generated archive first")
    ingest: IngestConfig
    train: TrainFloorConfig
    map: MapConfig


Config = TypeVar("Config", bound=Settings)


def with_warehouse(config: PipelineConfig, warehouse: str) -> PipelineConfig:
    """Return the settings of the main job with every step on another warehouse."""
    steps = {
        name: getattr(config, name).model_copy(update={"warehouse": warehouse}) for name in ("ingest", "train", "map")
    }
    return config.model_copy(update=steps)


def load_config(path: Path, kind: type[Config], **overrides: Any) -> Config:
    """Return a run's settings from a YAML file, with what the command line says laid over it.

    Raises
    ------
    ConfigurationError
        Naming the file, the field and what is wrong with it.
    """
    try:
        content = yaml.safe_load(path.read_text()) or {}
    except FileNotFoundError as error:
        raise ConfigurationError(f"{path}: no such file") from error
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path}: not YAML ({error})") from error
    return make_config(kind, content | overrides, where=str(path))


def make_config(kind: type[Config], content: dict[str, Any], *, where: str = "") -> Config:
    """Return checked settings.

    Raises
    ------
    ConfigurationError
        One line for each field that is wrong.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        lines = [f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}" for problem in error.errors()]
        prefix = f"{where}: " if where else ""
        raise ConfigurationError(prefix + "; ".join(lines)) from error
