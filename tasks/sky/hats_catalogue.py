"""A table of the sky as a HATS catalogue: Parquet files by HEALPix pixel, each with at most so many rows."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

ROWS_PER_PARTITION = 200_000
HIGHEST_ORDER = 8
"""Pixels of a quarter of a degree: what is denser than `ROWS_PER_PARTITION` in one of them stays together."""
INDEX, INDEX_ORDER = "_healpix_29", 29
_INDEX_FIELD = pa.field(INDEX, pa.int64(), metadata={"description": "HEALPix pixel of order 29", "ucd": "pos.healpix"})
SKYMAP_ORDER = 6


def has_position(table: pa.Table) -> pa.ChunkedArray:
    """Return which rows can stand in a HATS catalogue: those with a right ascension and a declination."""
    inside = pc.and_(pc.is_finite(table["ra"]), pc.is_finite(table["dec"]))
    return pc.fill_null(inside, False)


def write_hats(folder: Path, pieces: Iterable[pa.Table], *, name: str, properties: Mapping[str, str]) -> int:
    """Write the rows that have a position as a HATS catalogue, and return how many there are.

    Parameters
    ----------
    folder : Path
        Of the catalogue; made here. Nothing is made where no row has a position.
    pieces : iterable of Table
        Gone through twice, none is held; with columns ``ra`` and ``dec``, degrees. Sorted by position here, one pixel
        after another; rows of one position stay in order.
    name : str
        Of the catalogue.
    properties : mapping of str to str
        Provenance, as the HATS note names it (``hats_builder``, ``hats_creation_date``, ``obs_title``, ...).
    """
    from hats.catalog import PartitionInfo
    from hats.io import file_io, paths, write_parquet_metadata
    from hats.io.skymap import write_skymap
    from hats.pixel_math import HealpixPixel
    from hats.pixel_math.healpix_shim import order2npix

    index = np.sort(np.concatenate([_index_of(piece.filter(has_position(piece))) for piece in pieces]))
    if not index.size:
        return 0
    parts = list(partitions(index))
    pixels = [HealpixPixel(order, number) for order, number, _ in parts]
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".hats-") as spilt:
        for pixel, part in zip(pixels, _sorted_parts(Path(spilt), pieces, parts), strict=True):
            path = paths.new_pixel_catalog_file(folder, pixel)
            pq.write_table(part, str(path), **file_io.file_io.get_parquet_write_table_kwargs(part.schema))
    write_parquet_metadata(folder, create_metadata=True, create_per_partition_stats=True)
    info = PartitionInfo(pixels)
    info.write_to_file(paths.get_partition_info_pointer(folder))
    write_skymap(np.bincount(_parents(index, SKYMAP_ORDER), minlength=order2npix(SKYMAP_ORDER)), folder)
    _write_properties(folder, name, index, info, properties)
    return int(index.size)


def _index_of(table: pa.Table) -> NDArray[np.int64]:
    from hats.pixel_math import compute_spatial_index

    if not table.num_rows:
        return np.empty(0, dtype=np.int64)
    return np.asarray(compute_spatial_index(table["ra"].to_numpy(), table["dec"].to_numpy()), dtype=np.int64)


def _sorted_parts(
    folder: Path, pieces: Iterable[pa.Table], parts: Sequence[tuple[int, int, slice]]
) -> Iterator[pa.Table]:
    """Yield the rows of each pixel by position: first every piece is dealt out to a file for each pixel, in a folder of our own."""
    begins = np.array([number << (2 * (INDEX_ORDER - order)) for order, number, _ in parts], dtype=np.int64)
    writers: dict[int, pq.ParquetWriter] = {}
    for piece in pieces:
        placed = piece.filter(has_position(piece))
        index = _index_of(placed)
        placed = placed.add_column(0, _INDEX_FIELD, pa.array(index))
        owner = np.searchsorted(begins, index, side="right") - 1
        for number in np.unique(owner).tolist():
            if number not in writers:
                writers[number] = pq.ParquetWriter(folder / f"{number}.parquet", placed.schema)
            writers[number].write_table(placed.filter(pa.array(owner == number)))
    for writer in writers.values():
        writer.close()
    for number in range(len(parts)):
        path = folder / f"{number}.parquet"
        table = pq.read_table(path)
        yield table.take(pa.array(np.argsort(table[INDEX].to_numpy(), kind="stable"))).combine_chunks()
        path.unlink()


def partitions(index: NDArray[np.int64]) -> Iterator[tuple[int, int, slice]]:
    """Yield order, number and rows of the coarsest pixels that hold at most `ROWS_PER_PARTITION` rows each.

    Parameters
    ----------
    index : ndarray, shape (row,)
        Pixels of order 29 in nested numbering, sorted.
    """
    yield from _split(index, 0, range(12), slice(0, len(index)))


def _split(index: NDArray[np.int64], order: int, numbers: range, rows: slice) -> Iterator[tuple[int, int, slice]]:
    shift = 2 * (INDEX_ORDER - order)
    edges = rows.start + np.searchsorted(index[rows], np.array([*numbers, numbers.stop], dtype=np.int64) << shift)
    for number, start, stop in zip(numbers, edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        if stop - start > ROWS_PER_PARTITION and order < HIGHEST_ORDER:
            yield from _split(index, order + 1, range(4 * number, 4 * number + 4), slice(start, stop))
        elif stop > start:
            yield order, number, slice(start, stop)


def _parents(index: NDArray[np.int64], order: int) -> NDArray[np.int64]:
    return index >> (2 * (INDEX_ORDER - order))


def _write_properties(
    folder: Path, name: str, index: NDArray[np.int64], info: object, properties: Mapping[str, str]
) -> None:
    from hats.catalog import CatalogType, TableProperties

    most = max(rows.stop - rows.start for _, _, rows in partitions(index))
    TableProperties(
        catalog_name=name,
        catalog_type=CatalogType.OBJECT,
        total_rows=len(index),
        ra_column="ra",
        dec_column="dec",
        healpix_column=INDEX,
        healpix_order=INDEX_ORDER,
        hats_order=info.get_highest_order(),  # type: ignore[attr-defined]
        hats_max_rows=most,
        skymap_order=SKYMAP_ORDER,
        moc_sky_fraction=info.calculate_fractional_coverage(),  # type: ignore[attr-defined]
        hats_version="v1.0",
        **properties,
    ).to_properties_file(folder)
