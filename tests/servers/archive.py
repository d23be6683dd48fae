"""A static archive served as the public ones are: a STAC API, and its files by HTTP ranges from another address."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from servers.range_server import Faults, RangeServer, serve_folder
from servers.stac_api import Behaviour, StacServer, serve_catalog


@dataclass(frozen=True)
class ServedArchive:
    """A running archive; `url` is what ``--catalog`` takes."""

    api: StacServer
    files: RangeServer

    @property
    def url(self) -> str:
        """Return the API's address."""
        return self.api.url


@contextmanager
def serve_archive(
    folder: Path, *, faults: Faults | None = None, behaviour: Behaviour | None = None
) -> Iterator[ServedArchive]:
    """Serve the archive in a folder (``catalog.json`` at its root); faults strike the API and the files."""
    with (
        serve_folder(folder, faults) as files,
        serve_catalog(folder / "catalog.json", files.url_of, behaviour, faults=faults) as api,
    ):
        yield ServedArchive(api, files)
