"""Check a published product against its STAC item and its manifest: rasters here, profiles in `tasks.sky.verify`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import zarr
from rasterio.errors import RasterioError
from rasterio.windows import Window

from storage.errors import SchemaMismatch
from storage.export import Plane, blocks
from storage.geozarr import geobox_from_attributes
from storage.location import Location, resolve
from storage.publish import Finding, VerifyReport, verify_files
from tasks.earth.components import Basis, Projected

SAMPLED_BLOCKS = 16
"""Blocks in which Zarr and COG are compared, evenly spread; all of a map with no more."""

_BLOCK = 512
_UNREADABLE = "unreadable"


def verify_product(where: str | Path | Location) -> VerifyReport:
    """Check a product: every file there and unchanged, the COGs valid, the values possible, Zarr equal to COG.

    Parameters
    ----------
    where : str, Path or Location
        Path or URL of the STAC item or of its folder.

    Returns
    -------
    VerifyReport
        What is wrong, file by file.

    Raises
    ------
    NotFound
        Where there is no item.
    """
    return verify_files(where, check=check_product)


def check_product(folder: Path, item: Mapping[str, Any]) -> list[Finding]:
    """Return what is wrong with the rasters, or the profiles, of a product in a local folder.

    Parameters
    ----------
    folder : Path
        Holds the assets under the names in the item.
    item : mapping
        STAC item of the product.
    """
    if "votable" in item["assets"]:
        from tasks.sky.verify import check_profiles

        return check_profiles(folder, item)
    rasters = {name: asset for name, asset in item["assets"].items() if "data_type" in asset}
    findings: list[Finding] = []
    for name, asset in rasters.items():
        findings += _guarded(_file(asset), lambda name=name, asset=asset: _check_cog(folder, item, name, asset))
    if any(finding.problem.startswith(_UNREADABLE) for finding in findings):
        return findings
    if "class" in rasters:
        findings += _guarded("class.tif", lambda: _check_classes(folder, rasters))
    findings += _guarded("quantiles", lambda: _check_order(folder, rasters))
    if "basis" in item["assets"]:
        findings += _guarded(_file(item["assets"]["basis"]), lambda: _check_components(folder, item))
    return findings + _guarded(_file(item["assets"]["zarr"]), lambda: _check_zarr(folder, item, rasters))


def _guarded(file: str, check: Any) -> list[Finding]:
    """Return what a check finds; a file it cannot read is itself a finding."""
    try:
        return list(check())
    except (RasterioError, OSError, KeyError, ValueError, SchemaMismatch) as error:
        return [Finding(file, f"{_UNREADABLE}: {error}")]


def _file(asset: Mapping[str, Any]) -> str:
    return str(asset["href"]).removeprefix("./")


def _check_cog(folder: Path, item: Mapping[str, Any], name: str, asset: Mapping[str, Any]) -> Iterator[Finding]:
    from rio_cogeo.cogeo import cog_validate

    file = _file(asset)
    valid, errors, warnings = cog_validate(folder / file, strict=True, quiet=True)
    if not valid:
        yield Finding(file, f"no valid COG: {'; '.join([*errors, *warnings])}")
    with rasterio.open(folder / file) as raster:
        for what, expected, came in _compare(raster, item["properties"], asset):
            if expected != came:
                yield Finding(file, f"{what} is {came}, the item says {expected}")


def _compare(raster: Any, properties: Mapping[str, Any], asset: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Yield what a COG is compared in: name, value in the item, value in the file."""
    crs = properties.get("proj:code") or properties["proj:wkt2"]
    yield "CRS", rasterio.crs.CRS.from_user_input(crs), raster.crs
    yield "shape", list(properties["proj:shape"]), list(raster.shape)
    yield "transform", list(properties["proj:transform"]), list(raster.transform)[:6]
    yield "number of bands", len(asset["bands"]), raster.count
    yield "type", {asset["data_type"]}, set(raster.dtypes)
    yield "nodata", asset["nodata"], raster.nodata
    yield "scale", {asset["raster:scale"]}, set(raster.scales)


def _check_classes(folder: Path, rasters: Mapping[str, Mapping[str, Any]]) -> Iterator[Finding]:
    """Check each pixel: a class of the table, and probabilities that sum to one where there is a class."""
    table, probability = rasters["class"]["classification:classes"], rasters["probability"]
    known = np.isin(np.arange(256), [row["value"] for row in table])
    alien, wrong_sum, mismatched = 0, 0, 0
    with (
        rasterio.open(folder / _file(rasters["class"])) as class_raster,
        rasterio.open(folder / _file(probability)) as probability_raster,
    ):
        for y, x in blocks(class_raster.shape, _BLOCK):
            window = Window.from_slices(y, x)
            classes, stored = class_raster.read(1, window=window), probability_raster.read(window=window)
            filled = (stored != probability["nodata"]).all(axis=0)
            alien += int((~known[classes]).sum())
            mismatched += int((filled != (classes != rasters["class"]["nodata"])).sum())
            wrong_sum += int((filled & ~_sums_to_one(stored, probability["raster:scale"])).sum())
    for count, file, problem in (
        (alien, _file(rasters["class"]), "hold a value that is no class of the item"),
        (mismatched, _file(probability), "have a class without probabilities, or probabilities without a class"),
        (wrong_sum, _file(probability), "have probabilities that do not sum to 1"),
    ):
        if count:
            yield Finding(file, f"{count} pixels {problem}")


