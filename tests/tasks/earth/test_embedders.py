"""Embedders: each pixel's vector is that of its own valid looks, by both kinds of EarthPT."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from models.earthpt import EarthPT, EarthPTConfig, to_channels
from models.earthpt_published import PublishedEarthPT, PublishedEarthPTConfig
from models.indices import BANDS
from models.tokens import Tokens, to_days
from tasks.earth.embedders import embedder_of
from tasks.earth.model_files import LoadedNetwork
from tasks.earth.model_folders import ModelReference
from tasks.errors import ConfigurationError

LOOKS, PIXELS = 20, 5
DATES = np.datetime64("2021-01-03") + 10 * np.arange(LOOKS)


def loaded(model: nn.Module, kind: str) -> LoadedNetwork:
    return LoadedNetwork(ModelReference("m", "0" * 12, "memory://m", "0" * 64), model.eval(), kind, {}, {}, {})


def default() -> EarthPT:
    return EarthPT(EarthPTConfig(layers=2, heads=2, width=16), generator=torch.Generator().manual_seed(1))


def published() -> PublishedEarthPT:
    config = PublishedEarthPTConfig(layers=2, heads=2, width=16, block_size=32)
    return PublishedEarthPT(config, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def looks() -> tuple[np.ndarray, np.ndarray]:
    """Reflectance (time, 10, pixel) and valid looks; the last pixel has none."""
    rng = np.random.default_rng(2)
    reflectance = rng.uniform(0.01, 0.5, (LOOKS, 10, PIXELS)).astype(np.float32)
    valid = rng.random((LOOKS, PIXELS)) < 0.6
    valid[:, -1] = False
    return reflectance, valid


def own_tokens(reflectance: np.ndarray, valid: np.ndarray, pixel: int) -> Tokens:
    """Return one pixel's valid looks, each with the day of the next."""
    kept = valid[:, pixel]
    values = torch.from_numpy(reflectance[kept, :, pixel] * 20 - 1)[None]
    day = to_days(DATES[kept])[None]
    told = torch.stack([day, torch.cat([day[:, 1:], day[:, -1:]], dim=1)], dim=-1)
    return Tokens(values, told, torch.ones_like(day, dtype=torch.bool))


@pytest.mark.parametrize("kind", ["earthpt", "earthpt-published"])
def test_each_vector_is_that_of_the_pixel_s_own_valid_looks(looks: tuple[np.ndarray, np.ndarray], kind: str) -> None:
    reflectance, valid = looks
    model: Any = default() if kind == "earthpt" else published()
    found = embedder_of(loaded(model, kind)).embed(reflectance, valid, DATES, bands=BANDS)
    assert found.shape == (PIXELS, 16)
    assert np.isnan(found[-1]).all()
    for pixel in range(PIXELS - 1):
        tokens = own_tokens(reflectance, valid, pixel)
        with torch.inference_mode():
            if kind == "earthpt":
                expected = model.embed(to_channels(tokens.values), tokens.position[..., 0], tokens.valid)
            else:
                expected = model.embedding(tokens)
        np.testing.assert_allclose(found[pixel], expected[0].numpy(), atol=2e-6)


def test_what_looks_that_are_not_valid_hold_does_not_matter(looks: tuple[np.ndarray, np.ndarray]) -> None:
    reflectance, valid = looks
    embedder = embedder_of(loaded(default(), "earthpt"))
    changed = np.where(valid[:, None], reflectance, np.float32(7.0))
    np.testing.assert_array_equal(
        embedder.embed(changed, valid, DATES, bands=BANDS)[:-1],
        embedder.embed(reflectance, valid, DATES, bands=BANDS)[:-1],
    )


def test_the_default_takes_some_bands_and_the_published_wants_all_ten(looks: tuple[np.ndarray, np.ndarray]) -> None:
    reflectance, valid = looks
    four = tuple(band for band in BANDS if band in ("B02", "B03", "B04", "B08"))
    some = reflectance[:, [BANDS.index(band) for band in four]]
    found = embedder_of(loaded(default(), "earthpt")).embed(some, valid, DATES, bands=four)
    assert np.isfinite(found[:-1]).all()
    with pytest.raises(ConfigurationError, match="needs B05"):
        embedder_of(loaded(published(), "earthpt-published")).embed(some, valid, DATES, bands=four)


def test_a_network_of_another_kind_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="embeds no series"):
        embedder_of(loaded(nn.Linear(2, 2), "linear"))


@pytest.mark.parametrize(("make", "kind"), [(default, "earthpt"), (published, "published-earthpt")])
def test_looks_are_embedded_on_the_device_of_the_model(
    make: Callable[[], nn.Module], kind: str, looks: tuple[np.ndarray, np.ndarray]
) -> None:
    away = embedder_of(loaded(make(), kind).to(torch.device("meta")))
    # a tensor of the meta device holds nothing: all goes there, and only the way back cannot be gone
    with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):
        away.embed(*looks, DATES, bands=BANDS)
