"""The last steps of a map: checked, published, reported. No Prefect here."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import numpy as np
import zarr

from storage.classes import NO_CLASS, LandClass
from storage.export import ArrayLike, blocks
from storage.publish import Receipt
from storage.regions import region_key
from tasks.earth.accuracy import estimate_from_sample, references_of, stratum_sizes_of
from tasks.earth.canopy_map import MapJob
from tasks.earth.gates import Check, Checked, GateRules, check_map, count_map
from tasks.earth.last_map import find_last
from tasks.earth.product import Sources, open_staged
from tasks.earth.regional import Prepared, publish_prepared
from tasks.earth.sample import pixels_of, read_sample

_BLOCK = 1024


def check_prepared(prepared: Prepared, rules: GateRules, *, sample: str | None = None) -> Checked:
    """Check a map whose regions are filled, and write what was found into the run's log; one that is there stays as it is.

    Parameters
    ----------
    prepared : Prepared
        Of a `MapJob`.
    rules : GateRules
        Limits.
    sample : str, optional
        A labelled probability sample of the area, drawn from this map or from an earlier one: areas are estimated from it.

    Raises
    ------
    ConfigurationError
        Where the sample cannot be used.
    """
    checked = _check(prepared, rules)
    if sample is None or checked.facts is None:
        return checked
    return replace(checked, estimates=_estimate(prepared, sample))


def _check(prepared: Prepared, rules: GateRules) -> Checked:
    job = _map_job(prepared)
    values = [land.value for land in job.spec.classes]
    last = find_last(prepared.root, job.product, classes=values)
    if prepared.present is not None:
        facts = count_map(_layers(prepared), job.spec.classes, last=last)
        properties = prepared.present.item["properties"]
        checks = tuple(Check(**check) for check in properties.get("canopus:checks", ()))
        return Checked(job.product.key, checks, facts, properties.get("canopus:seam_score", {}), last)
    earlier = find_last(prepared.root, job.product, classes=values, same_day=False)
    checked = check_map(
        job.plan,
        job.product,
        job.spec.classes,
        staging=prepared.staging,
        rules=rules,
        last=last,
        earlier=earlier,
    )
    prepared.run.append_log(*({"event": "checked", **asdict(check)} for check in checked.checks))
    if checked.failed:
        rows = ({"region": region_key(region), "state": "held back"} for region in job.plan.regions)
        prepared.run.write_regions(rows)
    return checked


def publish_checked(prepared: Prepared, checked: Checked) -> Receipt:
    """Publish a map that passed its checks; what is staged of one that did not stays for another run.

    Raises
    ------
    ChecksFailed
        Naming the checks that hold it back; nothing is published then.
    """
    if prepared.present is None:
        checked.require()
    return publish_prepared(prepared, checked.properties | {"canopus:model": _map_job(prepared).model})


def classes_of(prepared: Prepared) -> tuple[LandClass, ...]:
    """Return the classes of a map, in the order of its probabilities."""
    return _map_job(prepared).spec.classes


def _map_job(prepared: Prepared) -> MapJob:
    assert isinstance(prepared.job, MapJob)
    return prepared.job


def _layers(prepared: Prepared) -> Sources:
    """Return the layers of a map, staged or published."""
    product = prepared.job.product
    if prepared.present is None:
        return open_staged(product, prepared.staging)
    store = (product.key.folder(prepared.root) / product.zarr).zarr_store(read_only=True)
    level: Any = zarr.open_group(store, mode="r")["0"]
    return {layer.name: level[layer.name] for layer in product.layers}


def _estimate(prepared: Prepared, sample: str) -> dict[str, Any]:
    """Return areas and accuracy from a labelled sample, each point with its class on this map."""
    points, classes = read_sample(sample), classes_of(prepared)
    geobox = prepared.job.product.geobox
    names = {land.value: land.name for land in classes}
    values = _values_at(_layers(prepared)["class"], *pixels_of(points, geobox))
    mapped = np.array([names.get(int(value), "") for value in values], dtype=object)
    # a point that the map has no class for says nothing of it
    reference = np.where(mapped == "", "", references_of(points))
    known = points.assign(map_class=np.where(mapped == "", points["map_class"], mapped), reference=reference)
    pixels = sum(stratum_sizes_of(points).values())
    hectares = pixels * abs(float(geobox.affine.a * geobox.affine.e)) / 10_000
    found = estimate_from_sample(known, [land.name for land in classes])
    return {"sample": sample, **found.to_dict(total_hectares=hectares)}


def _values_at(source: ArrayLike, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return values at some pixels, read block by block; `NO_CLASS` beyond the map."""
    values = np.full(rows.shape, NO_CLASS, dtype=np.uint8)
    for y, x in blocks((source.shape[0], source.shape[1]), _BLOCK):
        here = (rows >= y.start) & (rows < y.stop) & (columns >= x.start) & (columns < x.stop)
        if here.any():
            values[here] = np.asarray(source[y, x])[rows[here] - y.start, columns[here] - x.start]
    return values