def _sums_to_one(stored: np.ndarray, scale: float) -> np.ndarray:
    """Return where (class, y, x) stored probabilities sum to 1, each rounded by at most half a step."""
    deviation = np.abs(stored.astype(np.int64).sum(axis=0) - round(1 / scale))
    close: np.ndarray = deviation <= len(stored) / 2
    return close


def _check_order(folder: Path, rasters: Mapping[str, Mapping[str, Any]]) -> Iterator[Finding]:
    """Check that quantiles of one variable do not cross, and stand at the same pixels."""
    planes = sorted(
        (asset["canopus:variable"], asset["canopus:plane"], _file(asset), asset["nodata"])
        for asset in rasters.values()
        if "canopus:plane" in asset
    )
    for (variable, _, lower, nodata), (other, _, upper, _) in pairwise(planes):
        if variable != other:
            continue
        crossed, alone = 0, 0
        with rasterio.open(folder / lower) as low_raster, rasterio.open(folder / upper) as high_raster:
            for window in _sample(low_raster.shape):
                low, high = (raster.read(window=Window.from_slices(*window)) for raster in (low_raster, high_raster))
                both = (low != nodata) & (high != nodata)
                alone += int(((low != nodata) != (high != nodata)).sum())
                crossed += int((both & (low > high)).sum())
        if crossed:
            yield Finding(lower, f"lies above {upper} in {crossed} of the sampled values")
        if alone:
            yield Finding(
                lower, f"has values where {upper} has none, or none where it has, in {alone} of those sampled"
            )


def _check_components(folder: Path, item: Mapping[str, Any]) -> Iterator[Finding]:
    """Compare sampled principal components with what the basis makes of the embedding."""
    basis = Basis.from_json(json.loads((folder / _file(item["assets"]["basis"])).read_text()))
    level: Any = zarr.open_group(resolve(folder / _file(item["assets"]["zarr"])).zarr_store(read_only=True), mode="r")[
        "0"
    ]
    made = Projected(level["embedding"], basis)
    stored = level["components"]
    wrong = 0
    for window in _sample((made.shape[-2], made.shape[-1])):
        found, expected = np.asarray(stored[(slice(None), *window)]).astype(int), made[window].astype(int)
        wrong += int((np.abs(found - expected) > 1).sum())
    if wrong:
        file = f"{_file(item['assets']['zarr'])}/0/components"
        yield Finding(file, f"is not what the basis makes of the embedding in {wrong} of the sampled values")


def _check_zarr(folder: Path, item: Mapping[str, Any], rasters: Mapping[str, Mapping[str, Any]]) -> Iterator[Finding]:
    """Compare grid and sampled blocks of the Zarr group with the COGs."""
    file = _file(item["assets"]["zarr"])
    level: Any = zarr.open_group(resolve(folder / file).zarr_store(read_only=True), mode="r")["0"]
    grid = geobox_from_attributes(level.attrs)
    if list(grid.affine)[:6] != list(item["properties"]["proj:transform"]):
        yield Finding(file, "its transform is not the item's")
    for name, asset in rasters.items():
        variable = asset.get("canopus:variable", name)
        array = level[variable] if "canopus:plane" not in asset else Plane(level[variable], asset["canopus:plane"])
        with rasterio.open(folder / _file(asset)) as raster:
            if array.shape[-2:] != raster.shape:
                yield Finding(f"{file}/0/{variable}", f"shape is {array.shape}, the COG's {raster.shape}")
                continue
            differing = sum(_differing_pixels(array, raster, window) for window in _sample(raster.shape))
        if differing:
            yield Finding(f"{file}/0/{variable}", f"differs from {_file(asset)} in {differing} of the sampled values")


def _differing_pixels(array: Any, raster: Any, window: tuple[slice, slice]) -> int:
    stored = np.asarray(array[(..., *window)])
    return int(
        (stored.reshape(raster.count, *stored.shape[-2:]) != raster.read(window=Window.from_slices(*window))).sum()
    )


def _sample(shape: tuple[int, int]) -> list[tuple[slice, slice]]:
    windows = list(blocks(shape, _BLOCK))
    chosen = np.unique(np.linspace(0, len(windows) - 1, min(SAMPLED_BLOCKS, len(windows))).round().astype(int))
    return [windows[index] for index in chosen]
