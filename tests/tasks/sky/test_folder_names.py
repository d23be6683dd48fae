"""What names of files say, and which files go together."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.sky.folder_names import list_folder, parse_name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ngc3073_r.fits", ("ngc3073", "r", "image")),
        ("ngc3073_r_mask.fits.gz", ("ngc3073", "r", "mask")),
        ("a2744_spiral_f105w_rms.fit", ("a2744_spiral", "F105W", "rms")),
        ("f105w_psf.fits", ("", "F105W", "psf")),
        ("psfs.fits", ("", "", "psf")),
        ("decals_dr3_b.fits", ("decals_dr3_b", "", "image")),
        ("M51_B.fits", ("M51", "B", "image")),
        ("ic3478_r_256.fits", ("ic3478_r_256", "", "image")),
        ("r.fits", ("", "r", "image")),
    ],
)
def test_a_file_name_says_object_band_and_kind(name: str, expected: tuple[str, str, str]) -> None:
    found = parse_name(Path(name))
    assert (found.base, found.band, found.kind) == expected


def test_what_lies_beside_an_image_goes_with_it_by_name_and_band(tmp_path: Path) -> None:
    names = [
        *("a_g.fits", "a_r.fits", "a_r_ivar.fits", "a_mask.fits", "ab_r.fits", "ab_r_psf.fits"),
        *("r_psf.fits", "g_psf.fits", "c_img_ivar.fits", "d_r.fits", "d_r.fits.gz"),
    ]
    for name in names:
        (tmp_path / name).touch()
    listing = list_folder(tmp_path)
    objects = listing.objects()
    assert {key: file.path.name for key, file in objects.items()} == {
        "a": "a_g.fits",
        "ab": "ab_r.fits",
        "c": "c_img_ivar.fits",
        "d": "d_r.fits",
        "d_r": "d_r.fits.gz",
    }
    beside = {key: {name.path.name for name in listing.with_siblings(file)} for key, file in objects.items()}
    assert beside["a"] == {"a_g.fits", "a_r.fits", "a_r_ivar.fits", "a_mask.fits", "r_psf.fits", "g_psf.fits"}
    assert beside["ab"] == {"ab_r.fits", "ab_r_psf.fits", "r_psf.fits"}
    assert beside["c"] == {"c_img_ivar.fits", "r_psf.fits", "g_psf.fits"}
