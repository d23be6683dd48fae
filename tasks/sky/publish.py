"""Profiles of many batches as one product: HATS catalogue, Parquet, FITS, VOTable, summary, STAC item last."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from storage.location import Location
from storage.publish import ProductKey, Receipt, product_id, publish
from storage.repository import tag_snapshot
from tasks.sky.hats_catalogue import has_position, write_hats
from tasks.sky.profile_files import write_fits, write_parquet, write_votable
from tasks.sky.profile_rows import MEDIANS, ProfileRows
from tasks.sky.profile_table import COLUMNS, Column

STAC_VERSION = "1.1.0"
TABLE_EXTENSION = "https://stac-extensions.github.io/table/v1.2.0/schema.json"
PROCESSING_EXTENSION = "https://stac-extensions.github.io/processing/v1.2.0/schema.json"
PARQUET_TYPE = "application/vnd.apache.parquet"
HATS, SUMMARY = "hats", "summary.json"
_DIGITS = 12


def publish_profiles(
    warehouse: Location,
    batches: Sequence[Location | str | Path],
    *,
    collection: str,
    title: str,
    integer_ids: bool,
    facts: Mapping[str, Any],
) -> Receipt:
    """Publish the profiles of many batches, or find that they are published.

    Every row is in ``profiles.parquet``, ``.fits`` and ``.vot``; a HATS catalogue cannot hold a row without a position,
    so those are left out there, and counted in the summary and the item.

    Parameters
    ----------
    warehouse : Location
        Root of the warehouse.
    batches : sequence of Location, str or Path
        Parquet files of `tasks.sky.profile_table.SCHEMA`, in the order of the target list.
    collection, title : str
        Name of the collection, and what the item is called.
    integer_ids : bool
        Whether the ids of the target list are integers: ``object_id`` is int64 then, else a string.
    facts : mapping
        What is known of the run, in JSON types: ``created`` (ISO time, required), ``run_id``, ``config_hash``,
        ``weights_sha256``, ``software`` (name to version), ``inputs`` (list of ``{"title", "href"}``), ``snapshots``
        (store, such as ``sky/legacy``, to snapshot; each gets the product's name as a tag), ``license``,
        ``description``. Of these ``config_hash``, ``weights_sha256``, ``software`` and ``license`` decide the
        product's id, with every value of the rows but the seconds they took.

    Returns
    -------
    Receipt
        ``state`` is ``"present"`` where the same rows were published before, on whatever day.

    Raises
    ------
    SchemaMismatch
        Where a batch has another schema, or an id is no integer that should be.
    """
    rows = ProfileRows(batches, integer_ids)
    content = {name: facts.get(name) for name in ("config_hash", "weights_sha256", "software", "license")}
    content |= {"rows": rows.known.digest, "integer_ids": integer_ids}
    key = _key_of(warehouse, collection, str(facts["created"])[:10], content)
    described = {"title": title, **facts}

    def stage(folder: Path) -> dict[str, Any]:
        return _stage(folder, rows, key, described)

    receipt = publish(warehouse, key, stage, collection=_describe_collection(key, described))
    # the states that were read stay when old ones are swept
    for path, snapshot in receipt.item["properties"]["canopus:snapshots"].items():
        tag_snapshot(warehouse / path, snapshot, receipt.key.item_id)
    return receipt


def summarise_profiles(table: pa.Table) -> dict[str, Any]:
    """Return what became of the rows, in JSON types.

    Parameters
    ----------
    table : Table
        With the columns `tasks.sky.profile_rows.NARROW` of every row.

    Returns
    -------
    dict
        ``rows``, ``objects``, ``rows_without_position``; counts by ``states``, ``reasons`` (of what was not measured),
        ``methods`` and ``bands``; ``medians`` of what was measured, by band, with the number of rows that have a value.
    """
    measured = table.filter(pc.equal(table["state"], "measured"))
    lost = table.filter(pc.not_equal(table["state"], "measured"))
    return {
        "rows": table.num_rows,
        "objects": len(pc.unique(table["object_id"])),
        "rows_without_position": table.num_rows - int(pc.sum(has_position(table)).as_py() or 0),
        "states": _counts(table, "state"),
        "reasons": _counts(lost, "reason"),
        "methods": _counts(measured, "method"),
        "bands": _counts(table, "band"),
        "medians": {
            band: _medians(measured.filter(pc.equal(measured["band"], band))) for band in _counts(measured, "band")
        },
    }


def _counts(table: pa.Table, name: str) -> dict[str, int]:
    return dict(sorted(Counter(table[name].to_pylist()).items()))


def _medians(table: pa.Table) -> dict[str, dict[str, float | int]]:
    known = {name: table[name].drop_null().to_numpy() for name in MEDIANS}
    return {
        name: {"median": float(np.median(values)), "rows": len(values)} for name, values in known.items() if len(values)
    }


def _key_of(warehouse: Location, collection: str, date: str, content: Mapping[str, Any]) -> ProductKey:
    """Return the key of a product, that of an earlier day where the same content was published then."""
    made = product_id(collection, date, content)
    digest = made[-_DIGITS:]
    folder = warehouse / "products" / collection
    known = [
        name for name in folder.list_folders() if name.endswith(f"-{digest}") and folder.exists(f"{name}/{name}.json")
    ]
    return ProductKey(collection, known[0] if known else made)


def _stage(folder: Path, rows: ProfileRows, key: ProductKey, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Write all files of a product and return its item."""
    words, widths = _words(key, facts), rows.known.widths
    summary = summarise_profiles(rows.known.narrow)
    placed = write_hats(folder / HATS, rows, name=key.item_id, properties=_hats_properties(key, facts))
    write_parquet(folder / "profiles.parquet", rows, words)
    write_fits(folder / "profiles.fits", rows, words, widths=widths)
    write_votable(folder / "profiles.vot", rows, words, widths=widths)
    (folder / SUMMARY).write_text(json.dumps(summary, indent=2, sort_keys=True) + "\n")
    return _describe_item(rows, key, facts, summary, has_hats=placed > 0)


def _words(key: ProductKey, facts: Mapping[str, Any]) -> dict[str, str]:
    """Return the provenance that every file carries, as texts."""
    names = ("title", "description", "license", "created", "run_id", "config_hash", "weights_sha256")
    words = {name: str(facts[name]) for name in names if facts.get(name)}
    words["product"] = key.item_id
    words |= {f"software_{_plain(name)}": str(version) for name, version in sorted(facts.get("software", {}).items())}
    words |= {f"snapshot_{_plain(name)}": str(held) for name, held in sorted(facts.get("snapshots", {}).items())}
    return words


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "_", name)


