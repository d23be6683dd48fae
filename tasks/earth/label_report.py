"""What labels hold on the grid of an area: counts, areas, why the rest is unknown, and how a split shares them out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from odc.geo.geobox import GeoBox

from storage.classes import NO_CLASS, LandClass
from storage.cube import read_state
from storage.errors import NotFound
from storage.location import Location, resolve
from tasks.earth.grid import tiles_of
from tasks.earth.label_pictures import LabelPicture, draw_labels
from tasks.earth.label_rules import Drawn, LabelRules, Reason
from tasks.earth.label_splits import NO_FOLD, PARTS, blocked_split
from tasks.earth.labels import Labels, open_labels
from tasks.earth.mapping import MapPlan, plan_grid
from tasks.errors import ConfigurationError

REPORT, PICTURE = "labels.json", "labels.png"

WORDS = {
    Reason.OUTSIDE: "outside",
    Reason.IGNORED_VALUE: "ignored_value",
    Reason.DATE: "date",
    Reason.BELOW_UNIT: "below_unit",
    Reason.OVERLAP: "overlap",
    Reason.MARGIN: "margin",
    Reason.IGNORE_AREA: "ignore_area",
}


@dataclass(frozen=True)
class TileSplit:
    """How `blocked_split` is asked for train, validation and test tiles."""

    block: int = 32
    gap: int = 2
    shares: tuple[float, float, float] = (0.7, 0.15, 0.15)
    seed: int = 0


@dataclass(frozen=True)
class LabelReportRequest:
    """Which labels are looked at, and on which grid.

    Parameters
    ----------
    warehouse : str
        URL; only asked which tiles have cubes.
    area : dict
        GeoJSON geometry, EPSG:4326.
    labels : str
        File of polygons, or raster.
    rules : LabelRules
        How it is read.
    classes : tuple of LandClass
        Of the map to come.
    crs : str or None
        CRS of the grid; None for the UTM zone.
    resolution : float
        Metres.
    split : TileSplit
        Train, validation and test.
    out : str
        Folder or URL of report and picture.
    """

    warehouse: str
    area: dict[str, Any]
    labels: str
    rules: LabelRules
    classes: tuple[LandClass, ...]
    crs: str | None = None
    resolution: float = 10.0
    split: TileSplit = TileSplit()
    out: str = "labels-report"


def report_labels(request: LabelReportRequest) -> dict[str, Any]:
    """Read labels onto the grid of an area, and write ``labels.json`` and ``labels.png``; return the report.

    Raises
    ------
    ConfigurationError
        Where the labels cannot be read, or none lies in the area.
    """
    plan = plan_grid(request.area, crs=request.crs, resolution=request.resolution)
    labels = open_labels(request.labels, request.classes, request.rules)
    labels.require_overlap([plan.product])
    known, inside = explain_area(plan, labels)
    if not (known.classes != NO_CLASS).any():
        reasons = _pixels_by_reason(known, inside)
        shown = ", ".join(f"{name} {count}" for name, count in reasons.items() if count)
        raise ConfigurationError(f"{request.labels}: no pixel of the area has a class left; pixels by reason: {shown}")
    split = split_area(known.classes, request.split)
    report = _report(request, plan, known, inside, split) | {
        "polygons": _by_class(labels.source.counts(plan.product), request.classes)
    }
    out = resolve(request.out)
    report |= {"report": str(out / REPORT), "picture": str(out / PICTURE)}
    _write(out, report, _picture(request, plan.staging, known, inside))
    return report


def explain_area(plan: MapPlan, labels: Labels) -> tuple[Drawn, np.ndarray]:
    """Return the labels of all of an area, on the staging grid, and which pixels lie in it: (y, x) bool."""
    rows, columns = (int(size) for size in plan.staging.shape)
    classes = np.full((rows, columns), NO_CLASS, np.uint8)
    reason = np.zeros((rows, columns), np.uint8)
    inside = np.zeros((rows, columns), bool)
    for region in plan.regions:
        place = region["y"], region["x"]
        found = labels.explained(plan.staging[place])
        inside[place] = plan.inside(region)
        classes[place] = np.where(inside[place], found.classes, np.uint8(NO_CLASS))
        reason[place] = found.reason
    return Drawn(classes, reason), inside


def split_area(classes: np.ndarray, split: TileSplit, *, gap: int | None = None) -> np.ndarray:
    """Return the split of an area's grid, (y, x) int8, as `blocked_split` draws it from the labels."""
    return blocked_split(
        (classes.shape[0], classes.shape[1]),
        block_size=split.block,
        shares=split.shares,
        gap=split.gap if gap is None else gap,
        seed=split.seed,
        labels=classes,
    )


