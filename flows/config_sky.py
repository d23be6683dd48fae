"""The settings of the flows of the sky."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from flows.config import Dask, Settings, Warehouse


def _as_names(value: Any) -> Any:
    """Return names of bands, given as a list or with commas between them; the sky's are told apart by their case."""
    names = value.split(",") if isinstance(value, str) else value
    return [str(name).strip() for name in names] if isinstance(names, list | tuple) else names


FilterNames = Annotated[tuple[str, ...], BeforeValidator(_as_names)]


class HostSettings(Settings):
    """How hard a survey's server may be leant on."""

    attempts: int = Field(6, ge=1, description="tries per request")
    concurrent: int = Field(4, ge=1, description="requests at once")
    requests_per_s: float = Field(4.0, gt=0)
    connect_timeout_s: float = Field(10.0, gt=0)
    read_timeout_s: float = Field(60.0, gt=0)


class ProfilesConfig(Settings):
    """Measure the surface-brightness profile of every object of a list, and publish them."""

    targets: str | None = Field(
        None, description="CSV, Parquet, FITS or VOTable of positions, or a query: sdss:, vizier:, ned:"
    )
    source: str = Field(
        "legacy", description="legacy, legacy:LAYER, sdss, bricks:PATH_OR_URL or folder:PATH of FITS files"
    )
    bands: FilterNames = Field((), description="by default the source's own, such as g, r, z")
    warehouse: Warehouse = "./warehouse"
    method: Literal["auto", "network", "isophote", "published"] = Field(
        "auto", description="auto: isophotes, until a network is there"
    )
    size_pixels: int | None = Field(None, ge=8, description="side of a cutout; by default the target's or the source's")
    size_arcsec: float | None = Field(None, gt=0, description="the same in arcsec")
    pixel_scale: float | None = Field(
        None, gt=0, description="arcsec per pixel: of what is asked for, or of files that do not say"
    )
    zero_point: float | None = Field(None, description="AB magnitude of one unit of flux, of files that do not say")
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
