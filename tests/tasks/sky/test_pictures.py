"""Pictures as flux: calibrated, upright, the rim is sky, paper is turned over, and what is no picture is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.diffusion import DiffusionConfig
from storage.cutouts import AB_ZERO_POINT
from tasks.errors import ConfigurationError, SourceRejected
from tasks.sky.pictures import is_picture, order_by_wavelength, read_picture

CONFIG = DiffusionConfig(pixels=32)


def blob(rows: int = 90, columns: int = 90, *, y: float = 45.0, x: float = 45.0) -> np.ndarray:
    """Return a white spot on black, (y, x), row 0 at the top as a picture has it."""
    row, column = np.indices((rows, columns))
    return 255 * np.exp(-0.5 * ((row - y) ** 2 + (column - x) ** 2) / 10.0**2)


def save(path: Path, rgb: np.ndarray) -> Path:
    Image.fromarray(rgb.round().clip(0, 255).astype(np.uint8)).save(path)
    return path


def magnitudes(flux: np.ndarray) -> np.ndarray:
    return AB_ZERO_POINT - 2.5 * np.log10(flux.sum(axis=(1, 2)))


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_picture_has_the_magnitude_that_is_asked_for_and_a_galaxys_colour(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"grey.{suffix}", np.repeat(blob()[..., None], 3, axis=2))
    g, r, z = magnitudes(read_picture(path, CONFIG, magnitude=15.0))
    assert r == pytest.approx(15.0, abs=1e-9)
    assert 0.4 < g - r < 0.9
    assert 0.3 < r - z < 0.7


def test_red_light_is_redder(tmp_path: Path) -> None:
    rgb = np.stack([blob(), 0.5 * blob(), 0.2 * blob()], axis=2)
    red = magnitudes(read_picture(save(tmp_path / "red.png", rgb), CONFIG))
    blue = magnitudes(read_picture(save(tmp_path / "blue.png", rgb[..., ::-1]), CONFIG))
    assert red[0] - red[2] > blue[0] - blue[2] + 1


def test_the_top_of_a_picture_is_the_highest_row(tmp_path: Path) -> None:
    flux = read_picture(save(tmp_path / "top.png", np.repeat(blob(y=20)[..., None], 3, axis=2)), CONFIG)
    row, _ = np.unravel_index(int(flux[1].argmax()), flux[1].shape)
    assert row > 20


def test_ink_on_paper_is_light_on_sky(tmp_path: Path) -> None:
    white = read_picture(save(tmp_path / "sky.png", np.repeat(blob()[..., None], 3, axis=2)), CONFIG)
    paper = read_picture(save(tmp_path / "paper.png", 255 - np.repeat(blob()[..., None], 3, axis=2)), CONFIG)
    np.testing.assert_allclose(paper, white, atol=0.02 * white.max())


def test_a_wide_picture_keeps_its_shape(tmp_path: Path) -> None:
    flux = read_picture(save(tmp_path / "wide.png", np.repeat(blob(60, 120, y=30, x=60)[..., None], 3, axis=2)), CONFIG)
    row, column = np.indices(flux[1].shape)
    spread = [np.sqrt(((place - 15.5) ** 2 * flux[1]).sum() / flux[1].sum()) for place in (row, column)]
    assert spread[0] == pytest.approx(spread[1], rel=0.05)


def test_bands_go_by_wavelength_whatever_their_order_and_number() -> None:
    assert order_by_wavelength(("z", "g", "odd", "r")) == [1, 3, 0, 2]


def test_one_band_takes_the_middle_colour(tmp_path: Path) -> None:
    config = DiffusionConfig(bands=("r",), softening=(0.02,), sigma_data=(1.0,), pixels=32)
    flux = read_picture(save(tmp_path / "one.png", np.repeat(blob()[..., None], 3, axis=2)), config, magnitude=17.0)
    assert flux.shape == (1, 32, 32)
    assert magnitudes(flux)[0] == pytest.approx(17.0)


def test_what_is_no_picture_says_so(tmp_path: Path) -> None:
    (tmp_path / "words.png").write_text("no picture")
    with pytest.raises(SourceRejected, match="cannot be read as a picture"):
        read_picture(tmp_path / "words.png", CONFIG)
    with pytest.raises(SourceRejected, match="nothing that differs from its rim"):
        read_picture(save(tmp_path / "grey.png", np.full((40, 40, 3), 80.0)), CONFIG)
    with pytest.raises(ConfigurationError, match="no such file"):
        read_picture(tmp_path / "nowhere.png", CONFIG)
    assert is_picture(Path("a.JPEG"))
    assert not is_picture(Path("a.fits"))
