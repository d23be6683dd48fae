"""Write cloud-optimised GeoTIFFs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
from odc.geo.geobox import GeoBox


def write_cog(path: Path, pixels: np.ndarray, geobox: GeoBox, *, nodata: int, categorical: bool = False) -> int:
    """Write one band, or several, as a COG with overviews and return its size in bytes.

    Parameters
    ----------
    path : Path
        The folder must exist.
    pixels : ndarray, shape (y, x) or (band, y, x)
        Integers.
    geobox : GeoBox
        Its shape is that of the pixels.
    nodata : int
    categorical : bool
        Overviews take the nearest pixel, not the mean.

    Returns
    -------
    int
    """
    layers = pixels[None] if pixels.ndim == 2 else pixels
    # small blocks, so that even a small archive has overviews and more than one block to read
    block = 256 if layers.shape[-1] > 256 else 128
    profile = {
        "driver": "COG", "count": layers.shape[0], "height": layers.shape[1], "width": layers.shape[2],
        "dtype": layers.dtype, "crs": str(geobox.crs), "transform": geobox.affine, "nodata": nodata,
        "compress": "DEFLATE", "level": 6, "predictor": "YES", "blocksize": block, "bigtiff": "NO",
        "overview_resampling": "NEAREST" if categorical else "AVERAGE",
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as file:
        file.write(layers)
    return path.stat().st_size
