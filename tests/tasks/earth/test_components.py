"""Principal components: known directions are found, samples are seeded, blocks give what the whole gives."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.earth.components import Basis, Projected, draw_sample, fit_basis
from tasks.earth.layers import NO_VALUE


def drawn(seed: int = 0, pixels: int = 4000) -> np.ndarray:
    """Return vectors with standard deviations 4, 2, 1 and 0.1 along known directions: (pixel, 4)."""
    rng = np.random.default_rng(seed)
    turned, _ = np.linalg.qr(np.random.default_rng(9).normal(size=(4, 4)))
    return 3.0 + rng.normal(size=(pixels, 4)) * np.array([4.0, 2.0, 1.0, 0.1]) @ turned.T


def test_directions_of_a_known_spread_are_found() -> None:
    turned, _ = np.linalg.qr(np.random.default_rng(9).normal(size=(4, 4)))
    basis = fit_basis(drawn())
    for number in range(3):
        assert abs(basis.directions[number] @ turned[:, number]) > 0.99
    assert basis.unit == pytest.approx(4.0, rel=0.05)
    assert basis.explained == pytest.approx(np.array([16, 4, 1]) / 21.01, abs=0.02)


def test_components_are_centred_and_in_units_of_the_first() -> None:
    sample = drawn()
    found = fit_basis(sample).components(sample.T)
    np.testing.assert_allclose(found.mean(axis=1), 0.0, atol=1e-6)
    np.testing.assert_allclose(found.std(axis=1), [1.0, 0.5, 0.25], rtol=0.06)


def test_signs_do_not_depend_on_the_sample() -> None:
    one, other = fit_basis(drawn(0)), fit_basis(drawn(1))
    assert (np.sum(one.directions * other.directions, axis=1) > 0.99).all()


def test_a_basis_written_and_read_is_the_same() -> None:
    basis = fit_basis(drawn())
    again = Basis.from_json(basis.to_json())
    np.testing.assert_array_equal(again.directions, basis.directions)
    np.testing.assert_array_equal(again.mean, basis.mean)
    assert again.unit == basis.unit


def test_a_sample_is_seeded_and_leaves_out_what_is_not_there() -> None:
    embedding = np.random.default_rng(3).normal(size=(4, 300, 280)).astype(np.float16)
    embedding[:, :290] = np.nan
    sample = draw_sample(embedding, pixels=1000, seed=1)
    np.testing.assert_array_equal(sample, draw_sample(embedding, pixels=1000, seed=1))
    assert not np.array_equal(sample, draw_sample(embedding, pixels=1000, seed=2))
    assert np.isfinite(sample).all()
    assert len(sample) == 2 * 250 - (250 - 10 * 24)  # blocks of 10 x 256 and 10 x 24 pixels; two more hold nothing


def test_windows_give_what_the_whole_gives() -> None:
    embedding = drawn(5, 300 * 280).T.reshape(4, 300, 280).astype(np.float32)
    embedding[:, 7, 8] = np.nan
    made = Projected(embedding, fit_basis(drawn()))
    whole = made[slice(0, 300), slice(0, 280)]
    assert whole.shape == (3, 300, 280)
    assert (whole[:, 7, 8] == NO_VALUE).all()
    np.testing.assert_array_equal(made[slice(None), slice(5, 270), slice(100, 280)], whole[:, 5:270, 100:280])


def test_an_embedding_without_spread_or_pixels_has_a_basis_all_the_same() -> None:
    for sample in (np.ones((5, 4)), np.empty((0, 4))):
        basis = fit_basis(sample)
        assert np.isfinite(basis.components(np.ones((4, 2)))).all()
        assert (basis.explained == 0).all()
