"""How good a published map is: against labels on its own grid, or from a probability sample."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from odc.geo.geobox import GeoBox

from storage.classes import CANOPY_OR_NOT, NO_CLASS, LandClass
from storage.publish import local_copy, locate_product
from tasks.earth.accuracy import NOT_ESTIMATED, AccuracyEstimates, Estimate, estimate_from_sample, mapped_areas
from tasks.earth.labels import LabelRules, open_labels
from tasks.earth.sample import Allocation, draw_sample, read_sample, write_sample
from tasks.earth.scores import class_scores, has_kinds, kinds_together
from tasks.errors import ConfigurationError


@dataclass(frozen=True)
class PublishedMap:
    """A published map, opened.

    Parameters
    ----------
    item : dict
        Its STAC item.
    classes : tuple of LandClass
        In the order of the probabilities.
    geobox : GeoBox
        Its grid.
    values : ndarray, shape (y, x), uint8
        Class values, `NO_CLASS` where there is none.
    folder : Path
        Where its files can be read for as long as it is open.
    """

    item: dict[str, Any]
    classes: tuple[LandClass, ...]
    geobox: GeoBox
    values: np.ndarray
    folder: Path

    def probability(self, index: int) -> np.ndarray:
        """Return the probability of one class, 0-1, NaN where there is none: (y, x) float32."""
        with rasterio.open(self.folder / "probability.tif") as source:
            stored = source.read(index + 1)
            return np.where(stored == source.nodata, np.nan, stored * source.scales[index]).astype(np.float32)

    @property
    def hectares(self) -> float:
        """Return the area that has a class."""
        pixels = sum(int((self.values == known.value).sum()) for known in self.classes)
        return pixels * float(abs(self.geobox.affine.a * self.geobox.affine.e)) / 1e4

    def areas(self) -> dict[str, Any]:
        """Return mapped areas per class, as such."""
        counts = {known.name: int((self.values == known.value).sum()) for known in self.classes}
        return mapped_areas(counts, pixel_area_m2=float(abs(self.geobox.affine.a * self.geobox.affine.e)))


@dataclass(frozen=True)
class MapReport:
    """Scores of a map, as data and in words."""

    scores: dict[str, Any]
    text: str


@contextmanager
def open_map(where: str) -> Iterator[PublishedMap]:
    """Open a published map by the path or URL of its folder or item.

    Raises
    ------
    NotFound
        Where nothing is published there.
    """
    folder, item_id = locate_product(where)
    item = json.loads(folder.read_bytes(f"{item_id}.json"))
    with local_copy(folder, ["class.tif", "probability.tif"]) as path, rasterio.open(path / "class.tif") as source:
        geobox = GeoBox(source.shape, source.transform, source.crs.to_string())
        yield PublishedMap(item, _classes(item), geobox, source.read(1), path)


def sample_map(where: str, out: Path, *, size: int, at_least: int, seed: int) -> list[str]:
    """Draw a stratified random sample of a map and write it; return what was drawn, in words."""
    with open_map(where) as found:
        drawn = draw_sample(
            found.values,
            found.geobox,
            classes=found.classes,
            allocation=Allocation(size, rule="proportional", minimum=at_least),
            seed=seed,
        )
    write_sample(drawn, out)
    counts = drawn["stratum"].value_counts().to_dict()
    return [
        f"{out}: {len(drawn)} points ({', '.join(f'{count} {name}' for name, count in counts.items())})",
        "  fill in `reference` with a class name for each point, then: canopus evaluate PRODUCT --sample " + str(out),
    ]


def score_map(
    where: str, *, labels: str | None = None, rules: LabelRules | None = None, sample: Path | None = None
) -> MapReport:
    """Score a map against labels, a probability sample, or both.

    Parameters
    ----------
    where : str
        Path or URL of the map's folder or item.
    labels : str, optional
        Polygons or a raster.
    rules : LabelRules, optional
        How to read them; by default what lies outside every polygon is the class ``none``, and boundaries count.
    sample : Path, optional
        A labelled sample as `sample_map` writes it.

    Raises
    ------
    ConfigurationError
        Where neither is given, or they do not fit the map.
    """
    if labels is None and sample is None:
        raise ConfigurationError("name held-out labels with --labels, or a labelled sample with --sample")
    with open_map(where) as found:
        scores: dict[str, Any] = {"item": found.item["id"], "mapped_areas": found.areas()}
        lines = [f"{found.item['id']}"]
        if labels is not None:
            against = _against_labels(found, labels, rules or LabelRules(outside="none", margin=0))
            scores |= against
            lines += _words_of_labels(against)
        if sample is not None:
            estimates = estimate_from_sample(read_sample(sample), [known.name for known in found.classes])
            scores["estimates"] = _plain(estimates)
            lines += words_of_estimates(estimates, total_hectares=found.hectares)
        else:
            lines += [
                f"mapped {name:<14} {area:,.1f} ha" for name, area in scores["mapped_areas"]["mapped_hectares"].items()
            ]
            lines.append(NOT_ESTIMATED)
    return MapReport(scores, "\n".join(lines))


def _classes(item: dict[str, Any]) -> tuple[LandClass, ...]:
    listed = item["assets"]["class"]["classification:classes"]
    return tuple(
        LandClass(entry["value"], entry["name"], entry["title"], f"#{entry['color_hint'].lower()}")
        for entry in listed
        if entry["value"] != NO_CLASS
    )


def _against_labels(found: PublishedMap, labels: str, rules: LabelRules) -> dict[str, Any]:
    together = rules.at_least is not None and has_kinds(found.classes)
    classes = CANOPY_OR_NOT if together else found.classes
    source = open_labels(labels, classes, rules)
    source.require_overlap([found.geobox])
    reference = source.on(found.geobox)
    known = (reference != NO_CLASS) & (found.values != NO_CLASS)
    mapped, probability = (
        found.values[known],
        np.stack([found.probability(k)[known] for k in range(len(found.classes))]),
    )
    if together:
        mapped, probability = kinds_together(mapped, probability, found.classes)
    scores = class_scores(probability.T, reference[known], classes=classes, mapped=mapped)
    names = [land_class.name for land_class in classes]
    return {
        "labels": labels,
        "pixels": int(known.sum()),
        **scores,
        "confusion": {"rows": "map", "columns": "reference", "classes": names, "counts": scores["confusion"]["matrix"]},
    }


def _words_of_labels(scores: dict[str, Any]) -> list[str]:
    lines = [
        f"against {scores['labels']}: {scores['pixels']} pixels",
        "class          ROC-AUC  PR-AUC   prevalence  F1",
    ]
    for name, found in (scores["classes"] | {name: scores[name] for name in ("canopy",) if name in scores}).items():
        numbers = [_number(found[key]) for key in ("roc_auc", "pr_auc", "prevalence", "f1")]
        lines.append(f"{name:<14} {numbers[0]}   {numbers[1]}   {numbers[2]}      {numbers[3]}")
    lines.append("confusion, map in rows, reference in columns: " + ", ".join(scores["confusion"]["classes"]))
    lines += ["  " + "  ".join(f"{int(count):>8}" for count in row) for row in scores["confusion"]["counts"]]
    return lines


def words_of_estimates(estimates: AccuracyEstimates, *, total_hectares: float) -> list[str]:
    """Return accuracy and areas with their intervals, a line each."""
    lines = [f"{estimates.method}; overall accuracy {_interval(estimates.overall)}"]
    lines.append("class          user's accuracy        producer's accuracy    area, ha")
    rows = zip(estimates.classes, estimates.users, estimates.producers, estimates.area_share, strict=True)
    for name, users, producers, share in rows:
        area = f"{share.value * total_hectares:,.1f} ({share.low * total_hectares:,.1f} to {share.high * total_hectares:,.1f})"
        lines.append(f"{name:<14} {_interval(users):<22} {_interval(producers):<22} {area}")
    return [*lines, *estimates.notes]


def _interval(estimate: Estimate) -> str:
    return f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"


def _number(value: float | None) -> str:
    return "   -  " if value is None else f"{value:.4f}"


def _plain(estimates: AccuracyEstimates) -> dict[str, Any]:
    return {**asdict(estimates), "matrix": estimates.matrix.tolist()}
