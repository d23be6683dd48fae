"""Embeddings of an area as a product: a vector for each pixel's series, and its principal components. No Prefect here."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from storage.cube import SeriesBlock
from tasks.earth.components import COMPONENTS, Basis, Projected, draw_sample, fit_basis
from tasks.earth.embedders import Embedder, open_embedder
from tasks.earth.embedding_pictures import PREVIEW, draw_components
from tasks.earth.layers import COMPONENT_SCALE, component_layer, embedding_layers, from_stored
from tasks.earth.mapping import Fill, MapPlan, count_looks, empty_layers, looks_at, plan_for
from tasks.earth.pictures import finest_overview
from tasks.earth.product import Raster, RasterProduct, Sources, describe_item, write_rasters
from tasks.earth.regional import Prepared, days_read, freeze_inputs, prepare

VERSION = 1
"""Of the layout of an embedding; part of the id, to be raised when the same staged layers give other files."""
BASIS = "basis.json"
_PIXELS_AT_ONCE = 4096


@dataclass(frozen=True)
class EmbedRequest:
    """What is to be embedded, and with what.

    Parameters
    ----------
    warehouse : str
        URL.
    area : dict
        GeoJSON geometry, EPSG:4326.
    model : str
        Name, or name/version.
    until : str or None
        Last day of the series, ``YYYY-MM-DD``; None for all.
    bands : tuple of str or None
        Of the cubes; None for all.
    dtype : {"float16", "float32"}
        As which the embedding is stored.
    seed : int
        Of the pixels that the principal components are fitted on.
    collection, title : str
        Of the product.
    crs : str or None
        CRS of the grid; None for the UTM zone.
    resolution : float
        Metres.
    allow_unmasked : bool
        Whether looks without a mask count.
    """

    warehouse: str
    area: dict[str, Any]
    model: str
    until: str | None = None
    bands: tuple[str, ...] | None = None
    dtype: Literal["float16", "float32"] = "float16"
    seed: int = 0
    collection: str = "embedding"
    title: str = "Embedding"
    crs: str | None = None
    resolution: float = 10.0
    allow_unmasked: bool = False


@dataclass(frozen=True)
class EmbedJob:
    """Embed the pixels of an area.

    Parameters
    ----------
    plan : MapPlan
        Cubes at their snapshots, and grids.
    product : RasterProduct
        What is published.
    model : str
        ``name/version``.
    bands : tuple of str
        That are read.
    seed : int
        Of the sample for the principal components.
    """

    plan: MapPlan
    product: RasterProduct
    model: str
    bands: tuple[str, ...]
    seed: int = 0

    @property
    def rasters(self) -> tuple[Raster, ...]:
        """Return the COG: the principal components."""
        return (Raster(component_layer(COMPONENTS)),)

    def open(self) -> Fill:
        """Load the model, and return what embeds the pixels of a window."""
        return partial(
            embed_block,
            embedder=open_embedder(self.plan.root, self.model),
            cube_bands=self.plan.bands,
            bands=self.bands,
            dtype=self.product.layers[0].dtype,
        )

    def write(self, folder: Path, sources: Sources) -> dict[str, Any]:
        """Write all assets and return the STAC item."""
        basis = fit_basis(draw_sample(sources["embedding"], seed=self.seed))
        layers = (*self.product.layers, *(raster.layer for raster in self.rasters))
        components = {"components": Projected(sources["embedding"], basis)}
        said = {"canopus:model": self.model, "canopus:bands": list(self.bands)}
        write_rasters(
            folder,
            self.product,
            {**sources, **components},
            rasters=self.rasters,
            layers=layers,
            attributes=said,
        )
        (folder / BASIS).write_text(json.dumps(basis.to_json()) + "\n")
        self._draw(folder, basis)
        explained = [round(float(share), 4) for share in basis.explained]
        item = describe_item(
            self.product, self.rasters, (PREVIEW,), properties=said | {"canopus:explained_variance": explained}
        )
        item["assets"]["basis"] = {
            "href": f"./{BASIS}",
            "type": "application/json",
            "title": "Mean and directions of the principal components",
            "roles": ["metadata"],
        }
        return item

    def _draw(self, folder: Path, basis: Basis) -> None:
        level, grid = finest_overview(folder / self.product.zarr)
        product = self.product
        words = (
            f"{product.place}; series of {product.start} to {product.end}, model {self.model}",
            f"{product.key.item_id}   ·   {product.resolution:g} m pixels   ·   {product.made_by}",
        )
        values = from_stored(np.asarray(level["components"][:]), COMPONENT_SCALE)
        picture = draw_components(values, grid, explained=basis.explained, title=product.title, words=words)
        (folder / f"{PREVIEW.name}.png").write_bytes(picture)


def prepare_embedding(request: EmbedRequest) -> Prepared:
    """Freeze the inputs of an embedding in a run's manifest, and lay out its staging place.

    Raises
    ------
    ConfigurationError
        Where no cube holds the area, there is no look up to the day asked for, or the model does not take the bands.
    NotFound
        Where there is no such model.
    """
    plan = plan_for(request, until=request.until)
    bands = plan.chosen_bands(request.bands)
    embedder = open_embedder(plan.root, request.model)
    embedder.require_bands(bands)
    reference = embedder.reference
    model = f"{reference.name}/{reference.version}"
    states = plan.states()
    days = days_read(plan, states)
    settled = asdict(request) | {"model": model, "bands": list(bands)}
    run, lineage = freeze_inputs(plan, "embed", request=settled, weights_sha256=reference.weights_sha256, states=states)
    end = request.until or str(days[-1])
    product = RasterProduct(
        request.collection,
        request.title,
        str(days[0]),
        end,
        end,
        plan.product,
        embedding_layers(embedder.width, dtype=request.dtype),
        lineage,
        area=request.area,
        description="Embeddings of time series of Sentinel-2, one vector for each pixel",
        derivation=f"embedded pixel by pixel with {model}",
        keywords=("Sentinel-2", "embedding"),
        zarr="embedding.zarr",
        version=VERSION,
        identity={"components": component_layer(COMPONENTS).name_and_kind},
    )
    return prepare(EmbedJob(plan, product, model, bands, request.seed), run)


def embed_block(
    block: SeriesBlock, *, embedder: Embedder, cube_bands: tuple[str, ...], bands: tuple[str, ...], dtype: str
) -> dict[str, np.ndarray]:
    """Return the layers of a block of series, pixels without a valid look as no data.

    Parameters
    ----------
    block : SeriesBlock
        Whole.
    embedder : Embedder
        The model.
    cube_bands, bands : tuple of str
        What the block holds, and what is read of it.
    dtype : str
        Of the embedding.

    Returns
    -------
    dict of str to ndarray
        Stored values of `embedding_layers`.
    """
    layers = empty_layers(embedding_layers(embedder.width, dtype=dtype), block.valid.shape[1:])
    flat = layers["embedding"].reshape(embedder.width, -1)
    for looks in looks_at(block, at_once=_PIXELS_AT_ONCE, bands=[cube_bands.index(band) for band in bands]):
        found = embedder.embed(looks.reflectance, looks.valid, looks.dates, bands=bands)
        flat[:, looks.pixels] = found.T.astype(dtype)
    count_looks(block, layers)
    return layers
