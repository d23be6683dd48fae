"""Pieces of a pool: drawn where they are not kept yet, and told apart by what decides about them."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from storage.location import Location, resolve
from tasks.pools import draw_missing, missing_pieces, pool_folder

NAMES = [f"{number}.bin" for number in range(5)]


def write_name(folder: Location, name: str) -> None:
    folder.write_bytes(name, f"drawn {name}".encode())


def test_only_missing_pieces_are_drawn_and_each_is_heard_of(tmp_path: Path) -> None:
    folder = pool_folder(resolve(tmp_path), "numbers", {"seed": 1})
    folder.write_bytes("1.bin", b"kept")
    told: list[int] = []
    draw_missing(folder, NAMES, partial(write_name, folder), processes=1, on_done=told.append)
    assert told == [2, 3, 4, 5]
    assert folder.read_bytes("1.bin") == b"kept"
    assert [folder.read_bytes(name) for name in NAMES if name != "1.bin"] == [
        f"drawn {name}".encode() for name in NAMES if name != "1.bin"
    ]
    assert missing_pieces(folder, [*NAMES, "9.bin"]) == ["9.bin"]


def test_what_decides_about_pieces_decides_where_they_lie(tmp_path: Path) -> None:
    one, same, other = (pool_folder(resolve(tmp_path), "numbers", {"seed": seed}) for seed in (1, 1, 2))
    assert one.url == same.url != other.url
    assert "/pools/numbers-" in one.url
