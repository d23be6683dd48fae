"""The settings of every run, checked before anything starts. The one place that reads YAML."""

from __future__ import annotations

import re
from dataclasses import asdict
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from storage import classes
from tasks.errors import ConfigurationError, UsageError

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


CANOPY = tuple(ClassSettings(**asdict(land)) for land in classes.CANOPY_CLASSES)
CANOPY_OR_NOT = tuple(ClassSettings(**asdict(land)) for land in classes.CANOPY_OR_NOT)

DEFAULT_RUN = Path(__file__).parent / "configs" / "default.yaml"
LABEL_TABLES = Path(__file__).parent / "label_tables"

Warehouse = Annotated[str, Field(description="URL of the warehouse: a folder, s3://bucket/prefix, gs://, az://")]
Area = Annotated[str, Field(description="minx,miny,maxx,maxy in degrees, or the path of a vector file")]
Crs = Annotated[str | None, Field(description="projected CRS of the grid, e.g. EPSG:27700; by default the UTM zone")]


def _as_band_names(value: Any) -> Any:
    """Return band names as the cubes spell them: ``b8a`` is B8A, and a comma may be followed by a space."""
    return [str(name).strip().upper() for name in value] if isinstance(value, list | tuple) else value


def _scheduler(dask: str | None) -> str | None:
    if dask is None or "://" in dask or (dask.startswith("local:") and dask[6:].isdigit() and int(dask[6:]) > 0):
        return dask
    raise ValueError(f"{dask!r} is neither local:N nor an address such as tcp://127.0.0.1:8786")


Bands = Annotated[tuple[str, ...], BeforeValidator(_as_band_names)]
Dask = Annotated[
    str | None,
    Field(description="scheduler address, or local:N; by default threads"),
    AfterValidator(_scheduler),
]
AllowUnmasked = Annotated[bool, Field(description="count looks of items that have no mask")]


def _iso_day(value: Any) -> Any:
    """Return a day as text: YAML reads one as a date."""
    return date.fromisoformat(str(value)).isoformat() if isinstance(value, str | date) else value


IsoDay = Annotated[str, BeforeValidator(_iso_day)]


_EVERY = "^[1-9][0-9]*[DWMY]$"


def _step(every: Any) -> Any:
    """Refuse in words what the pattern, which the dashboard's form reads, would refuse without any."""
    if isinstance(every, str) and not re.fullmatch(_EVERY, every):
        raise ValueError(f"{every} is no number of days, weeks, months or years, such as 10D, 2W, 3M or 1Y")
    return every


Every = Annotated[str, Field(pattern=_EVERY), BeforeValidator(_step)]


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
    bands: Bands = BANDS
    max_cloud: float | None = Field(None, ge=0, le=100, description="leave out items with more cloud, per cent")
    mask: MaskSettings = MaskSettings()
    resampling: Literal["nearest", "bilinear", "cubic"] = "nearest"
    http: HttpSettings = HttpSettings()
    time_limit_s: float = Field(3600.0, gt=0, description="for one tile")
    dask: Dask = None

    @model_validator(mode="after")
    def _in_order(self) -> IngestConfig:
        if self.start > self.end:
            raise ValueError(f"start {self.start} lies after end {self.end}")
        return self