def _hats_properties(key: ProductKey, facts: Mapping[str, Any]) -> dict[str, str]:
    """Return provenance under the names of the HATS note."""
    from importlib.metadata import version

    software = ", ".join(f"{name} {held}" for name, held in sorted(facts.get("software", {}).items())) or "canopus"
    found = {
        "hats_builder": f"{software}, hats v{version('hats')}",
        "hats_creation_date": str(facts["created"])[:16],
        "hats_creator": "canopus",
        "obs_title": str(facts["title"]),
        "obs_description": str(facts.get("description", "")),
        "obs_ack": str(facts.get("license", "")),
        "prov_progenitor": " ".join(entry["href"] for entry in facts.get("inputs", ())),
        "canopus_product": key.item_id,
        "canopus_run_id": str(facts.get("run_id", "")),
        "canopus_config_hash": str(facts.get("config_hash", "")),
        "canopus_weights_sha256": str(facts.get("weights_sha256", "")),
    }
    return {name: value for name, value in found.items() if value}


def _describe_item(
    rows: ProfileRows, key: ProductKey, facts: Mapping[str, Any], summary: Mapping[str, Any], *, has_hats: bool
) -> dict[str, Any]:
    table = rows.known.narrow
    box = _sky_box(table)
    west, south, east, north = box
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    stamp = f"{str(facts['created'])[:19]}Z"
    return {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": [TABLE_EXTENSION, PROCESSING_EXTENSION],
        "id": key.item_id,
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": box,
        "properties": {
            "title": facts["title"],
            "datetime": stamp,
            "created": stamp,
            "license": facts.get("license", "other"),
            "processing:software": dict(facts.get("software", {})),
            "canopus:frame": "ICRS: geometry and bbox are right ascension (-180 to 180) and declination in degrees",
            "canopus:run_id": facts.get("run_id", ""),
            "canopus:config_hash": facts.get("config_hash", ""),
            "canopus:weights_sha256": facts.get("weights_sha256", ""),
            "canopus:snapshots": dict(facts.get("snapshots", {})),
            "canopus:summary": dict(summary),
            "table:row_count": table.num_rows,
            "table:columns": [
                {
                    "name": column.name,
                    "type": _type_of(column, table),
                    "description": _meaning(column),
                }
                for column in COLUMNS
            ],
        },
        "links": [{"rel": "derived_from", **entry} for entry in facts.get("inputs", ())],
        "assets": _assets(has_hats=has_hats),
    }


