"""The report of a map: mapped and estimated areas, change since the last map, checks, what it was made from."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from odc.geo.geobox import GeoBox

from storage.classes import NO_CANOPY, NO_CLASS, LandClass
from storage.manifest import Run
from storage.publish import Receipt, local_copy, locate_product
from tasks.earth.accuracy import NOT_ESTIMATED
from tasks.earth.gates import Checked, MapFacts
from tasks.earth.last_map import LastMap
from tasks.earth.pictures import PREVIEW_PIXELS, Caption, draw_class_map

REPORT, DATA, CHANGE = "report.md", "report.json", "change.png"

CHANGE_CLASSES = (
    LandClass(0, "other", "No canopy, then and now", "#efeadb"),
    LandClass(1, "same", "Canopy, then and now", "#a9c29a"),
    LandClass(2, "lost", "Canopy lost", "#d1495b"),
    LandClass(3, "gained", "Canopy gained", "#1f6fb2"),
)
"""What the picture of the change shows."""


@dataclass(frozen=True)
class Report:
    """A report, as written into the run.

    Parameters
    ----------
    url : str
        Path or URL of ``report.md``.
    text : str
        Markdown.
    data : dict
        The same as plain data, as in ``report.json``.
    change : str
        Path or URL of the picture of the change; empty where there is no last map.
    """

    url: str
    text: str
    data: dict[str, Any]
    change: str


def write_report(
    run: Run,
    receipt: Receipt,
    checked: Checked,
    classes: tuple[LandClass, ...],
) -> Report:
    """Write the report of a published map into its run.

    Parameters
    ----------
    run : Run
        That made or found it.
    receipt : Receipt
        Of the map.
    checked : Checked
        With the counts of the map.
    classes : tuple of LandClass
        In the order of the probabilities.
    """
    assert checked.facts is not None
    data = {
        "item": receipt.key.item_id,
        "title": receipt.item["properties"].get("title", receipt.key.item_id),
        "date": str(receipt.item["properties"]["end_datetime"])[:10],
        "newest_look": checked.facts.newest,
        "scenes": [link["title"] for link in receipt.item["links"] if link["rel"] == "derived_from"],
        "classes": _class_rows(checked, classes, receipt),
        "no_data_ha": round((checked.facts.inside - checked.facts.valid) * _pixel_ha(receipt), 4),
        "last": asdict(checked.last) if checked.last else None,
        "estimates": checked.estimates,
        "checks": [asdict(check) for check in checked.checks],
        "assets": dict(sorted(receipt.assets.items())),
        "item_url": receipt.item_url,
        "run": run.id,
    }
    change = _draw_change(run, receipt, checked.last, checked.facts, classes) if checked.last else ""
    text = describe(data, change)
    run.location.write_bytes(DATA, (json.dumps(data, indent=1, ensure_ascii=False) + "\n").encode())
    run.location.write_bytes(REPORT, text.encode())
    return Report(str(run.location / REPORT), text, data, change)


def describe(data: Mapping[str, Any], change: str) -> str:
    """Return a report in Markdown."""
    scenes = data["scenes"]
    parts = [
        f"# {data['title']}, {data['date']}",
        f"![map]({data['assets']['preview']})",
        f"Newest clear look {data['newest_look'] or 'none'}; made from {len(scenes)} scenes; "
        f"no data in {data['no_data_ha']:,.1f} ha.",
        "## Areas",
        _areas(data),
        "## Change" if data["last"] else "",
        _change(data, change) if data["last"] else "No earlier map of this area in this collection.",
        "## Checks",
        _table(
            ("check", "passed", "value", "limit", "what was found"),
            [
                (check["name"], verdict(check), _number(check["value"]), _number(check["limit"]), check["sentence"])
                for check in data["checks"]
            ],
        ),
        "## Files",
        "\n".join([f"- [{name}]({url})" for name, url in data["assets"].items()]),
        f"Item `{data['item']}`: `{data['item_url']}`, run `{data['run']}`.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _class_rows(checked: Checked, classes: tuple[LandClass, ...], receipt: Receipt) -> list[dict[str, Any]]:
    facts = checked.facts
    assert facts is not None
    pixel = _pixel_ha(receipt)
    moves = np.array(facts.moves) if facts.moves else None
    rows = []
    for number, land in enumerate(classes):
        row: dict[str, Any] = {
            "name": land.name,
            "title": land.title,
            "mapped_ha": round(facts.counts[number] * pixel, 4),
            "share": round(facts.counts[number] / facts.valid, 6) if facts.valid else None,
        }
        if moves is not None:
            row |= {
                "last_ha": round(int(moves[number].sum()) * pixel, 4),
                "gained_ha": round(int(moves[:, number].sum() - moves[number, number]) * pixel, 4),
                "lost_ha": round(int(moves[number].sum() - moves[number, number]) * pixel, 4),
            }
        rows.append(row)
    return rows


def _areas(data: Mapping[str, Any]) -> str:
    estimates = data["estimates"]
    heads = ["class", "mapped, ha", "share"] + (["estimated, ha", "95 % interval"] if estimates else [])
    rows = []
    for row in data["classes"]:
        cells = [row["title"], f"{row['mapped_ha']:,.1f}", "-" if row["share"] is None else f"{row['share']:.1%}"]
        if estimates:
            area = estimates["classes"][row["name"]]["area_hectares"]
            cells += [f"{area['value']:,.1f}", _interval(area)]
        rows.append(tuple(cells))
    note = NOT_ESTIMATED
    if estimates:
        overall = estimates["overall_accuracy"]
        note = (
            f"Estimated from the sample `{estimates['sample']}`: {sum(estimates['sampled'].values())} labelled points, "
            f"method {estimates['method']}; overall accuracy {overall['value']:.3f} ({_interval(overall, digits=3)}). "
            "Mapped areas are counts of pixels."
        )
    return "\n\n".join([_table(tuple(heads), rows), note, *(estimates["notes"] if estimates else ())])


def _change(data: Mapping[str, Any], change: str) -> str:
    last = data["last"]
    rows = [
        (
            row["title"],
            f"{row['last_ha']:,.1f}",
            f"{row['gained_ha']:,.1f}",
            f"{row['lost_ha']:,.1f}",
            f"{row['gained_ha'] - row['lost_ha']:+,.1f}",
        )
        for row in data["classes"]
    ]
    return "\n\n".join(
        [
            f"Since the map of {last['date']} (`{last['item_id']}`), where both have a class. Differences between two maps "
            "hold the errors of both; they are no estimate of change on the ground.",
            _table(("class", "then, ha", "gained, ha", "lost, ha", "net, ha"), rows),
            f"![change]({change})",
        ]
    )


def _draw_change(run: Run, receipt: Receipt, last: LastMap, facts: MapFacts, classes: tuple[LandClass, ...]) -> str:
    """Draw where canopy came and went since the last map; return where the picture lies."""
    (before, grid), (now, _) = _overview(last.url), _overview(receipt.item_url)
    trees = [land.value for land in classes if land.name != NO_CANOPY]
    was, is_ = np.isin(before, trees), np.isin(now, trees)
    values = np.select([was & is_, was, is_], [1, 2, 3], 0).astype(np.uint8)
    values[(before == NO_CLASS) | (now == NO_CLASS)] = NO_CLASS
    caption = Caption(
        title="Change of canopy",
        period=f"{last.date} to {str(receipt.item['properties']['end_datetime'])[:10]}",
        footer=f"{last.item_id} to {receipt.key.item_id}",
        areas_ha=_change_areas(facts, classes, _pixel_ha(receipt)),
    )
    with tempfile.TemporaryDirectory(prefix="canopus-report-") as folder:
        picture = Path(folder) / CHANGE
        draw_class_map(picture, values, grid, classes=CHANGE_CLASSES, caption=caption)
        run.location.write_bytes(CHANGE, picture.read_bytes())
    return str(run.location / CHANGE)


def _change_areas(facts: MapFacts, classes: tuple[LandClass, ...], pixel_ha: float) -> dict[str, float]:
    moves = np.array(facts.moves)
    canopy = np.array([land.name != NO_CANOPY for land in classes])
    areas = {
        "other": moves[~canopy][:, ~canopy].sum(),
        "same": moves[canopy][:, canopy].sum(),
        "lost": moves[canopy][:, ~canopy].sum(),
        "gained": moves[~canopy][:, canopy].sum(),
    }
    return {name: float(count) * pixel_ha for name, count in areas.items()}


def _overview(where: str) -> tuple[np.ndarray, GeoBox]:
    """Return a class raster at the size of a picture, and its grid."""
    folder, _ = locate_product(where)
    with local_copy(folder, ["class.tif"]) as path, rasterio.open(path / "class.tif") as raster:
        step = max(1, math.ceil(max(raster.shape) / PREVIEW_PIXELS))
        shape = (math.ceil(raster.height / step), math.ceil(raster.width / step))
        values = raster.read(1, out_shape=shape)
        scaled = raster.transform * raster.transform.scale(raster.width / shape[1], raster.height / shape[0])
        return values, GeoBox(shape, scaled, raster.crs.to_string())


def _pixel_ha(receipt: Receipt) -> float:
    step = receipt.item["properties"]["proj:transform"]
    return abs(float(step[0]) * float(step[4])) / 10_000


def _table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [heads, tuple("---" for _ in heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def verdict(check: Mapping[str, Any]) -> str:
    """Return whether a check passed, in words."""
    return "yes" if check["passed"] else "no, allowed by hand" if check["allowed"] else "no"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _interval(estimate: Mapping[str, Any], *, digits: int = 1) -> str:
    if estimate["low"] is None or estimate["high"] is None:
        return "none"
    return f"{estimate['low']:,.{digits}f} to {estimate['high']:,.{digits}f}"
