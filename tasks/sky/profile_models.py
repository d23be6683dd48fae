"""Networks that read profiles, opened once by each process."""

from __future__ import annotations

from functools import lru_cache
from typing import TypeVar

from torch import nn

from storage.location import resolve
from tasks.earth.model_files import LoadedNetwork, load_network
from tasks.errors import ConfigurationError

N = TypeVar("N", bound=nn.Module)


def load_reader(warehouse: str, name: str, wanted: type[N], *, method: str, kind: str) -> N:
    """Return a model of the warehouse, or a shipped one, in eval mode; the last two stay in memory.

    Parameters
    ----------
    warehouse : str
        URL.
    name : str
        Name, or ``name/version``.
    wanted : type
        Of its network.
    method, kind : str
        What an error says: whose model it is to be, and how that kind is called.

    Raises
    ------
    NotFound
        Where there is no such model.
    ConfigurationError
        Where it is of another kind.
    """
    network = _loaded(warehouse, name)
    if not isinstance(network.model, wanted):
        raise ConfigurationError(f"--model {name} is of kind {network.kind}; --method {method} takes a {kind}")
    return network.model


@lru_cache(maxsize=2)
def _loaded(warehouse: str, name: str) -> LoadedNetwork:
    network = load_network(resolve(warehouse), name)
    network.model.requires_grad_(False)
    return network
