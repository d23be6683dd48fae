"""The one resolver from a URL to the places where bytes lie.

A warehouse is a URL: a folder (``./warehouse``, ``file:///data``), or an object store
(``s3://bucket/prefix``, ``gs://``, ``az://``). Credentials come from the environment, as the AWS, Google and Azure
tools read them; they are never part of the URL.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import icechunk
import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError, PermissionDeniedError, UnauthenticatedError
from obstore.store import AzureStore, GCSStore, LocalStore, S3Store
from zarr.abc.store import Store
from zarr.storage import ObjectStore

from storage.errors import LocationError, LocationFailed, NotFound

SCHEMES = ("file", "s3", "gs", "az")
RETRY: Any = {"max_retries": 8, "retry_timeout": timedelta(minutes=3)}
"""How often a store is asked again, with growing pauses, before an operation fails."""
_DENIED = (PermissionDeniedError, UnauthenticatedError, PermissionError)
_ENVIRONMENT = ("AWS_", "GOOGLE_", "AZURE_")


@dataclass(frozen=True)
class Location:
    """A folder or an object-store prefix.

    Parameters
    ----------
    url : str
        Normalised URL without a trailing slash; make one with `resolve`.
    """

    url: str

    def __truediv__(self, name: str) -> Location:
        """Return the location one or more names further down."""
        return Location(f"{self.url}/{name.strip('/')}")

    def __str__(self) -> str:
        """Return a path for a folder, the URL for everything else."""
        return str(self.local_path) if self.local_path is not None else self.url

    @property
    def name(self) -> str:
        """Return the last part of the URL."""
        return self.url.rsplit("/", 1)[-1]

    @property
    def scheme(self) -> str:
        """Return ``file``, ``s3``, ``gs`` or ``az``."""
        return urlsplit(self.url).scheme

    @property
    def local_path(self) -> Path | None:
        """Return the folder, or None where this is no file system."""
        return Path(unquote(urlsplit(self.url).path)) if self.scheme == "file" else None

    @property
    def _bucket_and_prefix(self) -> tuple[str, str]:
        parts = urlsplit(self.url)
        return parts.netloc, unquote(parts.path).strip("/")

    def exists(self, name: str) -> bool:
        """Return whether a file or object of that name is here."""
        if self._is_missing_folder:
            return False
        try:
            with self._named_failures(name):
                obstore.head(self._objects(), name)
        except NotFound:
            return False
        return True

    def read_bytes(self, name: str) -> bytes:
        """Return a whole file or object.

        Raises
        ------
        NotFound
            Where there is none of that name.
        """
        if self._is_missing_folder:
            raise NotFound(f"{self / name} does not exist")
        with self._named_failures(name):
            return bytes(obstore.get(self._objects(), name).bytes())

    def write_bytes(self, name: str, data: bytes) -> None:
        """Write a whole file or object; readers see the old one or the new one, never a part."""
        with self._named_failures(name):
            obstore.put(self._objects(), name, data)

    def write_new(self, name: str, data: bytes) -> bool:
        """Write a whole file or object where there is none of that name; return whether there was none."""
        try:
            with self._named_failures(name):
                obstore.put(self._objects(), name, data, mode="create")
        except LocationFailed as error:
            if isinstance(error.__cause__, AlreadyExistsError):
                return False
            raise
        return True

    def put_file(self, name: str, path: Path) -> None:
        """Copy a local file here, in parts where it is large; readers see the old one or the new one, never a part."""
        with self._named_failures(name):
            obstore.put(self._objects(), name, path)

    def get_file(self, name: str, path: Path) -> None:
        """Copy a file or object from here to a local path, in parts.

        Raises
        ------
        NotFound
            Where there is none of that name.
        """
        if self._is_missing_folder:
            raise NotFound(f"{self / name} does not exist")
        with self._named_failures(name):
            parts = obstore.get(self._objects(), name).stream()
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                for part in parts:
                    file.write(part)

    def list_names(self, prefix: str = "") -> list[str]:
        """Return the names of all files or objects under `prefix`, sorted, relative to this location."""
        if self.local_path is not None and not (self.local_path / prefix).exists():
            return []
        with self._named_failures(prefix):
            pages = obstore.list(self._objects(), prefix=prefix or None)
            return sorted(entry["path"] for page in pages for entry in page)

    def list_folders(self, prefix: str = "") -> list[str]:
        """Return the names of the folders directly under `prefix`, sorted, without their parents.

        Some object stores go on listing a folder for a while after its last object has gone.
        """
        if self.local_path is not None and not (self.local_path / prefix).exists():
            return []
        with self._named_failures(prefix):
            found = obstore.list_with_delimiter(self._objects(), prefix=prefix or None)["common_prefixes"]
        return sorted(path.rstrip("/").rsplit("/", 1)[-1] for path in found)

    def changed(self, prefix: str = "") -> datetime | None:
        """Return when the newest file or object under `prefix` was written, UTC; None where there is none."""
        if self.local_path is not None and not (self.local_path / prefix).exists():
            return None
        with self._named_failures(prefix):
            pages = obstore.list(self._objects(), prefix=prefix or None)
            return max((entry["last_modified"] for page in pages for entry in page), default=None)

    def delete(self, name: str) -> None:
        """Remove one file or object; none there is no error."""
        if self._is_missing_folder:
            return
        with contextlib.suppress(NotFound), self._named_failures(name):
            obstore.delete(self._objects(), name)

    def delete_tree(self, prefix: str) -> None:
        """Remove every file or object under `prefix`."""
        if self.local_path is not None:
            with contextlib.suppress(NotFound), self._named_failures(prefix):
                shutil.rmtree(self.local_path / prefix)
            return
        names = self.list_names(prefix)
        if names:
            with self._named_failures(prefix):
                obstore.delete(self._objects(), names)

    @contextlib.contextmanager
    def _named_failures(self, name: str) -> Iterator[None]:
        """Turn the stores' errors into ours, with the place and without the request's details."""
        place = self / name if name else self
        try:
            yield
        except (NotFoundError, FileNotFoundError) as error:
            raise NotFound(f"{place} does not exist") from error
        except (BaseError, OSError) as error:
            raise LocationFailed(f"{place}: {_in_words(error)}") from error

    def zarr_store(self, *, read_only: bool = False) -> Store:
        """Return a Zarr store rooted here; it pickles, so Dask workers can take it."""
        return ObjectStore(self._objects(), read_only=read_only)

    def icechunk_storage(self) -> icechunk.Storage:
        """Return the Icechunk storage rooted here."""
        bucket, prefix = self._bucket_and_prefix
        if self.local_path is not None:
            return icechunk.local_filesystem_storage(str(self.local_path))
        if self.scheme == "s3":
            return icechunk.s3_storage(bucket=bucket, prefix=prefix, **_s3_icechunk_options())
        if self.scheme == "gs":
            return icechunk.gcs_storage(bucket=bucket, prefix=prefix, from_env=True)
        return icechunk.azure_storage(
            account=os.environ["AZURE_STORAGE_ACCOUNT_NAME"], container=bucket, prefix=prefix, from_env=True
        )

    @property
    def _is_missing_folder(self) -> bool:
        """Whether this is a folder not made yet; only writing makes it."""
        return self.local_path is not None and not self.local_path.is_dir()

    def _objects(self) -> Any:
        return _object_store(self.url, _environment())


def resolve(url: str | os.PathLike[str]) -> Location:
    """Return the location that a URL or a path names.

    Parameters
    ----------
    url : str or path
        ``s3://bucket/prefix``, ``gs://``, ``az://``, ``file:///folder``, or a path.

    Raises
    ------
    LocationError
        Where the scheme is unknown, the URL carries a user name and password, or there is none.

    Examples
    --------
    >>> resolve("s3://maps/cornwall/").url
    's3://maps/cornwall'
    """
    text = os.fspath(url)
    if not text.strip():
        raise LocationError("the warehouse has no name: give a folder or a URL")
    parts = urlsplit(text)
    if "://" not in text:
        return Location(Path(text).expanduser().resolve().as_uri())
    if parts.scheme not in SCHEMES:
        raise LocationError(f"{text}: scheme {parts.scheme!r} is none of {', '.join(SCHEMES)}")
    if "@" in parts.netloc:
        raise LocationError(
            f"a warehouse URL must not hold credentials ({parts.scheme}://...@...): put them in the environment"
        )
    if parts.scheme == "file":
        return Location(Path(unquote(parts.path)).resolve().as_uri())
    if not parts.netloc:
        raise LocationError(f"{text}: no bucket after {parts.scheme}://")
    return Location(text.rstrip("/"))


def _in_words(error: Exception) -> str:
    """Return what went wrong without the store's details: those may hold a signed request."""
    if isinstance(error, OSError) and not isinstance(error, PermissionError):
        return error.strerror or str(error)
    status = re.search(r"status code: (\d+)", str(error))
    if isinstance(error, _DENIED) or (status and status[1] in ("401", "403")):
        return "permission denied; check credentials and access rights"
    return f"HTTP status {status[1]}" if status else str(error).splitlines()[0].partition("?")[0][:200]


