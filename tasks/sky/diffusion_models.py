"""Diffusion models out of a warehouse."""

from __future__ import annotations

from models.ddpm_published import PublishedDDPM
from models.diffusion import GalaxyDiffusion
from storage.location import Location
from tasks.earth.model_files import load_network
from tasks.errors import ConfigurationError


def open_diffusion(warehouse: Location, name: str) -> GalaxyDiffusion | PublishedDDPM:
    """Return a galaxy diffusion model of the warehouse, or one that comes with the package: in eval mode, on the CPU.

    Both kinds have `denoise`, `to_scaled`, `to_flux` and `draw_conditions`, and a config with bands, pixels,
    pixel_scale_arcsec, sigma_min, sigma_max and conditions.

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
    if not isinstance(found.model, GalaxyDiffusion | PublishedDDPM):
        raise ConfigurationError(
            f"model {name} is of kind {found.kind}; galaxies are made by one of kind galaxy-diffusion or ddpm-published"
        )
    return found.model
