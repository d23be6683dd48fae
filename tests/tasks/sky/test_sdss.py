"""SDSS frames: a recorded answer names the field, the real frame is served and cut."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from astroquery.sdss import conf
from servers.sky_services import NOT_FOUND, Reply, send_to_loopback, serve_sky

from tasks.errors import SourceRejected
from tasks.limits import HttpLimits
from tasks.sky.fits_images import pixel_of, unpacked
from tasks.sky.sdss import SdssSource
from tasks.sky.source_options import SourceOptions
from tasks.sky.targets import Target

LIMITS = HttpLimits(attempts=2, backoff_s=0.02, requests_per_s=10_000)
FRAME = "galaxies/sdss_nearby_misc/frame_files/frame-r-001000-1-0100.fits.bz2"
PSF_FIELD = "galaxies/sdss_nearby_misc/frame_files/psField-001000-1-0100.fit"
ARCHIVED = "/sas/dr17/eboss/photo/redux/301/1000/objcs/1/psField-001000-1-0100.fit"
MIDDLE = (358.5918, 60.0300)

pytestmark = pytest.mark.server


def options(tmp_path: Path) -> SourceOptions:
    return SourceOptions(size_pixels=40, cache=tmp_path, limits=LIMITS)


def test_the_field_of_the_nearest_object_is_cut_out_of_its_frames(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame, psf_field = (shared_data / FRAME).read_bytes(), (shared_data / PSF_FIELD).read_bytes()
    rows = [(MIDDLE[0] + 0.01, MIDDLE[1], 999, 5), (MIDDLE[0] - 0.0003, MIDDLE[1], 1000, 100)]
    lines = [f"{ra},{dec},12376,{run},301,1,{field}" for ra, dec, run, field in rows]

    def service(path: str, query: dict[str, str]) -> Reply:
        if path.endswith(".bz2"):
            return Reply(frame) if path.endswith("/301/1000/1/frame-r-001000-1-0100.fits.bz2") else NOT_FOUND
        if path.endswith(".fit"):
            return Reply(psf_field) if path.endswith(ARCHIVED) else NOT_FOUND
        return Reply(("#Table1\nra,dec,objid,run,rerun,camcol,field\n" + "\n".join(lines) + "\n").encode())

    with serve_sky(service) as server:
        send_to_loopback(monkeypatch, server)
        monkeypatch.setattr(conf, "sas_baseurl", f"{server.url}/sas")
        found = SdssSource(bands=("r",), options=options(tmp_path))
        cutout = found.fetch(Target("x", *MIDDLE))
        assert [path.split("/")[-1] for path, _, _ in server.requests[1:]] == [
            "frame-r-001000-1-0100.fits.bz2",
            "psField-001000-1-0100.fit",
        ]
        assert "/dr17/eboss/photoObj/frames/" in server.requests[1][0]
        with pytest.raises(SourceRejected) as missing:
            SdssSource(bands=("g",), options=options(tmp_path)).fetch(Target("x", *MIDDLE))
        assert missing.value.reason == "no-data"
    with fits.open(io.BytesIO(unpacked(frame))) as units:
        whole, moved = units[0].data, fits.Header.fromstring(cutout.wcs)
        column, row = (int(units[0].header[f"CRPIX{axis}"] - WCS(moved).wcs.crpix[axis - 1]) for axis in (1, 2))
    np.testing.assert_array_equal(cutout.flux[0], whole[row : row + 40, column : column + 40])
    assert cutout.flux_unit == "nanomaggies"
    assert (cutout.bands[0].ivar_source, cutout.bands[0].release) == ("survey", "rerun 301")
    assert 1 / np.sqrt(np.median(cutout.ivar)) == pytest.approx(0.031, rel=0.05)
    assert cutout.bands[0].psf_fwhm_arcsec == pytest.approx(3.0553, abs=1e-4)
    assert found.name == "sdss-dr17"
    assert pixel_of(WCS(moved), *MIDDLE) == pytest.approx((19.5, 19.5), abs=0.51)


def test_a_field_without_a_psf_file_is_measured_without_and_says_so(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = (shared_data / FRAME).read_bytes()
    row = f"{MIDDLE[0]},{MIDDLE[1]},12376,1000,301,1,100"

    def service(path: str, query: dict[str, str]) -> Reply:
        if path.endswith((".bz2", ".fit")):
            return Reply(frame) if path.endswith(".bz2") else NOT_FOUND
        return Reply(f"#Table1\nra,dec,objid,run,rerun,camcol,field\n{row}\n".encode())

    with serve_sky(service) as server:
        send_to_loopback(monkeypatch, server)
        monkeypatch.setattr(conf, "sas_baseurl", f"{server.url}/sas")
        asked = [
            SdssSource(bands=("r",), options=replace(options(tmp_path), psf=psf)).fetch(Target("x", *MIDDLE))
            for psf in (True, False)
        ]
        assert sum(path.endswith(".fit") for path, _, _ in server.requests) == 1
    assert all(np.isnan(cutout.bands[0].psf_fwhm_arcsec) for cutout in asked)
    assert "no point spread function (missing-asset)" in asked[0].notes
    assert not any("point spread" in note for note in asked[1].notes)


def test_the_recorded_answer_names_the_frames_of_every_band(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = (shared_data / "galaxies/service_responses/sdss/xid_im.txt").read_bytes()
    with serve_sky(lambda path, query: Reply(answer)) as server:
        send_to_loopback(monkeypatch, server)
        urls = SdssSource(options=options(tmp_path)).frames_of(Target("x", 2.02344283, 14.83982041))
    assert list(urls) == ["g", "r", "i"]
    assert urls["r"].endswith("/301/1904/3/frame-r-001904-3-0163.fits.bz2")


def test_no_object_near_is_no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve_sky(lambda path, query: Reply(b"#Table1\nra,dec,objid,run,rerun,camcol,field\n")) as server:
        send_to_loopback(monkeypatch, server)
        with pytest.raises(SourceRejected, match="no object within 60 arcsec") as outside:
            SdssSource(options=options(tmp_path)).fetch(Target("x", 1.0, -80.0))
        assert outside.value.reason == "no-data"
