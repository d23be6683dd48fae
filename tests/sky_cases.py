"""Cutouts for the tests of the sky."""

from __future__ import annotations

import numpy as np

from storage.cutouts import BandFacts, Cutout


def random_cutout(
    object_id: str,
    *,
    shape: tuple[int, int] = (20, 24),
    bands: tuple[str, ...] = ("g", "r", "z"),
    seed: int = 0,
    psf: tuple[int, int] | None = (7, 5),
    unit: str = "nanomaggies",
) -> Cutout:
    """Return noise with everything that a cutout can have; for stores, not for profiles."""
    rng = np.random.default_rng(seed)
    size = (len(bands), *shape)
    facts = tuple(
        BandFacts(
            name,
            flux_scale=float(rng.uniform(0.5, 2.0)),
            zero_point=22.5 + index / 7,
            calibrated=index % 2 == 0,
            ivar_source="survey" if index % 2 else "estimated",
            psf_fwhm_arcsec=float("nan") if index == 1 else 1.0 + index / 3,
            psf=None if psf is None or index == 2 else rng.random(psf, dtype=np.float32),
            release=f"dr{index}",
        )
        for index, name in enumerate(bands)
    )
    return Cutout(
        object_id=object_id,
        ra=float(rng.uniform(0, 360)),
        dec=float(rng.uniform(-90, 90)),
        bands=facts,
        flux=rng.normal(size=size).astype(np.float32),
        valid=rng.random(size) > 0.1,
        ivar=rng.random(size, dtype=np.float32),
        maskbits=rng.integers(0, 2**20, size, dtype=np.int32),
        segmentation=rng.integers(0, 3, shape, dtype=np.int32),
        wcs="WCSAXES =                    2",
        pixel_scale_arcsec=0.262,
        flux_unit="counts" if unit == "counts" else "nanomaggies",
        source="https://example.org/cutout",
        notes=("some rows are empty",),
    )


def assert_same_cutout(found: Cutout, expected: Cutout) -> None:
    """Compare two cutouts bit for bit; NaN equals NaN."""
    for name in ("flux", "valid", "ivar", "maskbits", "segmentation"):
        one, other = getattr(found, name), getattr(expected, name)
        assert (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes()), name
    for name in ("object_id", "ra", "dec", "wcs", "pixel_scale_arcsec", "flux_unit", "source", "notes"):
        assert repr(getattr(found, name)) == repr(getattr(expected, name)), name
    for band, other in zip(found.bands, expected.bands, strict=True):
        names = [name for name in vars(other) if name != "psf"]
        assert [repr(getattr(band, name)) for name in names] == [repr(getattr(other, name)) for name in names]
        assert (band.psf is None) == (other.psf is None)
        if band.psf is not None and other.psf is not None:
            assert (band.psf.shape, band.psf.tobytes()) == (other.psf.shape, other.psf.tobytes())
