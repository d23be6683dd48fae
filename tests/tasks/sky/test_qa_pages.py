"""Pictures and pages of a run: ellipses where they are measured, links that lead somewhere, nothing from outside."""

from __future__ import annotations

import html.parser
import math
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sky_cases import sersic_cutout, sersic_intensity

from storage.location import resolve
from storage.manifest import Run
from tasks.sky.extraction_plan import BatchJob, ExtractionRequest, ObjectRow
from tasks.sky.isophotes import IsophoteMethod
from tasks.sky.photometry import magnitude
from tasks.sky.prepare import prepare_cutout
from tasks.sky.profile import ObjectFlag, Profile, RadiusFlag, unmeasured
from tasks.sky.qa_pages import flag_names, write_batch_page, write_index_page
from tasks.sky.qa_plots import draw_object, ellipse_radius, geometry_of, model_image, reference_band, sky_jacobian
from tasks.sky.targets import Target

PNG = b"\x89PNG\r\n\x1a\n"


def elliptical(ratio: float, angle: float, *, band: str = "r") -> Profile:
    radius = np.geomspace(0.2, 12.0, 30)
    law = sersic_intensity(radius, total=100.0, half_light=3.0, index=1.0, ratio=ratio)
    mu = magnitude(law)
    return Profile(
        "a",
        band,
        radius_arcsec=radius,
        intensity=law,
        intensity_error=np.full(30, 0.01),
        mu=mu,
        mu_error=np.full(30, 0.02),
        ellipticity=np.full(30, 1 - ratio),
        position_angle=np.full(30, angle),
        flags=np.zeros(30, dtype=np.int32),
        centre_x=47.5,
        centre_y=47.5,
        sky=0.0,
    )


@pytest.mark.parametrize(("ratio", "angle"), [(1.0, 0.0), (0.5, 0.0), (0.4, 40.0), (0.7, 135.0)])
def test_the_radius_of_a_place_is_that_of_the_ellipse_through_it(ratio: float, angle: float) -> None:
    profile, turn = elliptical(ratio, angle), np.linspace(0, 2 * np.pi, 50)
    sine, cosine = math.sin(math.radians(angle)), math.cos(math.radians(angle))
    for radius in (0.1, 1.0, 4.321, 11.0):
        along, across = radius * np.cos(turn), radius * ratio * np.sin(turn)
        east, north = along * sine + across * cosine, along * cosine - across * sine
        jacobian = np.array([[-0.5, 0.0], [0.0, 0.5]])
        found = ellipse_radius(profile, east / -0.5, north / 0.5, jacobian)
        np.testing.assert_allclose(found, radius, rtol=2e-3)
    assert np.isinf(ellipse_radius(profile, np.array([100.0]), np.array([0.0]), np.eye(2)))


def test_the_model_of_a_profile_is_its_intensity_and_nothing_beyond() -> None:
    profile = elliptical(0.8, 0.0)
    np.testing.assert_allclose(model_image(profile, profile.radius_arcsec), profile.intensity)
    assert model_image(profile, np.array([0.01]))[0] == profile.intensity[0]
    assert np.isnan(model_image(profile, np.array([np.inf]))[0])


def test_the_jacobian_is_that_of_the_wcs_and_up_is_north_without() -> None:
    cutout = sersic_cutout(side=32, scale=0.4)
    expected = np.array([[-0.4, 0.0], [0.0, 0.4]])
    np.testing.assert_allclose(sky_jacobian(cutout, 16, 16), expected, atol=1e-6)
    np.testing.assert_allclose(sky_jacobian(replace(cutout, wcs=""), 16, 16), expected)


def test_r_is_shown_where_it_was_measured_and_else_the_first_that_was() -> None:
    g, r, other = elliptical(1, 0, band="g"), elliptical(1, 0, band="r"), elliptical(1, 0, band="F814W")
    lost = replace(r, state="failed")
    assert reference_band([g, r]).band == "r"
    assert reference_band([g, lost]).band == "g"
    assert reference_band([lost, other]).band == "F814W"


def test_the_geometry_is_that_of_the_band_in_which_it_was_fitted() -> None:
    fixed = np.full(30, int(RadiusFlag.FIXED_GEOMETRY), dtype=np.int32)
    g, r = replace(elliptical(1, 0, band="g"), flags=fixed), elliptical(1, 0, band="r")
    assert geometry_of([g, r, replace(r, band="z", state="failed")]) is r