class LabelSettings(Settings):
    """Where the classes are known."""

    path: str = Field(description="GeoPackage, GeoJSON, Shapefile or raster")
    table: str | None = Field(
        None, description="of an inventory's classes: nfi, or a YAML file; gives class_field, values"
    )
    class_field: str = Field("class", description="polygons: the attribute that holds the class")
    values: dict[str, str] = Field({}, description="value in the file to class name, where they differ")
    at_least: float | None = Field(None, description="raster: values from here on are the last class, others the first")
    outside: Literal["none", "ignore"] = Field("none", description="what lies outside every polygon")
    margin: int = Field(1, ge=0, description="pixels left out on either side of a class boundary")
    ignore: str | None = Field(None, description="file of polygons in which nothing is known")
    min_area_ha: float = Field(0.0, ge=0, description="smaller polygons, or patches of a raster, are unknown")
    min_width_m: float = Field(0.0, ge=0, description="narrower ones too")
    date: IsoDay | None = Field(None, description="day that the labels are of: looks after it are not trained on")
    date_field: str | None = Field(None, description="polygons: year or date; newer ones than `date` are unknown")
    max_age_years: float | None = Field(
        None, ge=0, description="polygons older than so many years on `date` are unknown"
    )

    @model_validator(mode="before")
    @classmethod
    def _from_table(cls, given: Any) -> Any:
        """Lay what is given over what the table says."""
        if not isinstance(given, dict) or not given.get("table"):
            return given
        content = read_label_table(str(given["table"]))
        return content | given | {"values": content["values"] | (given.get("values") or {})}

    @model_validator(mode="after")
    def _dates_compare(self) -> LabelSettings:
        if self.date_field is not None and self.date is None:
            raise ValueError("date_field wants a date to compare with: which day are the labels of?")
        if self.max_age_years is not None and self.date_field is None:
            raise ValueError("max_age_years wants a date_field: which attribute holds a polygon's year or date?")
        return self


def read_label_table(name: str) -> dict[str, Any]:
    """Return attribute and values of an inventory's classes, by the name of a table that is shipped, or from a YAML file.

    Raises
    ------
    ValueError
        Where there is no such table, or a value has no class.
    """
    shipped = LABEL_TABLES / f"{name}.yaml"
    path = shipped if shipped.is_file() else Path(name)
    if not path.is_file():
        known = ", ".join(sorted(table.stem for table in LABEL_TABLES.glob("*.yaml")))
        raise ValueError(f"{name} is neither a file nor a table that is shipped ({known})")
    try:
        content = yaml.safe_load(path.read_text())
        values = {
            str(value): entry if isinstance(entry, str) else entry["class"]
            for value, entry in content["values"].items()
        }
    except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path}: wanted are values, each with a class: `values: {{Larch: conifer}}` ({error})"
        ) from error
    return {"values": values} | ({"class_field": content["class_field"]} if "class_field" in content else {})


class AreaSettings(Settings):
    """Base of what reads the cubes of an area."""

    warehouse: Warehouse = "./warehouse"
    aoi: Area
    crs: Crs = None
    resolution: float = 10.0
    allow_unmasked: AllowUnmasked = False


class TrainFloorConfig(AreaSettings):
    """Train the floor: temporal statistics and a forest."""

    labels: LabelSettings
    classes: tuple[ClassSettings, ...] = CANOPY
    until: date | None = Field(None, description="use looks up to this day; by default the date of the labels, or all")
    name: str = "floor"
    trees: int = Field(100, ge=1)
    folds: int = Field(5, ge=2)
    block: int = Field(20, ge=1, description="pixels on a side of the blocks that a fold holds out")
    seed: int = 0


