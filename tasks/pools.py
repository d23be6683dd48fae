"""What is generated once and kept in a warehouse: pieces under ``pools/``, each a pure function of its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from storage.location import Location
from storage.manifest import content_hash
from tasks.side_by_side import side_by_side

POOLS = "pools"
Progress = Callable[[str, int, int, str], None]


def pool_folder(warehouse: Location, kind: str, told: Mapping[str, Any]) -> Location:
    """Return where a pool's pieces lie.

    Parameters
    ----------
    warehouse : Location
        Root of the warehouse.
    kind : str
        First part of the folder's name.
    told : mapping
        JSON types: all that decides about a piece beside its name.
    """
    return warehouse / POOLS / f"{kind}-{content_hash(dict(told))[:12]}"


def missing_pieces(folder: Location, names: Sequence[str]) -> list[str]:
    """Return the names of pieces that are not kept yet, in order."""
    held = set(folder.list_names())
    return [name for name in names if name not in held]


def draw_missing(
    folder: Location,
    names: Sequence[str],
    draw: Callable[[str], object],
    *,
    processes: int | None = None,
    on_done: Callable[[int], None] | None = None,
) -> None:
    """Draw the pieces that are not kept yet, several processes side by side.

    Parameters
    ----------
    folder : Location
        Where pieces lie.
    names : sequence of str
        Of all that are wanted.
    draw : callable
        Draws a piece by its name and writes it into the folder; of a module, so that other processes can import it.
    processes : int, optional
        As many at most; by default one for each CPU.
    on_done : callable, optional
        Hears how many pieces are there, after each.
    """
    missing = missing_pieces(folder, names)
    for done, _ in enumerate(side_by_side(draw, missing, processes=processes), start=len(names) - len(missing) + 1):
        if on_done is not None:
            on_done(done)