@pytest.mark.parametrize("side", [40, 400])
def test_a_measured_galaxy_is_drawn_the_same_each_time(side: int) -> None:
    cutout = prepare_cutout(sersic_cutout(side=side, bands=("g", "r"), half_light=side / 40))
    profiles = IsophoteMethod().measure(cutout, time_limit_s=20)
    drawn = draw_object(cutout, profiles)
    assert drawn.startswith(PNG)
    assert draw_object(cutout, profiles) == drawn


def test_what_is_odd_is_drawn_too() -> None:
    cutout = sersic_cutout(side=96, bands=("g", "r"))
    negative = replace(elliptical(0.9, 10.0), mu=np.full(30, np.nan), intensity=np.full(30, -1.0))
    assert draw_object(cutout, [elliptical(0.8, 20.0, band="g"), negative]).startswith(PNG)
    unknown = replace(elliptical(0.5, 0.0), ellipticity=np.full(30, np.nan), position_angle=np.full(30, np.nan))
    assert draw_object(cutout, [unknown]).startswith(PNG)
    holes = replace(cutout, valid=np.zeros_like(cutout.valid))
    assert draw_object(holes, [elliptical(0.5, 0.0)]).startswith(PNG)


class Links(html.parser.HTMLParser):
    """Collects what a page refers to, and its anchors."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.links.append(value)
            if name == "id" and value:
                self.anchors.add(value)


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    """Write three batches of three objects."""
    run = Run(resolve(tmp_path / "run"), "profiles-x")
    request = ExtractionRequest("t.csv", "legacy", "w")
    rows = []
    for index in range(3):
        targets = tuple(Target(f"o<{index}>/{number}", 1.0, 2.0) for number in range(3))
        job = BatchJob(request, run, index, 3, targets)
        states = ("measured", "rejected", "outside")
        own = [
            ObjectRow(
                target.object_id, 1.0, float("nan"), index, state, reason, "said <so>", flags=16 if reason == "" else 0
            )
            for target, state, reason in zip(targets, states, ("", "unreadable", "no-data"), strict=True)
        ]
        lost = unmeasured("x", ("g", "r"), state="rejected", reason="unreadable", message="")
        write_batch_page(job, [(own[0], (elliptical(0.5, 0.0),)), (own[1], lost), (own[2], lost)])
        folder = tmp_path / "run" / "pages"
        (folder / job.name).mkdir(parents=True)
        (folder / job.name / "0000.png").write_bytes(PNG)
        (folder / f"{job.name}.gallery.png").write_bytes(PNG)
        rows += own
    write_index_page(run, rows, title="A <title>", notes=("a note",))
    return tmp_path / "run" / "pages"


def test_every_link_leads_somewhere_and_none_outside(pages: Path) -> None:
    found = {path: Links(path.read_text()) for path in pages.glob("*.html")}
    assert len(found) == 4
    for path, page in found.items():
        assert page.links
        for link in page.links:
            name, _, anchor = link.partition("#")
            assert not re.match(r"[a-z]+:|/", name), link
            assert (path.parent / name).exists(), link
            if anchor:
                assert anchor in found[path.parent / name].anchors, link
        assert "<title>" in path.read_text()
        assert "o<" not in path.read_text()
    middle = found[pages / "00001.html"].links
    assert {"00000.html", "00002.html", "index.html"} <= set(middle)


def test_the_index_counts_states_reasons_and_flags(pages: Path) -> None:
    text = (pages / "index.html").read_text()
    for cells in (
        "<td>measured</td><td>3</td>",
        "<td>rejected: unreadable</td><td>3</td>",
        "<td>restarted</td><td>3</td>",
    ):
        assert cells in text
    assert "said &lt;so&gt;" in text
    assert "a note" in text


def test_flags_have_the_names_of_their_meaning() -> None:
    assert flag_names(int(ObjectFlag.NO_SKY | ObjectFlag.TIME_LIMIT)) == ["no-sky", "time-limit"]
    assert flag_names(0) == []


@pytest.mark.slow
def test_the_filter_hides_what_is_not_chosen_in_a_browser(pages: Path, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium here")
    page = pages / "00000.html"
    clicked = page.read_text().replace(
        "</body>", "<script>document.querySelector('[data-name=rejected]').click()</script></body>"
    )
    page.write_text(clicked)
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    done = subprocess.run(
        [*command, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    shown = re.findall(r"<article[^>]*>", done.stdout)
    assert [("hidden" in tag, "rejected" in tag) for tag in shown] == [(True, False), (False, True), (True, False)]
    assert '<span id="shown">1</span>' in done.stdout
