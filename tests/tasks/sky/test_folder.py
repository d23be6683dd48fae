"""Folders of FITS files as sources, written here and real ones."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from astropy.io import fits
from sky_files import fits_bytes, image_unit, noise, tan_header

from storage.cutouts import Cutout
from tasks.errors import ConfigurationError, SourceRejected
from tasks.sky.folder import FolderSource, targets_of_folder
from tasks.sky.source_options import SourceOptions
from tasks.sky.targets import Target

SHAPE = (30, 40)
KEYS = tan_header(ra=150.0, dec=2.0, shape=SHAPE)


def save(path: Path, pixels: np.ndarray, **keys: object) -> None:
    path.write_bytes(fits_bytes(pixels, KEYS | keys))


def every(folder: Path, **options: object) -> dict[str, Cutout | SourceRejected]:
    """Return what each object of a folder gives."""
    source = FolderSource(folder, options=SourceOptions(**options))  # type: ignore[arg-type]
    found: dict[str, Cutout | SourceRejected] = {}
    for target in targets_of_folder(folder).targets:
        try:
            found[target.object_id] = source.fetch(target)
        except SourceRejected as error:
            found[target.object_id] = error
    return found


def cutout(found: object) -> Cutout:
    assert isinstance(found, Cutout), found
    return found


def test_files_of_one_object_in_several_bands_are_one_cutout_with_what_lies_beside_them(tmp_path: Path) -> None:
    for number, band in enumerate("rg"):
        save(tmp_path / f"a_{band}.fits", noise(SHAPE, seed=number), BUNIT="nanomaggy")
    save(tmp_path / "a_r_rms.fits", np.full(SHAPE, 0.5, np.float32))
    save(tmp_path / "a_mask.fits", (np.arange(1200).reshape(SHAPE) == 7).astype(np.int16))
    save(tmp_path / "b_r.fits", noise(SHAPE, seed=5), BUNIT="nanomaggy")
    found = every(tmp_path)
    assert list(found) == ["a", "b"]
    first = cutout(found["a"])
    assert set(first.band_names) == {"g", "r"}
    r = first.band_names.index("r")
    np.testing.assert_array_equal(first.flux[r], noise(SHAPE, seed=0))
    assert first.bands[r].ivar_source == "survey"
    assert first.bands[1 - r].ivar_source == "estimated"
    assert first.ivar[r].max() == 4.0
    assert not first.valid[:, 0, 7].any()
    assert cutout(found["b"]).band_names == ("r",)
    assert cutout(found["b"]).valid.all()


def test_bands_that_lie_on_other_pixels_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "a_g.fits", noise(SHAPE))
    save(tmp_path / "a_r.fits", noise(SHAPE), CRPIX1=23.0)
    (refused,) = every(tmp_path).values()
    assert "r lies on other pixels than g" in str(refused)


def test_a_target_of_a_list_is_found_by_its_id_or_another_of_its_names(tmp_path: Path) -> None:
    save(tmp_path / "1237648721789256091_r.fits", noise(SHAPE))
    source = FolderSource(tmp_path)
    assert source.fetch(Target("1237648721789256091", 150.0, 2.0)).band_names == ("r",)
    assert source.fetch(Target("x", 150.0, 2.0, names=("x", "1237648721789256091"))).object_id == "x"
    with pytest.raises(SourceRejected, match="holds no image of nobody") as missing:
        source.fetch(Target("nobody", 1.0, 1.0))
    assert missing.value.reason == "missing-asset"


def test_a_file_outside_the_folder_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    save(tmp_path / "inside" / "a_r.fits", noise(SHAPE))
    save(tmp_path / "secret_r.fits", noise(SHAPE))
    source = FolderSource(tmp_path / "inside")
    assert source.fetch(Target("x", 150.0, 2.0, file="a_r.fits")).shape == SHAPE
    for name in ("../secret_r.fits", str(tmp_path / "secret_r.fits")):
        with pytest.raises(SourceRejected, match="is not inside") as denied:
            source.fetch(Target("x", 150.0, 2.0, file=name))
        assert denied.value.reason == "denied"


def test_without_a_wcs_the_scale_is_asked_for_by_name(tmp_path: Path) -> None:
    (tmp_path / "a_r.fits").write_bytes(fits_bytes(noise(SHAPE)))
    (refused,) = every(tmp_path).values()
    assert isinstance(refused, SourceRejected)
    assert "a_r.fits" in str(refused)
    assert "pixel_scale_arcsec" in str(refused)
    (given,) = every(tmp_path, pixel_scale_arcsec=0.5, zero_points={"r": 27.0}).values()
    found = cutout(given)
    assert (found.pixel_scale_arcsec, found.bands[0].zero_point, found.bands[0].calibrated) == (0.5, 27.0, True)
    assert found.wcs == ""
    assert math.isnan(found.ra)


def test_a_scale_out_of_all_bounds_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "a_r.fits", noise(SHAPE), CD1_1=-0.262, CD2_2=0.262)
    (refused,) = every(tmp_path).values()
    assert "943.2 arcsec" in str(refused)


def test_a_wcs_that_puts_the_target_elsewhere_is_noted_and_the_middle_taken(tmp_path: Path) -> None:
    save(tmp_path / "a_r.fits", noise(SHAPE))
    found = FolderSource(tmp_path, options=SourceOptions(size_pixels=16)).fetch(Target("a", 10.0, -40.0))
    assert any("lies off the image" in note for note in found.notes)
    np.testing.assert_array_equal(found.flux[0], noise(SHAPE)[7:23, 12:28])


def test_an_extension_for_each_object_with_its_own_psf(tmp_path: Path) -> None:
    sizes = {"G3": 16, "G7": 21, "G12": 40}
    units = [image_unit(noise((side, side), seed=side), {}, name=name) for name, side in sizes.items()]
    (tmp_path / "stamps.fits").write_bytes(fits_bytes(None, {}, units))
    y, x = np.mgrid[-9:10, -9:10]
    widths = {"P3": 1.5, "P7": 2.0, "P12": 3.0}
    psfs = [image_unit(np.exp(-(x**2 + y**2) / (2 * s**2)), {}, name=name) for name, s in widths.items()]
    (tmp_path / "psfs.fits").write_bytes(fits_bytes(None, {}, psfs))
    found = every(tmp_path, pixel_scale_arcsec=0.03)
    assert list(found) == list(sizes)
    for (name, side), sigma in zip(sizes.items(), widths.values(), strict=True):
        assert cutout(found[name]).shape == (side, side)
        assert cutout(found[name]).bands[0].psf_fwhm_arcsec == pytest.approx(0.03 * 2.3548 * sigma, rel=0.03)
    by_number = FolderSource(tmp_path, bands=("F814W",), options=SourceOptions(pixel_scale_arcsec=0.03))
    assert by_number.fetch(Target("12", 1.0, 1.0)).band_names == ("F814W",)


def test_a_catalogue_in_the_folder_names_its_objects(tmp_path: Path) -> None:
    for name in ("7", "8"):
        save(tmp_path / f"{name}_r.fits", noise(SHAPE))
    pd.DataFrame({"objid": [7, 8], "ra": [150.0, 150.0], "dec": [2.0, 2.0001], "z": [0.1, 0.2]}).to_parquet(
        tmp_path / "index.parquet"
    )
    found = targets_of_folder(tmp_path)
    assert [(target.object_id, target.redshift) for target in found.targets] == [("7", 0.1), ("8", 0.2)]
    assert found.integer_ids


def test_files_that_cannot_be_read_stay_targets_and_tables_are_none(tmp_path: Path) -> None:
    (tmp_path / "cut_r.fits").write_bytes(fits_bytes(noise((60, 60)))[:6000])
    (tmp_path / "page_r.fits").write_text("<html>")
    table = fits.BinTableHDU.from_columns([fits.Column("A", "D", array=np.zeros(3))])
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(tmp_path / "stars.fits")
    found = every(tmp_path)
    assert list(found) == ["cut", "page"]
    assert all(isinstance(error, SourceRejected) and error.reason == "unreadable" for error in found.values())


def test_a_folder_without_images_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="holds no FITS files"):
        FolderSource(tmp_path)
    with pytest.raises(ConfigurationError, match="is no folder"):
        targets_of_folder(tmp_path / "nowhere")


def test_the_folders_name_fits_a_warehouse(tmp_path: Path) -> None:
    folder = tmp_path / "my galaxies (r)"
    folder.mkdir()
    save(folder / "a_r.fits", noise(SHAPE))
    assert FolderSource(folder).name == "my-galaxies-r"


def test_legacy_answers_run_as_a_folder(shared_data: Path) -> None:
    found = every(shared_data / "galaxies" / "legacy_grz_cutouts")
    pair = cutout(found["decals_59.1067_-30.4848"])
    assert pair.band_names == ("g", "r", "z")
    assert {band.ivar_source for band in pair.bands} == {"survey"}
    assert all(0.8 < band.psf_fwhm_arcsec < 1.6 for band in pair.bands)
    with fits.open(shared_data / "galaxies/legacy_grz_cutouts/decals_59.1067_-30.4848_img_ivar.fits") as units:
        np.testing.assert_array_equal(pair.flux, np.stack([units[number].data for number in (1, 3, 5)]))
        np.testing.assert_array_equal(pair.ivar, np.stack([units[number].data for number in (2, 4, 6)]))
    for name, scale in (("decals_dr3_a", 0.1), ("decals_dr3_b", 0.1014), ("decals_dr3_d", 0.1302)):
        image = cutout(found[name])
        assert image.flux_unit == "nanomaggies"
        assert image.pixel_scale_arcsec == pytest.approx(scale, abs=5e-5)
    assert "49% of the pixels are empty" in str(found["decals_dr3_d_badpix"])
    cut = found["decals_dr3_truncated"]
    assert isinstance(cut, SourceRejected)
    assert cut.reason == "unreadable"


def test_a_half_empty_image_is_masked_where_more_is_allowed(shared_data: Path) -> None:
    folder = shared_data / "galaxies" / "legacy_grz_cutouts"
    source = FolderSource(folder, options=SourceOptions(max_empty_share=0.6))
    bad = source.fetch(Target("decals_dr3_d_badpix", math.nan, math.nan))
    good = source.fetch(Target("decals_dr3_d", math.nan, math.nan))
    assert 0.49 < 1 - bad.valid.mean() < 0.50
    assert good.valid.mean() > 0.999


def test_counts_of_dr7_and_nanomaggies_of_dr9_are_told_apart(shared_data: Path) -> None:
    folder = shared_data / "galaxies" / "sdss_r_spirals"
    index = pd.read_parquet(folder / "index.parquet")
    found = every(folder)
    assert len(found) == 25
    for objid, release in zip(index["objid"], index["release"], strict=True):
        image = cutout(found[objid])
        biased = any("software bias of 1000" in note for note in image.notes)
        assert (image.flux_unit, image.bands[0].calibrated, biased) == (
            ("nanomaggies", True, False) if release == "DR9" else ("counts", False, True)
        )
    clipped = cutout(found["1237653622298509849"])
    assert 0.3 < 1 - clipped.valid.mean() < 0.31


def test_the_other_real_folders_run(shared_data: Path) -> None:
    folder = shared_data / "galaxies"
    stamps = every(folder / "hst_cosmos_f814w", pixel_scale_arcsec=0.03, zero_points={"*": 25.94})
    assert len(stamps) == 70
    assert all(cutout(found).bands[0].psf is not None for found in stamps.values())
    cluster = every(folder / "hst_a2744_f105w")
    dwarf, spiral = cutout(cluster["a2744_dwarf_galaxy"]), cutout(cluster["a2744_spiral_galaxy"])
    assert dwarf.bands[0].zero_point == pytest.approx(26.27, abs=0.005)
    assert (dwarf.bands[0].ivar_source, spiral.bands[0].ivar_source) == ("survey", "estimated")
    assert dwarf.bands[0].psf_fwhm_arcsec == spiral.bands[0].psf_fwhm_arcsec == pytest.approx(0.16, abs=0.02)
    (m51,) = every(folder / "m51_iraf_ellipse", pixel_scale_arcsec=1.0).values()
    assert not cutout(m51).bands[0].calibrated
    assert cutout(m51).valid.all()
    nearby = every(folder / "sdss_nearby_misc")
    assert cutout(nearby["ngc3610_gri_viewer_cutout"]).band_names == ("g", "r", "i")
    assert cutout(nearby["ngc3610_gri_viewer_cutout"]).pixel_scale_arcsec == pytest.approx(1.0)
    masked = cutout(nearby["ngc3073"])
    assert (masked.maskbits[0] == 1).mean() == pytest.approx(0.0415, abs=1e-3)
    assert not masked.valid[0][masked.maskbits[0] == 1].any()
    (eso,) = every(folder / "probes_eso479-g001").values()
    assert (cutout(eso).flux_unit, cutout(eso).shape) == ("nanomaggies", (2000, 2000))
