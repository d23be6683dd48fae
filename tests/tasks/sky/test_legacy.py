"""The Legacy Survey viewer: recorded answers behind a server on loopback that fails as the real one does."""

from __future__ import annotations

import dataclasses
import io
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from astropy.io import fits
from PIL import Image
from servers.range_server import Faults
from servers.sky_services import NOT_FOUND, PAGE, Reply, SkyServer, serve_sky
from sky_files import fits_bytes, image_unit, noise, tan_header, viewer_answer

from storage.cutouts import Cutout
from tasks.errors import SourceRejected, SourceUnavailable
from tasks.limits import HttpLimits
from tasks.sky.legacy import LegacySource
from tasks.sky.source_options import SourceOptions
from tasks.sky.targets import Target, read_targets

LIMITS = HttpLimits(attempts=3, backoff_s=0.02, requests_per_s=10_000)
PLACE = Target("pair", 59.1067, -30.4848)
RECORDED = "galaxies/legacy_grz_cutouts"
CRASH = Reply(PAGE, 500, "text/html")

pytestmark = pytest.mark.server

Answer = Callable[[dict[str, str]], Reply]


def picture(*, black: bool) -> Reply:
    """Return a JPEG, as the viewer draws a place with or without images."""
    pixels = (
        np.zeros((32, 32, 3), np.uint8) if black else np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)
    )
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return Reply(file.getvalue(), 200, "image/jpeg")


def viewer(cutout: Answer, *, psf: Reply = NOT_FOUND, jpeg: Reply | None = None) -> Callable[..., Reply]:
    """Return the viewer's end points."""

    def answer(path: str, query: dict[str, str]) -> Reply:
        name = path.strip("/").split("/")[-1]
        if name == "fits-cutout":
            return cutout(query)
        return psf if name == "coadd-psf" else (jpeg or picture(black=False))

    return answer


def source(server: SkyServer, tmp_path: Path, **options: object) -> LegacySource:
    plain = SourceOptions(cache=tmp_path / "cache", url=server.url, limits=LIMITS, psf=False)
    return LegacySource("ls-dr9", options=dataclasses.replace(plain, **options))  # type: ignore[arg-type]


def refused(found: LegacySource, target: Target = PLACE) -> SourceRejected:
    with pytest.raises(SourceRejected) as error:
        found.fetch(target)
    return error.value


@pytest.fixture
def pair(shared_data: Path) -> Reply:
    return Reply((shared_data / RECORDED / "decals_59.1067_-30.4848_img_ivar.fits").read_bytes())


@pytest.fixture
def psf(shared_data: Path) -> Reply:
    return Reply((shared_data / RECORDED / "decals_59.1067_-30.4848_psf.fits").read_bytes())


def test_the_recorded_answer_comes_bit_for_bit_with_ivar_and_psf(pair: Reply, psf: Reply, tmp_path: Path) -> None:
    with serve_sky(viewer(lambda query: pair, psf=psf)) as server:
        cutout = source(server, tmp_path, psf=True).fetch(PLACE)
        queries = [query for _, query, _ in server.requests]
    with fits.open(io.BytesIO(pair.body)) as units:
        np.testing.assert_array_equal(cutout.flux, np.stack([units[number].data for number in (1, 3, 5)]))
        np.testing.assert_array_equal(cutout.ivar, np.stack([units[number].data for number in (2, 4, 6)]))
    assert cutout.band_names == ("g", "r", "z")
    assert cutout.flux_unit == "nanomaggies"
    assert cutout.pixel_scale_arcsec == pytest.approx(0.262, abs=1e-6)
    assert cutout.valid.all()
    for band in cutout.bands:
        assert (band.flux_scale, band.zero_point, band.calibrated, band.ivar_source) == (1.0, 22.5, True, "survey")
        assert band.release == "DR9-south"
        assert band.psf is not None
        assert float(band.psf.sum()) == pytest.approx(1.0, abs=1e-5)
        assert 0.8 < band.psf_fwhm_arcsec < 1.6
    asked = {"ra": "59.1067000", "dec": "-30.4848000", "layer": "ls-dr9", "bands": "grz"}
    assert queries[0] == asked | {"size": "256", "subimage": ""}
    assert queries[1] == asked


@pytest.mark.parametrize("kind", ["429", "500", "503", "html", "cut", "short", "slow", "empty", "reset"])
def test_each_fault_ends_in_the_same_cutout(pair: Reply, kind: str, tmp_path: Path) -> None:
    faults = Faults(share=1.0, times=2, kinds=(kind,), retry_after_s=0, slow_s=0.05)
    with serve_sky(viewer(lambda query: pair), faults) as server:
        cutout = source(server, tmp_path).fetch(PLACE)
        assert server.counts[kind] == 2 if kind != "slow" else server.counts[kind] == 1
    assert cutout.valid.all()
    assert cutout.band_names == ("g", "r", "z")


