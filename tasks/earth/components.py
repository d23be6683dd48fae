"""Principal components of an embedding: fitted on a seeded sample of pixels, kept as a small basis, applied by block."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from storage.export import ArrayLike, blocks
from tasks.earth.layers import COMPONENT_SCALE, to_stored

COMPONENTS = 3
SAMPLE_PIXELS = 50_000
_BLOCK = 256


@dataclass(frozen=True)
class Basis:
    """Mean and directions of an embedding.

    Parameters
    ----------
    mean : ndarray, shape (feature,), float64
    directions : ndarray, shape (component, feature), float64
        Orthonormal, by falling variance; the largest weight of each is positive.
    unit : float
        Standard deviation along the first: components are given in it.
    explained : ndarray, shape (component,)
        Share of the variance of the sample.
    """

    mean: np.ndarray
    directions: np.ndarray
    unit: float
    explained: np.ndarray

    def components(self, embedding: np.ndarray) -> np.ndarray:
        """Return the components of an embedding, (feature, ...) -> (component, ...) float32; NaN stays NaN."""
        centred = embedding.astype(np.float64) - self.mean.reshape(-1, *[1] * (embedding.ndim - 1))
        return np.asarray(np.tensordot(self.directions, centred, axes=1) / self.unit, dtype=np.float32)

    def to_json(self) -> dict[str, Any]:
        """Return the basis in JSON types."""
        return {
            "formula": "components = directions @ (embedding - mean) / unit",
            "mean": self.mean.tolist(),
            "directions": self.directions.tolist(),
            "unit": self.unit,
            "explained_variance": self.explained.tolist(),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Basis:
        """Return what `to_json` made."""
        found = (np.array(content[name], dtype=np.float64) for name in ("mean", "directions", "explained_variance"))
        mean, directions, explained = found
        return cls(mean, directions, float(content["unit"]), explained)


def fit_basis(sample: np.ndarray, *, count: int = COMPONENTS) -> Basis:
    """Return the principal directions of a sample.

    Parameters
    ----------
    sample : ndarray, shape (pixel, feature)
        Without NaN.
    count : int
        Components.

    Examples
    --------
    >>> basis = fit_basis(np.array([[1.0, 0.0], [3.0, 0.0], [2.0, 0.1], [2.0, -0.1]]), count=1)
    >>> np.round(basis.directions, 6).tolist()
    [[1.0, 0.0]]
    """
    values = sample.astype(np.float64)
    mean = values.mean(axis=0) if len(values) else np.zeros(values.shape[1])
    centred = values - mean
    variance, vectors = np.linalg.eigh(centred.T @ centred / max(len(values), 1))
    order = np.argsort(variance)[::-1][:count]
    directions = vectors[:, order].T
    largest = np.take_along_axis(directions, np.abs(directions).argmax(axis=1)[:, None], axis=1)
    held = variance[order].clip(0.0)
    total = variance.clip(0.0).sum()
    return Basis(
        mean,
        directions * np.where(largest < 0, -1.0, 1.0),
        float(np.sqrt(held[0])) or 1.0,
        held / total if total > 0 else np.zeros(count),
    )


def draw_sample(embedding: ArrayLike, *, pixels: int = SAMPLE_PIXELS, seed: int = 0) -> np.ndarray:
    """Return the embedding of some pixels, equally many of every block; the same for the same seed.

    Parameters
    ----------
    embedding : ArrayLike, shape (feature, y, x)
        NaN where there is none; read block by block.
    pixels : int
        At most, as far as every block gives one.
    seed : int

    Returns
    -------
    ndarray, shape (pixel, feature), float32
    """
    windows = list(blocks(embedding.shape, _BLOCK))
    each = max(pixels // len(windows), 1)
    drawn = []
    for number, (y, x) in enumerate(windows):
        values = np.asarray(embedding[(slice(None), y, x)]).reshape(embedding.shape[0], -1)
        known = np.flatnonzero(np.isfinite(values).all(axis=0))
        chosen = np.random.default_rng((seed, number)).permutation(known)[:each]
        drawn.append(values[:, np.sort(chosen)].T.astype(np.float32))
    return np.concatenate(drawn)


@dataclass(frozen=True)
class Projected:
    """Components of a larger embedding as stored, computed when read.

    Parameters
    ----------
    embedding : ArrayLike, shape (feature, y, x)
    basis : Basis
    """

    embedding: ArrayLike
    basis: Basis

    @property
    def shape(self) -> tuple[int, ...]:
        """Return (component, y, x)."""
        return (len(self.basis.directions), *self.embedding.shape[-2:])

    @property
    def dtype(self) -> Any:
        """Return int16."""
        return np.dtype("int16")

    def __getitem__(self, key: Any) -> Any:
        """Return the stored components of a window: slices (y, x), after one of all components."""
        y, x = key[-2:]
        step = _BLOCK
        out = np.empty((self.shape[0], y.stop - y.start, x.stop - x.start), dtype=np.int16)
        for rows, columns in blocks(out.shape, step):
            window = (
                slice(y.start + rows.start, y.start + rows.stop),
                slice(x.start + columns.start, x.start + columns.stop),
            )
            found = self.basis.components(np.asarray(self.embedding[(slice(None), *window)]))
            out[:, rows, columns] = to_stored(found, COMPONENT_SCALE)
        return out
