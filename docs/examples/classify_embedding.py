"""Classes of your own from an embedding: a linear classifier beside one on seasonal means of the same looks.

    python docs/examples/classify_embedding.py PRODUCT LABELS WAREHOUSE

PRODUCT is an item of `canopus embed` whose area lies in one UTM zone, LABELS a raster of classes (0 to 254, 255 where
nothing is known).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import rasterio
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import wrap_xr, xr_reproject
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from storage import open_cube
from storage.publish import locate_product

TRAINING_PIXELS = 10_000
BLOCK = 20
"""Pixels a side of the squares that are kept together in training or in scoring: neighbours know of each other."""


def read_labels(path: Path, like: xr.Dataset) -> np.ndarray:
    """Return the classes on the grid of the embedding, (y, x), 255 where nothing is known."""
    with rasterio.open(path) as raster:
        grid = GeoBox(raster.shape, raster.transform, str(raster.crs))
        placed = wrap_xr(raster.read(1), grid, nodata=255)
    return np.asarray(xr_reproject(placed, like.odc.geobox, resampling="nearest", dst_nodata=255))


def seasonal_means(warehouse: str, snapshots: dict[str, str], like: xr.Dataset, until: str) -> np.ndarray:
    """Return the mean valid reflectance of each quarter of the year, bands x 4 features: (feature, y, x)."""
    whole = []
    for path, snapshot in snapshots.items():
        cube = open_cube(f"{warehouse}/{path}", snapshot).sel(time=slice(None, f"{until}T23:59:59"))
        y = slice(float(like.y[0]) + 5, float(like.y[-1]) - 5)
        x = slice(float(like.x[0]) - 5, float(like.x[-1]) + 5)
        part = cube.sel(y=y, x=x)
        clear = part["reflectance"].where(part["valid"])
        means = clear.groupby("time.quarter").mean("time").reindex(quarter=[1, 2, 3, 4]).load()
        whole.append(means.stack(feature=("quarter", "band")).reset_index("feature", drop=True))
    merged = xr.concat(whole, "cube").mean("cube").transpose("feature", "y", "x").reindex(y=like.y, x=like.x)
    filled = merged.fillna(merged.mean(("y", "x"))).fillna(0.0)
    return np.asarray(filled.values)


def score(features: np.ndarray, labels: np.ndarray, known: np.ndarray) -> dict[str, float]:
    """Return balanced accuracy and mean PR-AUC on squares that training has not seen.

    Parameters
    ----------
    features : ndarray, shape (feature, y, x)
    labels : ndarray, shape (y, x)
    known : ndarray, shape (y, x), bool
    """
    rows, columns = np.indices(labels.shape) // BLOCK
    test = (rows + columns) % 2 == 1
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500, class_weight="balanced"))
    chosen = np.flatnonzero(known & ~test)
    chosen = np.random.default_rng(0).permutation(chosen)[:TRAINING_PIXELS]
    model.fit(features.reshape(len(features), -1)[:, chosen].T, labels.reshape(-1)[chosen])
    probability = model.predict_proba(features[:, known & test].T)
    truth = labels[known & test]
    ranked = [
        average_precision_score(truth == value, probability[:, number])
        for number, value in enumerate(model.classes_)
        if (truth == value).any()
    ]
    answer = model.classes_[probability.argmax(axis=1)]
    return {"balanced accuracy": balanced_accuracy_score(truth, answer), "PR-AUC": float(np.mean(ranked))}


def compare(product: str, labels: Path, warehouse: str) -> dict[str, dict[str, float]]:
    """Return the scores of both."""
    folder, name = locate_product(product)
    item = json.loads(folder.read_bytes(f"{name}.json"))
    found = xr.open_zarr(str(folder / "embedding.zarr"), group="0", decode_coords="all").load()
    embedding = found["embedding"].values.astype(np.float32)
    classes = read_labels(labels, found)
    known = np.isfinite(embedding).all(axis=0) & (classes != 255)
    properties = item["properties"]
    until = properties["end_datetime"][:10]
    means = seasonal_means(warehouse, properties["canopus:snapshots"], found, until)
    return {"embedding": score(embedding, classes, known), "seasonal means": score(means, classes, known)}


def main() -> None:
    """Print the scores of both."""
    product, labels, warehouse = sys.argv[1:]
    for name, scores in compare(product, Path(labels), warehouse).items():
        sys.stdout.write(f"{name}: " + ", ".join(f"{key} {value:.3f}" for key, value in scores.items()) + "\n")


if __name__ == "__main__":
    main()