def test_the_interrupted_download_is_asked_for_again_and_then_unavailable(shared_data: Path, tmp_path: Path) -> None:
    body = Reply((shared_data / RECORDED / "decals_dr3_truncated.fits").read_bytes())
    with serve_sky(viewer(lambda query: body)) as server:
        with pytest.raises(SourceUnavailable, match="the file is cut: 1389044 bytes"):
            source(server, tmp_path).fetch(PLACE)
        assert len(server.requests) == LIMITS.attempts


def test_a_second_run_asks_the_viewer_nothing(pair: Reply, psf: Reply, tmp_path: Path) -> None:
    with serve_sky(viewer(lambda query: pair, psf=psf)) as server:
        first = source(server, tmp_path, psf=True).fetch(PLACE)
        asked = len(server.requests)
        second = source(server, tmp_path, psf=True).fetch(PLACE)
        assert len(server.requests) == asked == 2
    np.testing.assert_array_equal(first.flux, second.flux)


def test_a_resampled_answer_has_ivar_and_mask_bits_and_the_headers_scale(tmp_path: Path) -> None:
    body = viewer_answer(ra=10.0, dec=20.0, size=64, scale_arcsec=0.5)
    with serve_sky(viewer(lambda query: Reply(body))) as server:
        cutout = source(server, tmp_path, pixel_scale_arcsec=0.4, size_pixels=64).fetch(Target("x", 10.0, 20.0))
        (_, query, _), *_ = server.requests
    assert query["pixscale"] == "0.4"
    assert {"invvar", "maskbits"} <= set(query)
    assert "subimage" not in query
    assert cutout.pixel_scale_arcsec == pytest.approx(0.5)
    assert any("0.4 arcsec per pixel were asked for, the header says 0.5" in note for note in cutout.notes)
    assert (cutout.maskbits[:, 1, 2] == 4096).all()
    assert cutout.valid[:, 1, 2].all()
    assert not cutout.valid[:, 0, 0].any()
    assert (cutout.ivar[:, 1:] == 4.0).all()


def test_bands_are_taken_by_the_headers_order(tmp_path: Path) -> None:
    body = viewer_answer(ra=10.0, dec=20.0, size=32, bands="zgr")
    with serve_sky(viewer(lambda query: Reply(body))) as server:
        cutout = source(server, tmp_path, pixel_scale_arcsec=0.262, size_pixels=32).fetch(Target("x", 10.0, 20.0))
    np.testing.assert_array_equal(cutout.flux, noise((3, 32, 32), seed=1)[[1, 2, 0]])


def test_of_several_bricks_the_one_with_most_of_the_cutout_is_taken_and_the_rest_not_valid(tmp_path: Path) -> None:
    units = []
    for number, (brick, width) in enumerate({"0001m001": 20, "0002m001": 50}.items()):
        keys = tan_header(ra=10.0, dec=20.0, shape=(64, 64)) | {"BRICK": brick, "BAND": "r", "IMAGEW": width}
        keys["CRPIX1"] = 32.5 - (64 - width if number else 0)
        units.append(image_unit(noise((64, width), seed=number), keys | {"IMAGETYP": "image"}))
    body = fits_bytes(None, {}, units)
    with serve_sky(viewer(lambda query: Reply(body))) as server:
        found = LegacySource(
            "ls-dr9",
            bands=("r",),
            options=SourceOptions(cache=tmp_path, url=server.url, limits=LIMITS, psf=False, size_pixels=64),
        )
        cutout = found.fetch(Target("x", 10.0, 20.0))
    assert cutout.shape == (64, 64)
    assert not cutout.valid[0, :, :14].any()
    np.testing.assert_array_equal(cutout.flux[0, :, 14:], noise((64, 50), seed=1))
    assert "brick 0002m001, of 2 that overlap" in cutout.notes


def test_outside_the_footprint_is_no_data_however_the_viewer_says_it(tmp_path: Path) -> None:
    keys = tan_header(ra=PLACE.ra, dec=PLACE.dec, shape=(64, 64)) | {"BANDS": "grz", "IMAGEW": 64, "BAND0": "g"}
    keys |= {"BAND1": "r", "BAND2": "z"}
    nothing = fits_bytes(None, {"OVERLAP": False})
    zeros = fits_bytes(np.zeros((3, 64, 64), np.float32), keys)
    no_numbers = fits_bytes(np.full((3, 64, 64), np.nan, np.float32), keys)
    for number, body in enumerate((nothing, zeros, no_numbers)):
        with serve_sky(viewer(lambda query, body=body: Reply(body))) as server:  # type: ignore[misc]
            assert refused(source(server, tmp_path / str(number))).reason == "no-data"
    with serve_sky(viewer(lambda query: CRASH, jpeg=picture(black=True))) as server:
        assert refused(source(server, tmp_path)).reason == "no-data"