class TrainCanopyConfig(Settings):
    """Train a canopy head on an EarthPT: from labels, from generated places, or both."""

    warehouse: Warehouse = "./warehouse"
    name: str = "canopy"
    backbone: str = Field(description="EarthPT, or a canopy model to go on from")
    aoi: Area | None = Field(None, description="area of the labels")
    crs: Crs = None
    resolution: float = 10.0
    allow_unmasked: AllowUnmasked = False
    labels: LabelSettings | None = Field(None, description="without, it learns from generated places alone")
    classes: tuple[ClassSettings, ...] = CANOPY
    until: date | None = Field(None, description="use looks up to this day; by default the date of the labels, or all")
    window_days: int | None = Field(None, ge=1, description="use looks of so many days up to then; by default all")
    pixels: int = Field(250_000, ge=1000, description="labelled pixels that are read, about")
    block: int = Field(32, ge=4, description="pixels on a side of train, validation and test tiles")
    gap: int = Field(4, ge=0, description="pixels between tiles of different parts")
    shares: tuple[float, float, float] = Field((0.7, 0.15, 0.15), description="of train, validation and test tiles")
    places: int = Field(0, ge=0, description="generated places to learn from too")
    tuning: Literal["frozen", "lora", "full"] = Field(
        "frozen", description="what of EarthPT is trained beside the head"
    )
    published: bool = Field(
        False, description="as Dargana: pooled embedding, each pixel alone, new head, labels believed"
    )
    fresh_head: bool = Field(False, description="begin with a new head where there is a trained one")
    head: str | None = Field(
        None, description="canopy model whose head to begin with, whatever EarthPT it was trained on"
    )
    months: int = Field(12, ge=0, le=36, description="days of the year that a new head asks EarthPT about")
    hidden: int = Field(64, ge=4, description="width of a new head")
    reach: int = Field(5, ge=0, le=16, description="pixels to each side that a new head sees")
    dropout: float = Field(0.4, ge=0, lt=1, description="of a new head; 0.1 where labels are many")
    members: int | None = Field(
        None, ge=1, le=16, description="networks that a new head averages, by default one; of a trained one the first"
    )
    turns: Literal[1, 2, 4, 8] = Field(1, description="ways of turning and mirroring the ground that it averages")
    rank: int = Field(4, ge=1, description="of lora")
    steps: int = Field(600, ge=1, description="updates at most")
    batch: int = Field(8, ge=1, description="patches of 32 x 32 pixels in an update")
    learning_rate: float | None = Field(None, gt=0, description="by default 2e-3; 3e-4 where a head is followed")
    focus: float = Field(0.0, ge=0, description="exponent of the focal loss")
    balanced: bool = Field(False, description="classes weigh alike")
    doubt: float = Field(
        0.5, gt=0, le=1, description="outside of polygons, probability from which the starting head sees canopy"
    )
    patience: int = Field(6, ge=1, description="judgements without gain before the end")
    device: Literal["cpu", "cuda"] | None = Field(None, description="by default a GPU where there is one")
    workers: int | None = Field(None, ge=1, description="processes that draw places; by default one for each core")
    seed: int = 0

    @model_validator(mode="after")
    def _has_ground(self) -> TrainCanopyConfig:
        if (self.labels is None) != (self.aoi is None):
            raise ValueError("labels and aoi go together: name both, or neither and a number of places")
        if self.labels is None and not self.places:
            raise ValueError("nothing to learn from: name aoi and labels, or a number of places")
        return self


class ExtraSettings(Settings):
    """A channel beside the bands, from a Zarr store on the grid of the tiles."""

    url: str = Field(description="folder or URL; {grid} and {tile} stand for the names of grid and tile")
    name: str = Field(description="of the array")
    unit: str = Field("1", description="as the array's units state it")
    offset: float = 0.0
    scale: float = Field(1.0, gt=0, description="a value v becomes (v - offset) / scale")
    tolerance_days: float | None = Field(None, ge=0, description="with a time dimension: how old a value may be")


class TokeniseConfig(AreaSettings):
    """Pack pixel series of an area into a token store, or bring it up to date."""

    name: str = Field(description="of the token store")
    steps: int = Field(256, ge=8, description="most looks of one series, the newest")
    pixels: int = Field(100_000, ge=1, description="series, drawn evenly over the area")
    before: date | None = Field(None, description="read nothing of this day or later; by default all")
    bands: tuple[str, ...] | None = Field(None, description="of the cubes; by default all")
    extra: tuple[ExtraSettings, ...] = ()
    holdout_blocks: str | None = Field(None, description="FOLDS:FOLD[:BLOCK]: leave the blocks of one fold out")
    seed: int = 0


class EarthPTSettings(Settings):
    """Size of an EarthPT, and how it is questioned in training."""

    layers: int = Field(4, ge=1)
    heads: int = Field(4, ge=1)
    width: int = Field(96, ge=8, description="a multiple of twice the heads")
    pointers: int = Field(6, ge=1, description="weighted means of the pixel's own looks that an answer is mixed from")
    queries: int = Field(48, ge=1, description="questions about each series of a batch")
    horizon_days: int = Field(240, ge=1, description="longest time from origin to target in training")
    band_dropout: float = Field(0.5, ge=0, le=1, description="share of the series that lose bands")

    @model_validator(mode="after")
    def _heads_fit(self) -> EarthPTSettings:
        if self.width % (2 * self.heads):
            raise ValueError(f"width {self.width} is no multiple of twice the {self.heads} heads")
        return self