def _type_of(column: Column, table: pa.Table) -> str:
    """Return the type of a column in the files: ids are as they were published."""
    return str(table.schema.field("object_id").type if column.name == "object_id" else column.type)


def _meaning(column: Column) -> str:
    unit = f" [{column.unit}]" if column.unit else ""
    return f"{column.meaning}{unit} ({column.ucd})"


def _assets(*, has_hats: bool) -> dict[str, Any]:
    catalogue = {
        "href": f"./{HATS}",
        "type": PARQUET_TYPE,
        "title": "HATS catalogue: rows with a position",
        "roles": ["data"],
    }
    assets = {
        "parquet": {"href": "./profiles.parquet", "type": PARQUET_TYPE, "title": "Every row", "roles": ["data"]},
        "fits": {
            "href": "./profiles.fits",
            "type": "application/fits",
            "title": "Every row, padded",
            "roles": ["data"],
        },
        "votable": {
            "href": "./profiles.vot",
            "type": "application/x-votable+xml",
            "title": "Every row, padded",
            "roles": ["data"],
        },
        "summary": {
            "href": f"./{SUMMARY}",
            "type": "application/json",
            "title": "Counts and medians",
            "roles": ["metadata"],
        },
    }
    return ({HATS: catalogue} if has_hats else {}) | assets


def _sky_box(table: pa.Table) -> list[float]:
    """Return (west, south, east, north) of all positions, right ascension as -180 to 180; the sky where there is none."""
    placed = table.filter(has_position(table))
    if not placed.num_rows:
        return [-180.0, -90.0, 180.0, 90.0]
    ra, dec = placed["ra"].to_numpy(), placed["dec"].to_numpy()
    ra = (ra + 180.0) % 360.0 - 180.0
    return [float(ra.min()), float(dec.min()), float(ra.max()), float(dec.max())]


def _describe_collection(key: ProductKey, facts: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "Collection",
        "stac_version": STAC_VERSION,
        "stac_extensions": [],
        "id": key.collection,
        "title": "Surface-brightness profiles of galaxies",
        "description": "One row per object and band: profile, geometry, sizes and magnitudes, whatever became of it.",
        "keywords": ["galaxies", "surface brightness", "photometry"],
        "license": "other",
        "providers": [{"name": "Canopus", "roles": ["processor"]}],
        "item_assets": {
            name: {field: value for field, value in asset.items() if field != "href"}
            for name, asset in _assets(has_hats=True).items()
        },
    }
