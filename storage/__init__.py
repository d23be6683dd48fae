"""Bytes at rest: cubes, products, models and runs in a warehouse."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from storage.cube import open_cube, read_scenes

__all__ = ["open_cube", "read_scenes"]


def __getattr__(name: str) -> Any:
    """Load what is asked for when it is asked for: the cube module pulls in xarray and Icechunk."""
    if name in __all__:
        from storage import cube

        return getattr(cube, name)
    raise AttributeError(f"module 'storage' has no attribute {name!r}")
