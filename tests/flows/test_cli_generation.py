"""The command that scores generated galaxies, from sky stores to a page; and what it refuses in one line."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from generation_cases import corrupted, drawn
from typer.testing import CliRunner

from flows.cli import app
from storage.cutouts import BandFacts, Cutout
from storage.location import resolve
from storage.sky import append_cutouts
from tasks.errors import ConfigurationError, UsageError
from tasks.sky.generation_sets import GalaxySet

RUNNER = CliRunner()


def store(warehouse: Path, name: str, galaxies: GalaxySet) -> None:
    nothing = np.zeros_like(galaxies.images[0])
    cutouts = [
        Cutout(
            object_id=f"{name}-{number}",
            ra=math.nan,
            dec=math.nan,
            bands=tuple(BandFacts(band) for band in galaxies.bands),
            flux=image,
            valid=np.ones(image.shape, dtype=bool),
            ivar=nothing,
            maskbits=nothing.astype(np.int32),
            segmentation=nothing[0].astype(np.int32),
            wcs="",
            pixel_scale_arcsec=galaxies.pixel_scale_arcsec,
        )
        for number, image in enumerate(galaxies.images)
    ]
    append_cutouts(resolve(warehouse) / "sky" / name, cutouts, batch="all")


@pytest.mark.slow
def test_stores_are_scored_and_a_page_is_written(tmp_path: Path) -> None:
    store(tmp_path, "made", corrupted(drawn(60, 42), "flux", 1.0))
    store(tmp_path, "true", drawn(120, 41))
    options = ["--generated", "made", "--real", str(tmp_path / "sky" / "true"), "--count", "60", "--resamples", "10"]
    options += ["--warehouse", str(tmp_path), "--out", str(tmp_path / "report")]
    done = RUNNER.invoke(app, ["evaluate", "generation", *options, "--json"], catch_exceptions=False)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["n"] == 60
    assert found["metrics"]["sgd"]["ratio"] > 3
    assert found["parts"]["m_r"]["value"] == pytest.approx(1.0, abs=0.25)
    assert {path.name for path in (tmp_path / "report").iterdir()} == {
        *("evaluation.json", "evaluation.md", "evaluation.png")
    }
    assert json.loads((tmp_path / "report" / "evaluation.json").read_text())["metrics"] == found["metrics"]
    words = RUNNER.invoke(app, ["evaluate", "generation", *options], catch_exceptions=False).stdout
    assert "Synthetic Galaxy Distance" in words
    assert "below 2,000 it is mostly bias" in words


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (["--generated", "a", "--real", "b", "--sampler", "magic"], UsageError, "--sampler magic: one of dpm"),
        (["--generated", "a", "--real", "b", "--count", "3"], ConfigurationError, "--count 3: at least 50"),
        (["--generated", "a", "--real", "b", "--train", "b"], ConfigurationError, "held out of training"),
        (["--generated", "a", "--real", "b", "--inception", "absent.pth"], ConfigurationError, "nothing is downloaded"),
    ],
)
def test_what_makes_no_sense_is_refused(
    options: list[str], error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        RUNNER.invoke(app, ["evaluate", "generation", *options, "--warehouse", str(tmp_path)], catch_exceptions=False)
