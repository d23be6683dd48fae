"""What can measure profiles, by name: the one place that knows every method."""

from __future__ import annotations

from tasks.errors import ConfigurationError, UsageError
from tasks.sky.profile import ProfileMethod

AUTO = "isophote"
"""What ``auto`` stands for."""
METHODS = ("auto", "network", "isophote", "published")
GEOMETRIES = ("free", "fixed")
"""Of isophotes: an ellipse for each radius, or the outer isophotes' one at all radii."""
_WITHOUT_WEIGHTS = ("network", "published")


def open_method(name: str, *, geometry: str = "free") -> ProfileMethod:
    """Return a method; ``photutils`` is its ellipse fit as it comes, to be scored beside the others.

    Parameters
    ----------
    name : str
        One of `METHODS`, or ``photutils``.
    geometry : str
        One of `GEOMETRIES`.

    Raises
    ------
    UsageError
        Where there is no such method or geometry.
    ConfigurationError
        Where its weights are not there.
    """
    if geometry not in GEOMETRIES:
        raise UsageError(f"--geometry {geometry}: one of {', '.join(GEOMETRIES)}")
    if name in ("auto", "isophote"):
        from tasks.sky.isophotes import IsophoteMethod

        return IsophoteMethod(fixed_geometry=geometry == "fixed")
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