SHIPPED_EARTHPT = "earthpt-small"


class TrainEarthPTConfig(Settings):
    """Train EarthPT: on generated series, on real ones of an area, or taught by a larger model."""

    warehouse: Warehouse = "./warehouse"
    name: str = Field("earthpt", description="of the model")
    aoi: Annotated[str | None, Field(description="real series of this area; without it generated series alone")] = None
    crs: Crs = None
    resolution: float = 10.0
    until: date | None = Field(None, description="no look after this day is used; by default all")
    bands: tuple[str, ...] | None = Field(None, description="of the cubes; by default all")
    holdout_blocks: str | None = Field(None, description="FOLDS:FOLD[:BLOCK]: leave the blocks of one fold out")
    allow_unmasked: AllowUnmasked = False
    pixels: int = Field(20_000, ge=1, description="real series, drawn evenly over the area")
    held_out_days: int = Field(180, ge=0, description="last days up to `until` that choose the weights, not trained on")
    held_out_pixels: int = Field(1024, ge=1, description="series asked about those days")
    shift_days: int = Field(20, ge=0, description="largest shift in time of a real series each time it is drawn")
    gain: float = Field(0.08, ge=0, description="spread of the logarithm of each band's gain, likewise")
    left_out: float = Field(0.25, ge=0, lt=1, description="share of a real series' looks that are taken away, likewise")
    prior_share: float | None = Field(None, ge=0, le=1, description="of the batches; by default half, without aoi all")
    start_from: str | None = Field(
        None, description=f"model to begin with, or none; by default {SHIPPED_EARTHPT} where there is an aoi"
    )
    model: EarthPTSettings | None = Field(None, description="size, where it does not start from a model")
    teacher: str | None = Field(None, description="model to learn from, beside the looks")
    truth_share: float = Field(0.3, ge=0, le=1, description="with a teacher: weight of the looks themselves")
    series: int = Field(64, ge=1, description="of one batch of each process")
    looks: int = Field(128, ge=16, description="most looks of one series, the newest")
    scored: int = Field(256, ge=1, description="held-out series that are scored beside the floors at the end")
    pool: int = Field(0, ge=0, description="generated series drawn once by all CPUs and kept, to feed a GPU; 0: anew")
    places: int = Field(0, ge=0, description="generated places whose pixels are added to them")
    steps: int | None = Field(None, ge=1, description="updates; by default 20,000, or 600 from a model, or by minutes")
    minutes: float | None = Field(None, gt=0, description="wall clock of the training loop")
    learning_rate: float | None = Field(None, gt=0, description="by default 1e-3, or 2e-4 from a model")
    warmup_steps: int = Field(100, ge=0)
    weight_decay: float = Field(0.1, ge=0)
    clip: float = Field(1.0, gt=0, description="largest norm of the gradients")
    ema_decay: float = Field(0.999, ge=0, lt=1, description="of the average of weights that is saved")
    accumulation: int = Field(1, ge=1, description="batches of one update")
    patience: int = Field(
        5, ge=0, description="checkpoints without a lower loss on held-out real looks that end it; 0 never"
    )
    precision: Literal["float32", "bf16"] = "float32"
    compile: bool = Field(False, description="torch.compile: pays after some minutes")
    parallel: Literal["none", "ddp", "fsdp"] = Field("none", description="under torchrun")
    device: Literal["cpu", "cuda"] | None = Field(None, description="by default a GPU where there is one")
    checkpoint_every: int | None = Field(
        None, ge=1, description="updates; also how often held-out looks are asked; by default 200, or 50 from a model"
    )
    log_every: int = Field(20, ge=1, description="updates of one line in metrics.jsonl")
    seed: int = 0
    fresh: bool = Field(False, description="begin anew where the same was done or begun before")

    @property
    def starts_from(self) -> str | None:
        """Return the model whose weights it begins with."""
        if self.start_from is not None:
            return None if self.start_from == "none" else self.start_from
        return SHIPPED_EARTHPT if self.aoi and not self.model and not self.teacher else None

    @property
    def share_of_prior(self) -> float:
        """Return the share of generated batches."""
        return self.prior_share if self.prior_share is not None else 0.5 if self.aoi else 1.0

    @model_validator(mode="after")
    def _goes_together(self) -> TrainEarthPTConfig:
        if self.aoi is None:
            given = [name for name in ("until", "bands", "holdout_blocks") if getattr(self, name) is not None]
            if given:
                raise ValueError(f"{', '.join(given)} says which real series are used, and there is no aoi")
            if self.prior_share is not None and self.prior_share < 1:
                raise ValueError("prior_share below 1 wants real series: name an aoi")
        if self.model is not None and self.starts_from is not None:
            raise ValueError(
                f"what starts from {self.starts_from} keeps its size: leave out model, or start_from: none"
            )
        return self


