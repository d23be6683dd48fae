"""The flow that embeds an area and publishes the embedding."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.states import Completed

from flows.config import EmbedConfig
from flows.infer import fill_cells, summarise
from storage.location import resolve
from tasks.earth.embedding_map import EmbedRequest
from tasks.earth.grid import read_area
from tasks.infer import freeze_embedding, publish_product


@flow(name="embed-area")
def embed_area(config: EmbedConfig) -> Any:
    """Embed the pixels of an area region by region, and publish the vectors and their principal components."""
    prepared = freeze_embedding(to_request(config))
    filled = fill_cells(prepared, "embed", config.dask)
    receipt = publish_product(prepared)
    return Completed(message=f"{receipt.state}: {receipt.item_url}", data=summarise(prepared, receipt, filled))


def to_request(config: EmbedConfig) -> EmbedRequest:
    """Return what the tasks need, from what the user wrote."""
    return EmbedRequest(
        warehouse=resolve(config.warehouse).url,
        area=read_area(config.aoi),
        model=config.model,
        until=config.until.isoformat() if config.until else None,
        bands=config.bands,
        dtype=config.dtype,
        seed=config.seed,
        collection=config.collection,
        title=config.title,
        crs=config.crs,
        resolution=config.resolution,
        allow_unmasked=config.allow_unmasked,
    )
