"""A contact sheet shows each object's own colours in its place, small and the same each time."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from sky_cases import random_cutout

from storage.cutouts import BandFacts, Cutout
from tasks.sky.contact_sheet import PER_SHEET, THUMBNAIL_PIXELS, contact_sheet


def disc(flux: tuple[float, float, float], *, side: int = 60, low_only: bool = False) -> Cutout:
    """Return a disc over noise, or the lower half of one, of the given flux in g, r and z."""
    radius = np.hypot(*(np.mgrid[:side, :side] - side / 2))
    light = 0.2 * np.exp(-radius / (side / 8))
    if low_only:
        light[side // 2 :] = 0
    noise = np.random.default_rng(5).normal(0, 0.01, (3, side, side))
    planes = (light * np.array(flux)[:, None, None] + noise).astype(np.float32)
    return replace(
        random_cutout("disc", shape=(side, side), bands=("g", "r", "z")),
        flux=planes,
        valid=np.ones(planes.shape, dtype=bool),
        bands=tuple(BandFacts(name) for name in "grz"),
    )


def drawn(*cutouts: Cutout) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(contact_sheet(cutouts, objects=len(cutouts)))).convert("RGB"), dtype=float)


def middles(sheet: np.ndarray, count: int) -> list[np.ndarray]:
    """Return the mean colour of the middle of each thumbnail of the first row."""
    wide = sheet.shape[1] // count
    places = [round((index + 0.5) * wide) for index in range(count)]
    high = 20 + THUMBNAIL_PIXELS // 2
    return [sheet[high - 4 : high + 4, place - 4 : place + 4].mean((0, 1)) for place in places]


def test_objects_stand_in_their_order_in_their_colours() -> None:
    red, blue = middles(drawn(disc((0.3, 1.5, 3.5)), disc((2.0, 1.8, 1.5))), 2)
    assert red[0] > 1.3 * red[2]
    assert blue[2] > 1.1 * blue[0]


def test_the_highest_row_is_on_top() -> None:
    sheet = drawn(disc((1.0, 1.8, 2.7), low_only=True)).mean(axis=2)
    half = 20 + THUMBNAIL_PIXELS // 2
    assert sheet[half + 2 : half + 20, 30:70].mean() > 2 * sheet[half - 20 : half - 2, 30:70].mean()


def test_sizes_of_all_kinds_fill_their_place_and_the_same_input_gives_the_same_bytes() -> None:
    cutouts = [
        replace(disc((1.0, 1.8, 2.7), side=side), object_id=f"{side} pixels, a long name") for side in (16, 96, 500)
    ]
    one, other = (contact_sheet(cutouts, objects=7) for _ in range(2))
    assert one == other
    for colour in middles(np.asarray(Image.open(io.BytesIO(one)).convert("RGB"), dtype=float), 3):
        assert colour.mean() > 130


def test_a_sheet_of_nothing_or_of_too_many_is_refused() -> None:
    for count in (0, PER_SHEET + 1):
        with pytest.raises(ValueError, match=f"sheet of {count} cutouts"):
            contact_sheet([disc((1.0, 1.0, 1.0))] * count, objects=count)
