"""Which source a text names, and what is refused at once."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from sky_files import fits_bytes, noise

from tasks.errors import ConfigurationError, SourceRejected
from tasks.sky.source_options import SourceOptions
from tasks.sky.sources import open_source
from tasks.sky.targets import Target


@pytest.mark.parametrize(
    ("text", "name", "bands"),
    [
        ("legacy", "ls-dr10", ("g", "r", "z")),
        ("legacy:ls-dr9", "ls-dr9", ("g", "r", "z")),
        ("bricks:https://host/dr9/south", "dr9-south", ("g", "r", "z")),
        ("sdss", "sdss-dr17", ("g", "r", "i")),
        ("sdss:dr16", "sdss-dr16", ("g", "r", "i")),
    ],
)
def test_a_text_names_a_source(text: str, name: str, bands: tuple[str, ...]) -> None:
    source = open_source(text)
    assert (source.name, source.bands) == (name, bands)
    assert open_source(text, bands=["r"]).bands == ("r",)


def test_a_folder_is_a_source_with_the_bands_of_its_images(tmp_path: Path) -> None:
    (tmp_path / "a_r.fits").write_bytes(fits_bytes(noise((9, 9))))
    source = open_source(f"folder:{tmp_path}")
    assert (source.name, source.bands) == (tmp_path.name, ())


@pytest.mark.parametrize("text", ["legacy", "bricks:https://host/dr9/south", "sdss"])
def test_a_target_without_a_position_is_refused_without_asking(text: str) -> None:
    with pytest.raises(SourceRejected, match="x has no position"):
        open_source(text).fetch(Target("x", math.nan, 1.0))


@pytest.mark.parametrize("text", ["", "folder", "folder:", "bricks", "sdss:x", "hst", "https://host", "store:"])
def test_what_names_no_source_is_answered_with_what_does(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"legacy\[:LAYER\], bricks:PATH_OR_URL"):
        open_source(text)


@pytest.mark.parametrize(
    "options",
    [{"size_pixels": 4}, {"pixel_scale_arcsec": 0.0}, {"pixel_scale_arcsec": -1.0}, {"max_empty_share": 1.5}],
)
def test_options_out_of_bounds_are_refused_before_anything_is_asked(options: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match="is expected"):
        open_source("legacy", options=SourceOptions(**options))  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="each once"):
        open_source("legacy", bands=["r", "r"])