class GateSettings(Settings):
    """What a map has to be before it is published; null switches a check off."""

    min_valid: float | None = Field(0.5, ge=0, le=1, description="least share of the area with a class")
    max_seam: float | None = Field(1.5, ge=1, description="largest jump over borders, in jumps beside them")
    max_drift: float | None = Field(0.25, ge=0, description="largest change of a class's area since the last map")
    max_age_days: int | None = Field(
        92, ge=0, description="largest age of the newest clear look on the day that is asked for"
    )
    min_seen: float | None = Field(0.05, ge=0, le=1, description="least share seen clear since the last earlier map")
    asked: date | None = Field(None, description="day that is asked for; by default until, or the newest look")
    allow: tuple[Literal["valid", "seams", "drift", "freshness", "coverage"], ...] = Field(
        (), description="checks that may fail; the item says so"
    )


class MapConfig(AreaSettings):
    """Publish a map of an area from a trained model."""

    model: str = Field("canopy-distilled", description="name, or name/version")
    collection: str = "canopy"
    title: str = "Tree canopy"
    until: date | None = Field(None, description="use looks up to this day; by default all")
    window_days: int | None = Field(None, ge=1, description="use looks of so many days up to then; by default all")
    gates: GateSettings = GateSettings()
    sample: str | None = Field(None, description="labelled probability sample; the report estimates areas from it")
    dask: Dask = None


class BackfillConfig(Settings):
    """Publish the maps of a period, each as the update would have on its day."""

    map: MapConfig
    start: date
    end: date = Field(default_factory=lambda: datetime.now(UTC).date())
    every: Every = Field("1M", description="time between maps: 1M, 3M, 1Y, 2W, 10D")

    @model_validator(mode="after")
    def _in_order(self) -> BackfillConfig:
        if self.start > self.end:
            raise ValueError(f"start {self.start} lies after end {self.end}")
        if self.map.until is not None:
            raise ValueError("map.until is set by start, end and every: leave it out")
        return self


class ChangeRuleSettings(Settings):
    """What counts as a change of woodland; docs/dataflow.md says how."""

    least_maps: int = Field(2, ge=1, description="maps on either side of a change")
    least_looks: int = Field(3, ge=1, description="clear looks behind a map, and days with a look around a break")
    fall: float = Field(0.25, gt=0, le=1, description="by how much canopy probability falls where woodland is lost")
    canopy: float = Field(0.4, ge=0, le=1, description="probability from which a pixel was, or has become, woodland")
    explained: float = Field(0.2, ge=0, le=1, description="share of the looks' spread that the step of a loss explains")
    step: float = Field(0.1, ge=0, description="by how much NDVI and NBR fall")
    rise: float = Field(0.05, gt=0, le=1, description="by how much canopy probability rises over young trees")
    open: float = Field(0.2, ge=0, le=1, description="probability up to which a place was no woodland")
    settled: float = Field(9.0, ge=0, description="log-likelihood per variable for a new season of the looks")
    settled_days: int = Field(270, ge=1, description="how long that season has lasted")
    never_bare: float = Field(0.45, ge=-1, le=1, description="NDVI that nine in ten looks since then reach")


