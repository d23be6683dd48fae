"""What can measure profiles, by name: the one place that knows every method."""

from __future__ import annotations

from tasks.errors import ConfigurationError, UsageError
from tasks.sky.profile import ProfileMethod

AUTO = "isophote"
"""What ``auto`` stands for."""
METHODS = ("auto", "network", "isophote", "published")
_WITHOUT_WEIGHTS = ("network", "published")


def open_method(name: str) -> ProfileMethod:
    """Return a method; ``photutils`` is its ellipse fit as it comes, to be scored beside the others.

    Raises
    ------
    UsageError
        Where there is no such method.
    ConfigurationError
        Where its weights are not there.
    """
    if name in ("auto", "isophote"):
        from tasks.sky.isophotes import IsophoteMethod

        return IsophoteMethod()
    if name == "photutils":
        from tasks.sky.published_photutils import PhotutilsMethod

        return PhotutilsMethod()
    if name in _WITHOUT_WEIGHTS:
        raise ConfigurationError(f"--method {name}: no weights of this method are there yet; say auto or isophote")
    raise UsageError(f"--method {name}: one of {', '.join(METHODS)}")


def require_sky_extra() -> None:
    """Refuse to go on where the packages of the extra ``sky`` are not installed.

    Raises
    ------
    ConfigurationError
        Naming the command that installs them.
    """
    from importlib.util import find_spec

    missing = [name for name in ("astropy", "astroquery", "photutils", "hats") if find_spec(name) is None]
    if missing:
        raise ConfigurationError(f"{', '.join(missing)} not installed: pip install 'canopus[sky]'")