def test_a_viewer_that_fails_where_its_picture_shows_something_is_unavailable(tmp_path: Path) -> None:
    for jpeg in (picture(black=False), CRASH):
        with (
            serve_sky(viewer(lambda query: CRASH, jpeg=jpeg)) as server,
            pytest.raises(SourceUnavailable, match="HTTP status 500"),
        ):
            source(server, tmp_path).fetch(PLACE)


def test_an_answer_of_another_place_is_refused(pair: Reply, tmp_path: Path) -> None:
    with serve_sky(viewer(lambda query: pair)) as server:
        error = refused(source(server, tmp_path), Target("elsewhere", 200.0, 10.0))
    assert "does not hold the position" in str(error)


def test_no_psf_is_noted_and_costs_nothing_else(pair: Reply, tmp_path: Path) -> None:
    with serve_sky(viewer(lambda query: pair)) as server:
        cutout = source(server, tmp_path, psf=True).fetch(PLACE)
    assert "no point spread function (missing-asset)" in cutout.notes
    assert all(band.psf is None for band in cutout.bands)


def test_on_other_pixels_than_the_surveys_a_psf_gives_its_width_alone(psf: Reply, tmp_path: Path) -> None:
    body = viewer_answer(ra=10.0, dec=20.0, size=32, scale_arcsec=0.5)
    with serve_sky(viewer(lambda query: Reply(body), psf=psf)) as server:
        found = source(server, tmp_path, psf=True, pixel_scale_arcsec=0.5, size_pixels=32)
        cutout = found.fetch(Target("x", 10.0, 20.0))
    assert all(band.psf is None and 0.8 < band.psf_fwhm_arcsec < 1.6 for band in cutout.bands)


def test_a_size_that_the_viewer_does_not_give_is_refused_without_asking(tmp_path: Path) -> None:
    with serve_sky(viewer(lambda query: CRASH)) as server:
        assert "3000 at most" in str(refused(source(server, tmp_path), dataclasses.replace(PLACE, size_pixels=4000)))
        assert not server.requests


def moved(body: bytes, *, ra: float, dec: float) -> Reply:
    """Return a recorded answer as if it were of another place."""
    with fits.open(io.BytesIO(body)) as units:
        units[0].header["CRVAL1"], units[0].header["CRVAL2"] = ra, dec
        units[0].data = np.array(units[0].data[:, 112:312, 112:312])
        units[0].header["CRPIX1"] = units[0].header["CRPIX2"] = 100.5
        file = io.BytesIO()
        units.writeto(file)
        return Reply(file.getvalue())


def test_the_download_flags_of_the_nsa_list_are_rehearsed(shared_data: Path, tmp_path: Path) -> None:
    """Filled files give cutouts, unfilled ones a reason or a mask, and a place without a file is outside."""
    path = shared_data / "galaxies/target_lists/nsa_decals_joint.parquet"
    table = pd.read_parquet(path).iloc[::24]
    table.to_parquet(tmp_path / "list.parquet")
    flags = {row.sdss_id: (row.fits_ready, row.fits_filled) for row in table.itertuples()}
    assert {filled for _, filled in flags.values()} == {True, False}
    good, bad = ((shared_data / RECORDED / f"decals_dr3_{name}.fits").read_bytes() for name in ("d", "d_badpix"))
    targets = read_targets(tmp_path / "list.parquet").targets
    outside = (Target("south", 10.0, -85.0), Target("north", 200.0, 83.0))
    places = {f"{target.ra:.7f}": target for target in targets}

    def answer(query: dict[str, str]) -> Reply:
        target = places.get(query["ra"])
        if target is None or not flags[target.object_id][0]:
            return CRASH
        return moved(good if flags[target.object_id][1] else bad, ra=target.ra, dec=target.dec)

    found: dict[str, Cutout | SourceRejected] = {}
    with serve_sky(viewer(answer, jpeg=picture(black=True))) as server:
        strict = source(server, tmp_path, size_pixels=200)
        lenient = source(server, tmp_path, size_pixels=200, max_empty_share=0.9)

        def fetch(target: Target) -> None:
            try:
                found[target.object_id] = strict.fetch(target)
            except SourceRejected as error:
                found[target.object_id] = error

        for start in range(0, len(targets) + 2, 4):
            threads = [threading.Thread(target=fetch, args=(t,)) for t in [*targets, *outside][start : start + 4]]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        unfilled = next(target for target in targets if not flags[target.object_id][1])
        masked = lenient.fetch(unfilled)
    assert len(found) == len(targets) + 2
    for target in targets:
        result = found[target.object_id]
        if flags[target.object_id][1]:
            assert isinstance(result, Cutout)
            assert result.valid.mean() > 0.99
        else:
            assert isinstance(result, SourceRejected)
            assert (result.reason, "are empty" in str(result)) == ("invalid-input", True)
    for target in outside:
        result = found[target.object_id]
        assert isinstance(result, SourceRejected)
        assert result.reason == "no-data"
    assert 0.4 < 1 - masked.valid.mean() < 0.9
    assert any("are empty" in note for note in masked.notes)
