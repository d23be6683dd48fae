"""A sheet of thumbnails: the gallery of a batch where it must cost next to nothing."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from storage.cutouts import Cutout
from tasks.sky.gallery import INK, MUTED, PAPER, colour_image

if TYPE_CHECKING:
    from PIL.Image import Image as Picture
    from PIL.ImageDraw import ImageDraw

PER_SHEET = 30
THUMBNAIL_PIXELS = 96
_COLUMNS = 10
_GAP, _TITLE_PIXELS, _LETTER_PIXELS, _LETTERS = 6, 14, 9, 19


def contact_sheet(cutouts: Sequence[Cutout], *, objects: int) -> bytes:
    """Return a PNG of thumbnails with their ids, in the colours of `tasks.sky.gallery`; the same input gives the same bytes.

    Parameters
    ----------
    cutouts : sequence of Cutout
        `PER_SHEET` at most.
    objects : int
        Of the batch, which the sheet names.

    Raises
    ------
    ValueError
        Where there is no cutout, or there are too many.
    """
    from PIL import Image, ImageDraw

    if not 0 < len(cutouts) <= PER_SHEET:
        raise ValueError(f"a sheet of {len(cutouts)} cutouts: 1 to {PER_SHEET} are expected")
    columns = min(_COLUMNS, len(cutouts))
    wide, high = THUMBNAIL_PIXELS + _GAP, THUMBNAIL_PIXELS + _TITLE_PIXELS + _GAP
    size = columns * wide + _GAP, math.ceil(len(cutouts) / columns) * high + _GAP + _TITLE_PIXELS
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    for index, cutout in enumerate(cutouts):
        row, column = divmod(index, columns)
        left, top = _GAP + column * wide, _GAP + row * high
        _write(draw, (left, top), cutout.object_id, INK)
        sheet.paste(_thumbnail(cutout), (left, top + _TITLE_PIXELS))
    _write(draw, (_GAP, size[1] - _TITLE_PIXELS), f"{len(cutouts)} of {objects}", MUTED)
    buffer = io.BytesIO()
    sheet.save(buffer, format="png", compress_level=1)
    return buffer.getvalue()


def _thumbnail(cutout: Cutout) -> Picture:
    """Return a cutout, its highest row on top, as wide or high as a thumbnail: pixels are averaged, or each shown as a square."""
    from PIL import Image

    image = Image.fromarray(colour_image(cutout, most=THUMBNAIL_PIXELS)[::-1])
    times = THUMBNAIL_PIXELS / max(image.size)
    return image.resize(
        (max(1, round(image.width * times)), max(1, round(image.height * times))), Image.Resampling.NEAREST
    )


def _write(draw: ImageDraw, place: tuple[int, int], words: str, colour: str) -> None:
    from PIL import ImageFont

    shown = words if len(words) <= _LETTERS else f"{words[: _LETTERS - 1]}…"
    draw.text(place, shown, fill=colour, font=ImageFont.load_default(_LETTER_PIXELS))
