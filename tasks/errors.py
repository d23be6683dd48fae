"""What can go wrong between Canopus and the outside world."""

from __future__ import annotations

from typing import Literal

Reason = Literal[
    "no-data",  # nothing there: outside the footprint, empty window
    "no-object",  # an image in which nothing stands out where the object should be
    "unavailable",  # timeouts, 5xx, 429, dropped connections: may pass
    "time-limit",  # the tile's time ran out
    "missing-asset",
    "unreadable",  # truncated or corrupt file
    "invalid-input",  # wrong product, wrong CRS, contradicting metadata
    "denied",  # scheme, host or credentials
    "conflict",  # another writer
    "bug",
]


class SourceError(Exception):
    """A source of data failed; `reason` is the code that the run's table shows."""

    def __init__(self, message: str, *, reason: Reason) -> None:
        super().__init__(message)
        self.reason: Reason = reason


class SourceUnavailable(SourceError):
    """It may pass: worth another try later."""

    def __init__(self, message: str, *, reason: Reason = "unavailable") -> None:
        super().__init__(message, reason=reason)


class SourceRejected(SourceError, ValueError):
    """It will not pass: another try gives the same."""

    def __init__(self, message: str, *, reason: Reason = "invalid-input") -> None:
        super().__init__(message, reason=reason)


class ConfigurationError(ValueError):
    """What the user asked for cannot be done as asked; the message says what to change."""


class UsageError(ConfigurationError):
    """An option or a setting has a value that it cannot have, whatever there is in catalogue and warehouse."""


class NoLooks(ConfigurationError):
    """The cubes of an area hold no look of the days that are asked for."""


class ChecksFailed(ConfigurationError):
    """A product was made and is not fit to publish; the message says which checks failed, and nothing was published."""