class ChangeConfig(AreaSettings):
    """Publish woodland lost and gained, from the published maps of an area."""

    collection: str = Field("canopy", description="of the maps")
    start: date | None = Field(None, description="use maps from this date on; by default all")
    end: date | None = Field(None, description="use maps up to this date; by default all")
    min_area_ha: float = Field(0.05, ge=0, description="smaller patches of change are left out")
    rules: ChangeRuleSettings = ChangeRuleSettings()
    out_collection: str = Field("canopy-change", description="of the product")
    title: str = "Change of woodland"
    dask: Dask = None


class ForecastConfig(AreaSettings):
    """Publish forecasts of an area."""

    model: str = Field(description="name, or name/version; window needs no training")
    origin: date | None = Field(None, description="use looks before this day; by default all")
    dates: tuple[date, ...] = Field((), description="days to forecast; by default every so many up to the horizon")
    horizon: int = Field(150, ge=1, description="days from the origin to the last one forecast")
    every: int = Field(30, ge=1, description="days between those forecast")
    bands: tuple[str, ...] | None = Field(None, description="of the cubes; by default all")
    quantiles: tuple[float, ...] | None = Field(None, description="levels to keep; by default all that the model gives")
    out_index: tuple[str, ...] = Field(("ndvi",), min_length=1, description="indices that get COGs and pictures")
    collection: str = "forecast"
    title: str = "Forecast"
    dask: Dask = None


class EmbedConfig(AreaSettings):
    """Publish the embedding of an area."""

    model: str = Field(description="name, or name/version")
    until: date | None = Field(None, description="use looks up to this day; by default all")
    bands: tuple[str, ...] | None = Field(None, description="of the cubes; by default all")
    dtype: Literal["float16", "float32"] = Field("float16", description="as which the embedding is stored")
    seed: int = Field(0, ge=0, description="of the pixels that the principal components are fitted on")
    collection: str = "embedding"
    title: str = "Embedding"
    dask: Dask = None


class EvaluateForecastConfig(AreaSettings):
    """Score forecasts beside every floor."""

    model: str | None = Field(None, description="name, or name/version; without it the floors alone")
    origins: str = Field(description="START:END:FREQ, e.g. 2019-01-01:2019-07-01:MS; FREQ as pandas spells it")
    horizon: int = Field(150, ge=1, description="days ahead that are scored")
    bin_days: int = Field(30, ge=1, description="errors and coverage are given by bins of so many days")
    context: Literal["valid", "clear"] = Field("valid", description="looks before the origin that may be used")
    bands: tuple[str, ...] | None = Field(None, description="of the cubes; by default all")
    holdout_blocks: str | None = Field(None, description="FOLDS:FOLD[:BLOCK]: score only blocks that training left out")
    share: float = Field(1.0, gt=0, le=1, description="of the pixels that are scored, drawn by their place")
    out: str | None = Field(None, description="folder or URL of report and pictures; by default the run's")
    dask: Dask = None


class FloorLabelSettings(LabelSettings):
    """Labels that the forest floor is trained on, where those are not the ones that are scored."""

    aoi: Annotated[str | None, Field(description="where they lie; by default the area that is scored")] = None
    warehouse: Annotated[str | None, Field(description="whose cubes; by default the model's")] = None
    until: IsoDay | None = Field(None, description="last day of its looks; by default the labels' date, or the map's")