def _environment() -> tuple[tuple[str, str], ...]:
    """Return what a store reads from the environment when it is made: another environment, another store."""
    return tuple(sorted(entry for entry in os.environ.items() if entry[0].startswith(_ENVIRONMENT)))


@lru_cache(maxsize=256)
def _object_store(url: str, environment: tuple[tuple[str, str], ...]) -> Any:
    location = Location(url)
    bucket, prefix = location._bucket_and_prefix
    if location.local_path is not None:
        return LocalStore(location.local_path, mkdir=True)
    if location.scheme == "s3":
        return S3Store(bucket, prefix=prefix or None, retry_config=RETRY, **_s3_object_options())
    store = {"gs": GCSStore, "az": AzureStore}[location.scheme]
    return store(bucket, prefix=prefix or None, retry_config=RETRY)


def _s3_endpoint() -> str | None:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or os.environ.get("AWS_ENDPOINT")


def _s3_region() -> str:
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"


def _s3_object_options() -> dict[str, Any]:
    endpoint = _s3_endpoint()
    if endpoint is None:
        return {"region": _s3_region()}
    return {
        "region": _s3_region(),
        "endpoint": endpoint,
        "virtual_hosted_style_request": False,
        "client_options": {"allow_http": endpoint.startswith("http://")},
    }


def _s3_icechunk_options() -> dict[str, Any]:
    endpoint = _s3_endpoint()
    options: dict[str, Any] = {"region": _s3_region(), "from_env": True}
    if endpoint is not None:
        options |= {"endpoint_url": endpoint, "allow_http": endpoint.startswith("http://"), "force_path_style": True}
    return options
