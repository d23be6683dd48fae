"""New galaxies in a sky store: their own seeds, one commit a batch, going on where it stopped, FITS files, clear refusals."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from astropy.io import fits
from galaxy_models import TINY, save_model

from storage.location import resolve
from storage.repository import open_repository
from storage.sky import SkyReader
from tasks.errors import ConfigurationError, UsageError
from tasks.sky.cutout_files import read_cutout
from tasks.sky.diffusion_jobs import SamplingRule
from tasks.sky.synthesis import (
    GenerateRequest,
    export_fits,
    find_or_start_run,
    finish_generation,
    make_batch,
    plan_generation,
    store_batch,
)

CONDITIONED = replace(TINY, conditions=("magnitude", "size"), condition_centre=(17.0, 0.5), condition_spread=(1.0, 0.3))


def request_of(warehouse: Path, **changes: object) -> GenerateRequest:
    weights = save_model(warehouse)
    made = GenerateRequest(resolve(warehouse).url, "synthetic", 5, weights, SamplingRule(steps=3), batch_size=2)
    return replace(made, **changes)  # type: ignore[arg-type]


def make(request: GenerateRequest, batches: int | None = None) -> None:
    model, _ = request.weights.open("cpu")
    plan, run = plan_generation(request, model.config), find_or_start_run(request, model.config)
    for indices in plan.batches[:batches]:
        store_batch(request, make_batch(model, request, indices), run=run, number=indices[0])


def test_galaxies_lie_in_the_store_with_seed_and_model_and_no_place_on_the_sky(tmp_path: Path) -> None:
    request = request_of(tmp_path)
    make(request)
    reader = SkyReader(request.location)
    assert len(reader.ids) == 5
    seen = set()
    for index in range(5):
        cutout = reader.read(request.object_id(index))
        assert (cutout.band_names, cutout.shape, cutout.flux_unit) == (("g", "r", "z"), (16, 16), "nanomaggies")
        assert (cutout.wcs, cutout.pixel_scale_arcsec) == ("", 0.524)
        assert math.isnan(cutout.ra)
        assert cutout.valid.all()
        assert np.isfinite(cutout.flux).all()
        assert f"seed {request.seed_of(index)}" in cutout.notes
        assert cutout.source.startswith(f"generated:{request.weights.model}?seed=")
        seen.add(cutout.flux.tobytes())
    assert len(seen) == 5


def test_a_batch_is_one_commit_and_work_goes_on_where_it_stopped(tmp_path: Path) -> None:
    whole, cut = (request_of(tmp_path / name) for name in ("whole", "cut"))
    make(whole)
    make(cut, batches=1)
    model, _ = cut.weights.open("cpu")
    plan = plan_generation(cut, model.config)
    assert (plan.held, plan.batches) == (2, ((2, 3), (4,)))
    first = plan.run
    make(cut)
    assert find_or_start_run(cut, model.config) == first
    assert plan_generation(cut, model.config).batches == ()
    readers = [SkyReader(request.location) for request in (whole, cut)]
    for index in range(5):
        name = whole.object_id(index)
        assert readers[0].read(name).flux.tobytes() == readers[1].read(name).flux.tobytes()
    # the repository's first state, and three batches
    assert sum(1 for _ in open_repository(cut.location).ancestry(branch="main")) == 4


def test_a_galaxy_is_its_seeds_whatever_batch_it_is_in(tmp_path: Path) -> None:
    request = request_of(tmp_path)
    model, _ = request.weights.open("cpu")
    together = make_batch(model, request, (0, 1, 2, 3))
    for index in (1, 3):
        (alone,) = make_batch(model, request, (index,))
        np.testing.assert_allclose(alone.flux, together[index].flux, rtol=1e-4, atol=1e-6)
    other = make_batch(model, replace(request, seed=1), (0,))[0]
    assert not np.allclose(other.flux, together[0].flux)


def test_more_galaxies_keep_those_that_are_there(tmp_path: Path) -> None:
    request = request_of(tmp_path)
    make(request)
    model, _ = request.weights.open("cpu")
    plan = plan_generation(replace(request, galaxies=8), model.config)
    assert (plan.held, plan.batches) == (5, ((5, 6), (7,)))
    assert plan_generation(replace(request, seed=3), model.config).held == 0
    assert plan_generation(replace(request, rule=SamplingRule(steps=4)), model.config).held == 0


def test_the_run_has_a_row_for_each_and_a_picture(tmp_path: Path) -> None:
    request = request_of(tmp_path)
    make(request)
    model, _ = request.weights.open("cpu")
    run = find_or_start_run(request, model.config)
    made = finish_generation(request, run, made=5)
    assert Path(made.gallery).read_bytes().startswith(b"\x89PNG")
    assert sorted(map(int, run.read_regions()["seed"])) == sorted(request.seed_of(index) for index in range(5))
    assert run.read_manifest()["request"]["weights"]["sha256"] == request.weights.sha256


def test_fits_files_have_the_pixels_the_scale_and_the_seed(tmp_path: Path) -> None:
    request = request_of(tmp_path, fits=str(tmp_path / "fits"))
    make(request)
    assert export_fits(request) == 5
    reader = SkyReader(request.location)
    for index in range(5):
        path = tmp_path / "fits" / f"{request.object_id(index)}.fits"
        again = read_cutout(path)
        assert again.flux.tobytes() == reader.read(request.object_id(index)).flux.tobytes()
        assert again.pixel_scale_arcsec == 0.524
        header = fits.getheader(path)
        assert (int(header["SEED"]), header["MODEL"]) == (request.seed_of(index), request.weights.model)
        assert "CTYPE1" not in header


def test_what_is_asked_for_reaches_the_model_and_the_notes(tmp_path: Path) -> None:
    weights = save_model(tmp_path, CONDITIONED, "asked")
    asked = {"magnitude": 16.0, "size": 0.8}
    request = request_of(tmp_path, weights=weights, asked=asked, galaxies=2)
    model, _ = weights.open("cpu")
    free, held = (make_batch(model, each, (0, 1)) for each in (replace(request, asked={}), request))
    assert held[0].notes[-1] == "asked: magnitude 16, size 0.8"
    assert free[0].notes[-1] == "asked: magnitude 17, size 0.5"
    assert not np.allclose(free[0].flux, held[0].flux)
    for wrong, message in (({"colour": 1.0}, "--ask colour"), ({"size": 1.0}, "wants magnitude too")):
        with pytest.raises(UsageError, match=message):
            plan_generation(replace(request, asked=wrong), model.config)


def test_what_cannot_be_made_says_why(tmp_path: Path) -> None:
    request = request_of(tmp_path)
    model, _ = request.weights.open("cpu")
    with pytest.raises(UsageError, match="has no conditions"):
        plan_generation(replace(request, rule=SamplingRule(guidance=2.0)), model.config)
    with pytest.raises(UsageError, match="0 galaxies"):
        plan_generation(replace(request, galaxies=0), model.config)
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))  # type: ignore[attr-defined]
    with pytest.raises(ConfigurationError, match="not finite"):
        make_batch(model, request, (0,))