class EvaluateCanopyConfig(AreaSettings):
    """Score a canopy model beside a forest and mean NDVI."""

    model: str = Field(description="name, or name/version")
    labels: LabelSettings
    date: IsoDay | None = Field(None, description="day of the map; by default the labels', or that of the newest look")
    window_days: int | None = Field(None, ge=1, description="only looks of so many days up to `date`; by default all")
    floor: FloorLabelSettings | None = Field(
        None, description="labels of the forest; by default those that are scored, cross-validated by blocks"
    )
    holdout_blocks: str | None = Field(None, description="FOLDS:FOLD[:BLOCK]: score only blocks that training left out")
    test_tiles: bool = Field(False, description="score only the test tiles of the split of the floor's labels")
    split_block: int = Field(32, ge=1, description="with test_tiles: pixels on a side of a block")
    split_gap: int = Field(2, ge=0, description="with test_tiles: pixels beside another part that belong to none")
    split_shares: tuple[float, float, float] = Field((0.7, 0.15, 0.15), description="of train, validation and test")
    split_seed: int = 0
    cell: int = Field(1, ge=1, description="pixels on a side of a label's cell: scored once, by its mean probability")
    sample: str | None = Field(None, description="labelled probability sample: accuracy and areas with intervals")
    canopy_only: bool = Field(
        False, description="the labels know canopy and not its kind; so does a raster with at_least"
    )
    block: int = Field(20, ge=1, description="pixels on a side of a block of the forest's cross-validation")
    folds: int = Field(5, ge=2)
    trees: int = Field(100, ge=1, description="of the forest")
    out: str | None = Field(None, description="folder or URL of report and pictures; by default the run's")

    @model_validator(mode="after")
    def _one_part(self) -> EvaluateCanopyConfig:
        if self.test_tiles and self.holdout_blocks is not None:
            raise ValueError("test_tiles and holdout_blocks each say which part is scored: choose one")
        return self


class LabelReportConfig(Settings):
    """Say what labels hold on the grid of an area: counts, areas, why the rest is unknown, a split, a picture."""

    warehouse: Warehouse = "./warehouse"
    aoi: Area
    crs: Crs = None
    resolution: float = Field(10.0, gt=0, description="metres per pixel")
    labels: LabelSettings
    classes: tuple[ClassSettings, ...] = CANOPY
    block: int = Field(32, ge=1, description="pixels on a side of a block of the split")
    gap: int = Field(2, ge=0, description="pixels beside a block of another part that belong to none")
    shares: tuple[float, float, float] = Field((0.7, 0.15, 0.15), description="of train, validation and test")
    seed: int = 0
    out: str = Field("labels-report", description="folder or URL of labels.json and labels.png")


class UpdateConfig(Settings):
    """The recurring update: ingest what is new, then map it."""

    ingest: IngestConfig
    map: MapConfig

    @property
    def map_asked(self) -> MapConfig:
        """Return the map's settings; its looks have to be fresh on the last day of the search."""
        asked = self.map.gates.asked or self.map.until or self.ingest.end
        return self.map.model_copy(update={"gates": self.map.gates.model_copy(update={"asked": asked})})


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
    train: TrainCanopyConfig | TrainFloorConfig | None = Field(
        None,
        description="a canopy head where it names a backbone, else the floor; nothing where the map's model is there",
    )
    map: MapConfig


Config = TypeVar("Config", bound=Settings)


def with_warehouse(config: PipelineConfig, warehouse: str) -> PipelineConfig:
    """Return the settings of the main job with every step on another warehouse."""
    steps = {name: getattr(config, name) for name in ("ingest", "train", "map")}
    return config.model_copy(
        update={name: step and step.model_copy(update={"warehouse": warehouse}) for name, step in steps.items()}
    )


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
    UsageError
        Naming each field that is wrong.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        prefix = f"{where}: " if where else ""
        raise UsageError(prefix + "; ".join(_in_words(problem) for problem in error.errors())) from error


def _in_words(problem: ErrorDetails) -> str:
    """Return one thing that is wrong: the field, and what is wanted."""
    said = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        said = "there is no such setting"
    elif problem["type"].startswith("date_"):
        said = f"{problem['input']} is no day, YYYY-MM-DD"
    return ": ".join([*filter(None, [".".join(str(part) for part in problem["loc"])]), said])
