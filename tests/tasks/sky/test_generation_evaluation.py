"""Sets scored against each other: floors, dropped objects, memory, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from generation_cases import corrupted, drawn

from storage.location import resolve
from tasks.errors import ConfigurationError
from tasks.sky.generation_evaluation import (
    GenerationRequest,
    evaluate_generation,
    score_sets,
)
from tasks.sky.generation_features import open_features
from tasks.sky.generation_scores import Scored, describe_generation
from tasks.sky.generation_sets import GalaxySet

COUNT = 60


def scored(generated: GalaxySet, *, with_features: bool = True, **options: object) -> Scored:
    network = open_features(resolve(Path("nowhere"))) if with_features else None
    return score_sets(generated, drawn(2 * COUNT, 41), network=network, resamples=10, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def honest() -> dict[str, Any]:
    """Return the scores of galaxies of the same prior."""
    return scored(drawn(COUNT, 42), train=drawn(COUNT, 43)).report


def test_galaxies_of_the_same_prior_lie_at_the_floor(honest: dict[str, Any]) -> None:
    assert honest["n"] == COUNT
    assert set(honest["metrics"]) >= {"sgd", "sgd_half_light", "fid", "kid", "classifier", "spectrum", "noise"}
    assert honest["metrics"]["sgd"]["ratio"] < 2.0
    assert honest["metrics"]["classifier"]["value"] < 0.7
    for metric in honest["metrics"].values():
        assert metric["low"] <= metric["value"] <= metric["high"]
        assert 0 <= metric["dropped"] < 0.05
    assert honest["memorisation"]["memorised"] is False
    json.dumps(honest, allow_nan=False)


@pytest.mark.slow
def test_spoilt_galaxies_lie_above_the_floor(honest: dict[str, Any]) -> None:
    spoilt = scored(corrupted(drawn(COUNT, 42), "noise", 6.0)).report
    assert set(honest["metrics"]) == set(spoilt["metrics"])
    assert spoilt["metrics"]["noise"]["ratio"] > 5 > honest["metrics"]["noise"]["ratio"]
    assert spoilt["metrics"]["classifier"]["value"] > 0.9


def test_an_fid_of_few_images_is_never_given_without_saying_so(honest: dict[str, Any]) -> None:
    assert honest["metrics"]["fid"]["quotable"] is False
    assert honest["metrics"]["fid"]["extrapolated"] is None
    assert "FID of 60 images: below 2,000 it is mostly bias" in describe_generation(honest)


def test_copies_of_the_training_set_are_called_memorised() -> None:
    train = drawn(COUNT, 43)
    noise = np.random.default_rng(1).normal(0, 0.003, train.images.shape).astype(np.float32)
    copies = replace(train, images=np.ascontiguousarray((train.images + noise)[..., ::-1]))
    found = scored(copies, train=train, with_features=False)
    assert found.report["memorisation"]["memorised"] is True
    assert found.report["memorisation"]["share"] > 0.95
    assert found.nearest is not None
    assert (found.nearest == np.arange(COUNT)).all()
    assert "memorised" in describe_generation(found.report)


@pytest.mark.slow
def test_objects_that_cannot_be_measured_are_counted() -> None:
    images = drawn(COUNT, 42).images.copy()
    images[:6] = np.abs(images[:6]).max() - images[:6]
    report = scored(replace(drawn(COUNT, 42), images=images), with_features=False).report
    assert report["metrics"]["sgd"]["dropped"] == pytest.approx(0.1)
    assert report["metrics"]["sgd"]["floor_dropped"] == 0


def test_what_makes_no_sense_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="20 generated and 120 real galaxies: at least 50 and 100"):
        scored(drawn(COUNT, 42)[:20])
    with pytest.raises(ConfigurationError, match="compare like with like"):
        scored(GalaxySet(drawn(COUNT, 42).images, ("g", "r", "i"), 0.524, "other bands"))
    request = GenerationRequest(str(tmp_path), "model", "store", "store")
    with pytest.raises(ConfigurationError, match="held out of training"):
        evaluate_generation(request, lambda *_: drawn(COUNT, 42))
    with pytest.raises(ConfigurationError, match="--count 3: at least 50"):
        evaluate_generation(replace(request, count=3), lambda *_: drawn(COUNT, 42))


@pytest.mark.slow
def test_images_that_no_network_knows_are_scored_without_fid() -> None:
    generated, real = (replace(drawn(count, seed), pixel_scale_arcsec=0.4) for count, seed in ((COUNT, 42), (120, 41)))
    report = score_sets(generated, real, network=open_features(resolve(Path("nowhere"))), resamples=5).report
    assert "fid" not in report["metrics"]
    assert any("no FID and no KID" in note for note in report["notes"])
