"""Diffusion models out of a warehouse."""

from __future__ import annotations

from models.diffusion import GalaxyDiffusion
from storage.location import Location
from tasks.earth.model_files import load_network
from tasks.errors import ConfigurationError


def open_diffusion(warehouse: Location, name: str) -> GalaxyDiffusion:
    """Return a galaxy diffusion model of the warehouse, or one that comes with the package: in eval mode, on the CPU.

    Parameters
    ----------
    warehouse : Location
        Root of the warehouse.
    name : str
        Name, or ``name/version``.

    Raises
    ------
    NotFound
        Where there is no such model.
    ConfigurationError
        Where the model is of another kind.
    """
    found = load_network(warehouse, name)
    if not isinstance(found.model, GalaxyDiffusion):
        raise ConfigurationError(f"model {name} is of kind {found.kind}; galaxies are made by a galaxy-diffusion")
    return found.model
