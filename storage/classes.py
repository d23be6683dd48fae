"""Classes of a map: value, name, title and colour, in one place for COGs, STAC items and pictures."""

from __future__ import annotations

from dataclasses import dataclass

NO_CLASS = 255
"""Value of a class raster where there is no prediction."""
NO_CANOPY = "none"
"""Name of the class that is no canopy; where a map has it, all other classes together are canopy."""
CANOPY = "canopy"
"""Name of the class that is canopy of any kind."""


@dataclass(frozen=True)
class LandClass:
    """One class of a map.

    Parameters
    ----------
    value : int
        Pixel value, 0 to 254.
    name : str
        Short name as in labels and JSON, e.g. ``"conifer"``.
    title : str
        What a legend shows.
    colour : str
        ``#rrggbb``.
    """

    value: int
    name: str
    title: str
    colour: str

    @property
    def rgb(self) -> tuple[int, int, int]:
        """Return red, green and blue, 0 to 255."""
        return int(self.colour[1:3], 16), int(self.colour[3:5], 16), int(self.colour[5:7], 16)


CANOPY_CLASSES = (
    LandClass(0, NO_CANOPY, "No tree canopy", "#e8e0cf"),
    LandClass(1, "broadleaved", "Broadleaved", "#7fb53c"),
    LandClass(2, "conifer", "Conifer", "#1d5b3a"),
)

CANOPY_OR_NOT = (
    LandClass(0, NO_CANOPY, "No tree canopy", "#e8e0cf"),
    LandClass(1, CANOPY, "Tree canopy", "#2e7d32"),
)
