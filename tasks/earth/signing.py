"""Signatures for archives that ask for them, made at read time so that they live as long as the job."""

from __future__ import annotations

import threading
from urllib.parse import urlsplit

from tasks.errors import SourceUnavailable
from tasks.limits import without_secrets
from tasks.ranges import Signer, no_signature

PLANETARY_HOSTS = ".blob.core.windows.net"


def default_signer() -> Signer:
    """Return the Planetary Computer's signer where planetary-computer is installed, else one that does nothing."""
    try:
        import planetary_computer  # noqa: F401
    except ImportError:
        return no_signature
    return PlanetarySigner()


class PlanetarySigner:
    """Signs the Planetary Computer's hrefs and leaves all others as they are.

    planetary-computer keeps its tokens until a minute before they expire; `forget` drops them after a refusal.
    """

    _lock = threading.Lock()

    def __call__(self, href: str) -> str:
        """Return the href with a signature that is good for this moment."""
        if not (urlsplit(href).hostname or "").endswith(PLANETARY_HOSTS):
            return href
        import planetary_computer
        import requests

        try:
            with self._lock:
                return str(planetary_computer.sign_url(href))
        except requests.RequestException as error:
            raise SourceUnavailable(f"{without_secrets(href)}: no signature could be had") from error

    def forget(self, href: str) -> None:
        """Drop the kept tokens, so that the next call asks for a new one."""
        from planetary_computer import sas

        with self._lock:
            sas.TOKEN_CACHE.clear()
