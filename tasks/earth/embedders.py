"""Embeddings of pixel series by saved networks: reflectance and dates in, one vector for each pixel out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from models.earthpt import EarthPT, to_channels
from models.earthpt_published import PublishedEarthPT
from models.indices import BANDS
from models.tokens import Tokens, next_days
from storage.location import Location
from tasks.earth.model_files import LoadedNetwork, load_network
from tasks.earth.model_folders import ModelReference
from tasks.earth.processes import choose_device
from tasks.earth.series_batches import RegionSeries, batches_of, device_of, tokens_at_once
from tasks.errors import ConfigurationError


class Network(Protocol):
    """What turns series into vectors."""

    @property
    def device(self) -> torch.device:
        """Return where tokens are to be."""
        ...

    def vectors(self, tokens: Tokens) -> torch.Tensor:
        """Return one vector for each series: (B, T, 10) -> (B, D)."""
        ...


@dataclass(frozen=True)
class Embedder:
    """A saved network that embeds pixel series.

    Parameters
    ----------
    network : Network
        In eval mode.
    reference : ModelReference
        Which one it is.
    width : int
        Features.
    looks : int
        Newest valid looks of each pixel that it reads.
    needed : tuple of str
        Bands without which it does not work.
    """

    network: Network
    reference: ModelReference
    width: int
    looks: int
    needed: tuple[str, ...]

    def require_bands(self, bands: tuple[str, ...]) -> None:
        """Check that the network takes what a cube holds.

        Raises
        ------
        ConfigurationError
            Naming the bands that it lacks or does not know.
        """
        missing = [band for band in self.needed if band not in bands]
        unknown = [band for band in bands if band not in BANDS]
        if missing:
            raise ConfigurationError(
                f"model {self.reference.name} needs {', '.join(missing)}, which are not there: ingest them, or take a "
                "model of kind earthpt"
            )
        if unknown:
            raise ConfigurationError(f"the models take {', '.join(BANDS)}; leave {', '.join(unknown)} out with --bands")

    def embed(
        self, reflectance: np.ndarray, valid: np.ndarray, dates: np.ndarray, *, bands: tuple[str, ...]
    ) -> np.ndarray:
        """Return the embedding of each pixel's series: the mean over its looks of the last block's output.

        Parameters
        ----------
        reflectance : ndarray, shape (time, band, pixel), float32
            0 to 1, NaN = no data; looks that are not valid may hold anything.
        valid : ndarray, shape (time, pixel), bool
        dates : ndarray, shape (time,), datetime64
            Ascending.
        bands : tuple of str
            What the second axis of `reflectance` holds.

        Returns
        -------
        ndarray, shape (pixel, feature), float32
            NaN for pixels without a valid look.
        """
        self.require_bands(bands)
        out = np.full((valid.shape[1], self.width), np.nan, dtype=np.float32)
        series = RegionSeries(reflectance, valid, dates, bands)
        device = self.network.device
        with torch.inference_mode():
            for batch in batches_of(series, looks=self.looks, tokens=tokens_at_once(device)):
                out[batch.pixels] = self.network.vectors(batch.tokens.to(device)).cpu().numpy()
        return out


@dataclass(frozen=True)
class DefaultVectors:
    """The default EarthPT as a `Network`."""

    model: EarthPT

    @property
    def device(self) -> torch.device:
        """Return where the model stands."""
        return device_of(self.model)

    def vectors(self, tokens: Tokens) -> torch.Tensor:
        """Return one vector for each series."""
        return self.model.embed(to_channels(tokens.values), tokens.position[..., 0], tokens.valid)


@dataclass(frozen=True)
class PublishedVectors:
    """The published EarthPT as a `Network`: it is also told the day of the next look."""

    model: PublishedEarthPT

    @property
    def device(self) -> torch.device:
        """Return where the model stands."""
        return device_of(self.model)

    def vectors(self, tokens: Tokens) -> torch.Tensor:
        """Return one vector for each series."""
        day = tokens.position[..., 0]
        told = torch.stack([day, next_days(day, tokens.valid)], dim=-1)
        return self.model.embedding(Tokens(tokens.values, told, tokens.valid))


def open_embedder(warehouse: Location, name: str) -> Embedder:
    """Return an embedder by the name of its model, ``name`` or ``name/version``, on a GPU where there is one.

    Raises
    ------
    NotFound
        Where there is no such model; the message lists those that are there.
    ConfigurationError
        Where the model embeds no series.
    """
    return embedder_of(load_network(warehouse, name).to(choose_device()))


def embedder_of(network: LoadedNetwork, *, looks: int = 256) -> Embedder:
    """Return the embedder that a saved network is.

    Raises
    ------
    ConfigurationError
        Where its kind embeds no series.
    """
    model = network.model
    if isinstance(model, EarthPT):
        return Embedder(DefaultVectors(model), network.reference, model.config.width, looks, ())
    if isinstance(model, PublishedEarthPT):
        config = model.config
        return Embedder(PublishedVectors(model), network.reference, config.width, config.block_size, BANDS)
    raise ConfigurationError(f"model {network.reference.name} is of kind {network.kind}, which embeds no series")
