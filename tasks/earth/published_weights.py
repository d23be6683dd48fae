"""Published weights into a warehouse, and models out of it: as their authors' files, or as a folder to ship."""

from __future__ import annotations

import hashlib
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

from models.published import LAYOUTS, LayoutMismatch, Published, UnsafeCheckpoint, read_published, write_published
from models.registry import KINDS, Kind
from storage.location import Location, resolve
from tasks.earth.model_files import load_network, save_network
from tasks.earth.model_folders import CARD, CONFIG, METRICS, TRAINING, WEIGHTS, ModelReference, copy_model, require_name
from tasks.errors import ConfigurationError

CANOPUS = "canopus"
"""The layout of our own models."""
_LIMITS = {
    "earthpt": "It was not scored here: `canopus evaluate forecast` does. It knows no missing looks or bands, and gives no "
    "uncertainty. Published sources name two orders of the bands; a wrong one gives wrong forecasts without an error.",
    "pix2prof": "It was not scored here: `canopus evaluate profiles` scores what `canopus profiles --method published` gives. "
    "It was trained on sky-subtracted SDSS images (DR10; g, r, i; nanomaggies; 0.396 arcsec per pixel), single bands of "
    "256 x 256 pixels about the galaxy. It gives surface brightness by number of sample: no radius, geometry, centre, sky "
    "or uncertainty. Its authors ran it in training mode (statistics of the single image, dropout on); here it runs in eval "
    "mode, whose statistics they gathered one image at a time and never used. Neighbours are not masked.",
    "ddpm": "It was not scored here: `canopus evaluate generation` scores what it makes. It was trained on Legacy Surveys DR9 "
    "cutouts (g, r, z; 0.262 arcsec per pixel; 256 x 256 pixels about the galaxy), clipped to 0 to 5.5 nanomaggies per pixel: "
    "negative sky and bright cores are lost. It cannot be asked for anything. These are the averaged weights; its authors' "
    "own script sampled from the others.",
}


def import_weights(
    path: Path, layout: str | None, *, warehouse: Location, name: str, bands: tuple[str, ...] | None = None
) -> ModelReference:
    """Save a published checkpoint as a model; no code of the file runs.

    Parameters
    ----------
    path : Path
        Written by `torch.save`.
    layout : str or None
        One of `models.published.LAYOUTS`; None = the one that the file's keys tell.
    warehouse : Location
        Root of the warehouse.
    name : str
        Of the model.
    bands : tuple of str, optional
        Of EarthPT: the ten bands in the order in which the weights know them; by default that of wavelength.

    Raises
    ------
    ConfigurationError
        Where there is no such file, it would run code, or its names and shapes are not the layout's.
    """
    require_name(name)
    if layout is not None:
        _kind_of_layout(layout)
    try:
        found = read_published(path, layout, more=None if bands is None else {"bands": bands})
    except (LayoutMismatch, UnsafeCheckpoint) as error:
        raise ConfigurationError(" ".join(str(error).split())) from error
    except FileNotFoundError as error:
        raise ConfigurationError(f"{path}: no such file") from error
    kind = _kind_of_layout(found.layout)
    source = {"file": path.name, "sha256": _sha256(path), "layout": found.layout}
    config: dict[str, Any] = found.model.to_config()  # type: ignore[operator]
    training = {"imported_from": source, "history": found.history, "software": {"canopus": version("canopus")}}
    card = _card(kind, found, source, config)
    return save_network(
        warehouse, name, found.model, kind=kind.name, config=config, metrics={}, training=training, card=card
    )


def export_weights(warehouse: Location, name: str, *, layout: str, out: Path) -> ModelReference:
    """Write a model as a file in a published layout, or as a folder in our own.

    Parameters
    ----------
    warehouse : Location
        Root of the warehouse; models that come with the package are found too.
    name : str
        Name, or ``name/version``.
    layout : str
        One of `models.published.LAYOUTS`, or ``canopus``.
    out : Path
        File, or folder; what is there is replaced.

    Raises
    ------
    NotFound
        Where there is no such model.
    ConfigurationError
        Where the model is of a kind that the layout has no place for, or `out` cannot be written.
    """
    if layout == CANOPUS:
        _require_own_folder(out)
        return copy_model(warehouse, name, resolve(out))
    wanted = _kind_of_layout(layout)
    network = load_network(warehouse, name)
    if network.kind != wanted.name:
        raise ConfigurationError(
            f"layout {layout} holds models of kind {wanted.name}; {name} is of kind {network.kind}: take --layout {CANOPUS}"
        )
    try:
        write_published(network.model, out, layout, history=network.training.get("history"))
    except (OSError, RuntimeError) as error:
        # torch says RuntimeError where the folder does not exist
        raise ConfigurationError(f"--out {out} cannot be written: {' '.join(str(error).split())}") from error
    return network.reference


def _kind_of_layout(layout: str) -> Kind:
    for kind in KINDS.values():
        if kind.layout == layout:
            return kind
    raise ConfigurationError(f"--layout {layout}: there are {', '.join(LAYOUTS)}")


def _require_own_folder(out: Path) -> None:
    """Refuse a folder that holds anything but a model: its files would lie among others."""
    if not out.exists():
        return
    others = (
        [out.name] if not out.is_dir() else sorted(set(os.listdir(out)) - {WEIGHTS, CONFIG, CARD, METRICS, TRAINING})
    )
    if others:
        raise ConfigurationError(f"--out {out} holds {others[0]}, which is no part of a model: name a new folder")


def _card(kind: Kind, found: Published, source: dict[str, str], config: dict[str, Any]) -> str:
    parameters = sum(parameter.numel() for parameter in found.model.parameters())
    told = {
        name: found.history[name] for name in ("iter_num", "best_val_loss", "epoch", "step") if name in found.history
    }
    return "\n".join(
        [
            f"{kind.title}: {parameters:,} parameters, imported from `{source['file']}` "
            f"(sha256 {source['sha256']}), read as {LAYOUTS[source['layout']].title}.",
            "",
            "## Settings",
            "",
            *(f"- {name.replace('_', ' ')}: {_words(value)}" for name, value in config.items()),
            "",
            "## Training",
            "",
            *(f"- {name}: {value}" for name, value in told.items()),
            "What else is known of it is what its authors publish.",
            "",
            "## Limits",
            "",
            _LIMITS[found.layout],
        ]
    )


def _words(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
