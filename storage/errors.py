"""What can go wrong with bytes at rest."""

from __future__ import annotations


class StorageError(Exception):
    """Base of every error that `storage` raises on purpose."""


class NotFound(StorageError, FileNotFoundError):
    """Nothing is stored under that name."""


class SchemaMismatch(StorageError, ValueError):
    """What is stored, or offered, is not of the agreed structure."""


class RegionMisaligned(StorageError, ValueError):
    """A region cuts through a chunk."""


class TileBusy(StorageError, RuntimeError):
    """Another writer holds the tile, or committed to it meanwhile."""


class TokensChanged(StorageError, RuntimeError):
    """A shard of tokens is not what the store's record says: it was packed anew meanwhile, or is damaged."""


class LocationError(StorageError, ValueError):
    """A URL that cannot be a warehouse."""


class LocationFailed(StorageError, OSError):
    """A location cannot be read or written: permissions, credentials, a full disk, the network."""
