"""What can measure profiles, by name: the one place that knows every method."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.errors import ConfigurationError, UsageError
from tasks.sky.profile import ProfileMethod

METHODS = ("auto", "network", "isophote", "published")
"""``auto`` is the network, and isophotes where it is unsure."""
NETWORKS = ("auto", "network")
DEFAULT_MODEL = "profiles-small"
"""Shipped weights of the network."""
GEOMETRIES = ("free", "fixed")
"""An ellipse for each radius, or the outer isophotes' one at all radii."""


@dataclass(frozen=True)
class Weights:
    """Which network a method takes, for those that take one.

    Parameters
    ----------
    warehouse : str
        URL.
    model : str
        Name, or ``name/version``; empty where the user names none.
    training_mode : bool
        Of published weights: run as their authors did, see `tasks.sky.published_profiles.PublishedMethod`.
    members : int
        Of the network: passes that are put together.
    """

    warehouse: str = ""
    model: str = ""
    training_mode: bool = False
    members: int = 1


def open_method(name: str, *, geometry: str = "free", weights: Weights | None = None) -> ProfileMethod:
    """Return a method; ``photutils`` is its ellipse fit as it comes, to be scored beside the others.

    Parameters
    ----------
    name : str
        One of `METHODS`, or ``photutils``.
    geometry : str
        One of `GEOMETRIES`.
    weights : Weights, optional
        Of ``published``.

    Raises
    ------
    UsageError
        Where there is no such method or geometry, or a model is named for one that takes none.
    ConfigurationError
        Where its weights are not there, or are another network's.
    NotFound
        Where the warehouse has no such model.
    """
    weights = weights or Weights()
    if geometry not in GEOMETRIES:
        raise UsageError(f"--geometry {geometry}: one of {', '.join(GEOMETRIES)}")
    if name not in (*METHODS, "photutils"):
        raise UsageError(f"--method {name}: one of {', '.join(METHODS)}")
    _refuse_unused(name, weights)
    if name == "published":
        return _open_published(weights)
    if name == "photutils":
        from tasks.sky.published_photutils import PhotutilsMethod

        return PhotutilsMethod()
    from tasks.sky.isophotes import IsophoteMethod

    isophotes = IsophoteMethod(fixed_geometry=geometry == "fixed")
    if name == "isophote":
        return isophotes
    from tasks.sky.network_profiles import open_network

    return open_network(
        weights.warehouse,
        weights.model or DEFAULT_MODEL,
        fixed_geometry=isophotes.fixed_geometry,
        members=weights.members,
        fallback=isophotes if name == "auto" else None,
    )


def _refuse_unused(name: str, weights: Weights) -> None:
    """Refuse weights and ways to run them that a method does not take."""
    if weights.training_mode and name != "published":
        raise UsageError(f"--method {name} takes no --training-mode: say --method published")
    if weights.members != 1 and name not in NETWORKS:
        raise UsageError(f"--method {name} takes no --members: say --method network")
    if weights.model and name not in (*NETWORKS, "published"):
        raise UsageError(f"--method {name} takes no --model: say --method network or published")


def pin_model(warehouse: str, method: str, model: str) -> str:
    """Return the model of a method as ``name/version``, so that a run takes the same one whenever it goes on; empty for none.

    Parameters
    ----------
    warehouse : str
        URL.
    method : str
        One of `METHODS`.
    model : str
        As the user names it; empty for the method's own.

    Raises
    ------
    NotFound
        Where the warehouse has no such model.
    """
    model = model or (DEFAULT_MODEL if method in NETWORKS else "")
    if not model:
        return ""
    from storage.location import resolve
    from tasks.earth.model_folders import read_parts

    reference, _ = read_parts(resolve(warehouse), model)
    return f"{reference.name}/{reference.version}"


def _open_published(weights: Weights) -> ProfileMethod:
    if not weights.model:
        raise ConfigurationError(
            "--method published: name its weights with --model; `canopus import-weights FILE --name NAME` brings them in"
        )
    from tasks.sky.published_profiles import open_published

    return open_published(weights.warehouse, weights.model, training_mode=weights.training_mode)


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