def describe_labels(report: Mapping[str, Any]) -> str:
    """Return a report in words."""
    names = list(report["classes"])
    lines = [f"{report['labels']}: {report['pixels']:,} pixels of the area, {report['area_ha']:,.1f} ha"]
    header = "".join(f"{part:>13}" for part in (*PARTS, "gap"))
    lines.append(f"{'class':<14}{'polygons':>9}{'pixels':>11}{'ha':>11}   ha in{header}")
    for name in names:
        found, parts = report["classes"][name], report["split"]["hectares"]
        polygons = report["polygons"].get(name)
        in_parts = "".join(f"{parts[part][name]:>13,.1f}" for part in (*PARTS, "gap"))
        count = "-" if polygons is None else f"{polygons:,}"
        lines.append(f"{name:<14}{count:>9}{found['pixels']:>11,}{found['hectares']:>11,.1f}        {in_parts}")
    lines.append("unknown: " + (_unknown_words(report) or "nothing"))
    missing = [part for part in PARTS for name in names if not report["split"]["hectares"][part][name]]
    if missing:
        lines.append(f"note: not every class lies in {', '.join(dict.fromkeys(missing))}: take smaller blocks")
    if report["date"]:
        lines.append(f"labels of {report['date']}: training reads looks up to that day")
    tiles = report["tiles"]
    lines.append(f"cubes: {sum(tiles.values())} of {len(tiles)} tiles of the area have one in {report['warehouse']}")
    return "\n".join([*lines, f"  report   {report['report']}", f"  picture  {report['picture']}"])


def _report(
    request: LabelReportRequest, plan: MapPlan, known: Drawn, inside: np.ndarray, split: np.ndarray
) -> dict[str, Any]:
    hectares = abs(plan.staging.affine.a * plan.staging.affine.e) / 1e4
    pixels = {of_class.name: known.classes == of_class.value for of_class in request.classes}
    parts = {name: split == number for number, name in enumerate(PARTS)} | {"gap": split == NO_FOLD}
    reasons = _pixels_by_reason(known, inside)
    return {
        "labels": request.labels,
        "rules": asdict(request.rules),
        "date": request.rules.date,
        "warehouse": request.warehouse,
        "grid": {"crs": str(plan.staging.crs), "resolution": request.resolution},
        "pixels": int(inside.sum()),
        "area_ha": float(inside.sum() * hectares),
        "classes": {name: _size(int(own.sum()), hectares) for name, own in pixels.items()},
        "unknown": {name: _size(count, hectares) for name, count in reasons.items()},
        "split": {
            **asdict(request.split),
            "shares": list(request.split.shares),
            "pixels": {
                part: {name: int((own & at).sum()) for name, own in pixels.items()} for part, at in parts.items()
            },
            "hectares": {
                part: {name: float((own & at).sum() * hectares) for name, own in pixels.items()}
                for part, at in parts.items()
            },
        },
        "tiles": _tiles(request),
    }


def _size(pixels: int, hectares: float) -> dict[str, Any]:
    return {"pixels": pixels, "hectares": pixels * hectares}


def _pixels_by_reason(known: Drawn, inside: np.ndarray) -> dict[str, int]:
    count = np.bincount(known.reason[inside], minlength=len(Reason))
    return {word: int(count[reason]) for reason, word in WORDS.items()}


def _by_class(counts: Mapping[int, int], classes: tuple[LandClass, ...]) -> dict[str, int]:
    if not counts:
        return {}
    return {known.name: counts.get(known.value, 0) for known in classes} | {"unknown": counts.get(NO_CLASS, 0)}


def _tiles(request: LabelReportRequest) -> dict[str, bool]:
    root = resolve(request.warehouse)
    found = {}
    for tile in tiles_of(request.area, crs=request.crs, resolution=request.resolution):
        try:
            read_state(root / tile.path)
            found[tile.path] = True
        except NotFound:
            found[tile.path] = False
    return found


def _picture(request: LabelReportRequest, geobox: GeoBox, known: Drawn, inside: np.ndarray) -> bytes:
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    cut = slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
    reason = np.where(inside, known.reason, np.uint8(Reason.OUTSIDE))
    picture = LabelPicture(
        classes=known.classes[cut],
        reason=reason[cut],
        parts=split_area(known.classes, request.split, gap=0)[cut],
        geobox=geobox[cut],
        of_map=request.classes,
    )
    of_date = f", of {request.rules.date}" if request.rules.date else ""
    return draw_labels(picture, title="Labels", what=f"{request.labels}{of_date}")


def _unknown_words(report: Mapping[str, Any]) -> str:
    parts = [
        f"{name.replace('_', ' ')} {found['pixels']:,} ({found['hectares']:,.1f} ha)"
        for name, found in report["unknown"].items()
        if found["pixels"]
    ]
    return ", ".join(parts)


def _write(out: Location, report: Mapping[str, Any], picture: bytes) -> None:
    out.write_bytes(PICTURE, picture)
    out.write_bytes(REPORT, (json.dumps(report, indent=1) + "\n").encode())
