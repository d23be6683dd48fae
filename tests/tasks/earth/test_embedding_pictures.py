"""The picture of an embedding: colours are the components, whatever their scale, and nothing is grey."""

from __future__ import annotations

import io

import numpy as np
import pytest
from affine import Affine
from odc.geo.geobox import GeoBox
from PIL import Image

from tasks.earth.embedding_pictures import draw_components, stretched

EXPLAINED = np.array([0.5, 0.3, 0.1])
WORDS = ("46.3° N 13.7° E; model m", "small print")


def draw(values: np.ndarray) -> bytes:
    geobox = GeoBox(values.shape[1:], Affine(10, 0, 399360, 0, -10, 5130240), "EPSG:32633")
    return draw_components(values, geobox, explained=EXPLAINED, title="Embedding", words=WORDS)


def test_colours_are_components_between_their_outer_points_whatever_their_scale() -> None:
    values = np.random.default_rng(0).normal(size=(3, 50, 60)).astype(np.float32)
    colours = stretched(values)
    assert colours.shape == (50, 60, 3)
    assert colours.min() == 0.0
    assert colours.max() == 1.0
    np.testing.assert_allclose(stretched(values * np.array([1.0, 9.0, 0.1])[:, None, None]), colours, atol=1e-5)
    order = np.argsort(values[1].ravel())
    assert (np.diff(colours[..., 1].ravel()[order]) >= 0).all()


def test_the_same_components_give_the_same_bytes_and_others_do_not() -> None:
    values = np.random.default_rng(1).normal(size=(3, 40, 40)).astype(np.float32)
    assert draw(values) == draw(values)
    assert draw(values) != draw(values[::-1])


@pytest.mark.parametrize("shape", [(30, 30), (40, 400), (400, 40)])
def test_any_shape_gives_a_picture_of_a_readable_size_with_or_without_values(shape: tuple[int, int]) -> None:
    values = np.full((3, *shape), np.nan, dtype=np.float32)
    picture = np.asarray(Image.open(io.BytesIO(draw(values))).convert("RGB"))
    assert 250 < picture.shape[0] < 1400
    assert 700 < picture.shape[1] < 1600
    assert (picture == (228, 228, 224)).all(axis=-1).sum() > 5000
