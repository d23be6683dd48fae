"""Scores of profiles: known differences come out, names are matched, nothing lost is forgotten."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from flows.cli import app
from tasks.errors import ConfigurationError
from tasks.sky.photometry import POGSON
from tasks.sky.profile import Profile
from tasks.sky.profile_comparison import RADII, ComparisonRule, compare, match_names, score
from tasks.sky.profile_evaluation import describe_scores, evaluate_product, read_profiles
from tasks.sky.profile_table import to_table
from tasks.sky.reference_profiles import Reference, read_references

RADIUS = np.geomspace(0.5, 30.0, 60)


def law(radius: np.ndarray) -> np.ndarray:
    """Return an exponential disc, mag per arcsec^2: linear in the radius."""
    return 20.0 + 0.2 * radius


def reference(name: str = "a", *, band: str = "r", tool: str = "truth", offset: float = 0.0) -> Reference:
    radius = np.geomspace(0.2, 50.0, 200)
    return Reference(name, band, tool, radius, law(radius) + offset, np.zeros(200))


def profile(
    name: str = "a",
    *,
    offset: float = 0.0,
    signal: float | np.ndarray = 50.0,
    method: str = "isophote",
    band: str = "r",
) -> Profile:
    mu = law(RADIUS) + offset
    intensity = 10 ** (0.4 * (22.5 - mu))
    error = intensity / signal
    return Profile(
        name,
        band,
        method=method,
        radius_arcsec=RADIUS,
        intensity=intensity,
        intensity_error=error,
        mu=mu,
        mu_error=POGSON * error / intensity,
        ellipticity=np.zeros(60),
        position_angle=np.zeros(60),
        flags=np.zeros(60, dtype=np.int32),
    )


def test_a_constant_offset_is_rms_and_offset() -> None:
    found = compare(profile(offset=0.1), reference(), rule=ComparisonRule())
    assert found is not None
    assert found.difference.size == RADII
    assert found.rms == pytest.approx(0.1, abs=2e-3)
    assert found.offset == pytest.approx(0.1, abs=2e-3)


def test_only_radii_that_are_asked_for_and_seen_well_are_compared() -> None:
    rule = ComparisonRule(first_arcsec=1.5, last_arcsec=20.0)
    found = compare(profile(), reference(), rule=rule)
    assert found is not None
    assert (found.radius_arcsec[0], found.radius_arcsec[-1]) == pytest.approx((1.5, 20.0))
    fading = np.where(RADIUS < 8.0, 20.0, 1.0)
    found = compare(profile(signal=fading), reference(), rule=rule)
    assert found is not None
    assert found.radius_arcsec[-1] == pytest.approx(RADIUS[RADIUS < 8.0][-1])
    assert compare(profile(), reference(), rule=ComparisonRule(first_arcsec=40.0)) is None


def test_what_comes_back_after_the_profile_sank_into_noise_is_not_compared() -> None:
    signal = np.full(60, 20.0)
    signal[30] = signal[40:42] = 1.0
    found = compare(profile(signal=signal), reference(), rule=ComparisonRule())
    assert found is not None
    assert found.radius_arcsec[-1] == pytest.approx(RADIUS[39])


def test_a_profile_without_errors_is_compared_to_its_end_and_states_no_coverage() -> None:
    bare = profile(offset=0.1)
    bare = replace(bare, intensity_error=np.full(bare.mu.size, np.nan), mu_error=np.full(bare.mu.size, np.nan))
    found = compare(bare, reference(), rule=ComparisonRule())
    assert found is not None
    assert found.rms == pytest.approx(0.1, abs=1e-3)
    assert np.isnan(found.sigma).all()
    (scores,) = score([bare], [reference()], rule=ComparisonRule())["methods"].values()
    assert (scores["lost"], scores["coverage68"], scores["by_signal"]) == (0.0, None, [])


def test_errors_that_are_right_hold_two_thirds() -> None:
    rng = np.random.default_rng(3)
    profiles, references = [], []
    for number in range(60):
        made = profile(str(number), signal=20.0)
        noise = rng.normal(scale=made.mu_error[0])  # one draw for a galaxy: interpolation would average more
        profiles.append(profile(str(number), signal=20.0, offset=noise))
        references.append(reference(str(number)))
    scores = score(profiles, references, rule=ComparisonRule())["methods"]["isophote"]
    assert scores["coverage68"] == pytest.approx(0.683, abs=0.12)
    assert scores["rms_median"] == pytest.approx(0.674 * POGSON / 20.0, rel=0.25)


def test_a_profile_that_was_not_measured_is_lost_and_counted() -> None:
    rows = [profile("a"), Profile("b", "r", state="failed", method="isophote"), profile("c", signal=1.0)]
    scores = score(rows, [reference(name) for name in "abcd"], rule=ComparisonRule())["methods"]["isophote"]
    assert (scores["n"], scores["lost"]) == (4, 0.75)


def test_methods_stand_beside_each_other_and_tools_too() -> None:
    rows = [profile(offset=0.05), profile(offset=0.2, method="photutils")]
    tools = [reference(tool="autoprof"), reference(tool="other", offset=0.3)]
    report = score(rows, tools, rule=ComparisonRule())
    found = {name: entry["offset_median"] for name, entry in report["methods"].items()}
    assert found == pytest.approx({"isophote": 0.05, "photutils": 0.2}, abs=2e-3)
    against = report["references"]["other"]["methods"]["photutils"]["offset_median"]
    assert against == pytest.approx(-0.1, abs=2e-3)
    assert report["between"]["autoprof and other"]["rms_median"] == pytest.approx(0.3, abs=1e-3)
    words = describe_scores({**report, "notes": ["a note"]})
    assert "against autoprof" in words
    assert words.endswith("a note")


def test_signal_bins_hold_every_radius_once() -> None:
    scores = score([profile(signal=np.geomspace(200, 4, 60))], [reference()], rule=ComparisonRule())["methods"][
        "isophote"
    ]
    assert sum(part["radii"] for part in scores["by_signal"]) == RADII
    assert [part["from"] for part in scores["by_signal"]] == [3, 5, 10, 30, 100]
    json.dumps(scores, allow_nan=False)


def test_names_are_matched_by_a_beginning_that_fits_but_one() -> None:
    known = {"ESO479-G001_r_2000", "decals_59", "a_1", "a_2"}
    names = ["ESO479-G001", "decals_59_img_ivar", "a", "b"]
    found = match_names([reference(name) for name in names], known)
    assert [each.object_id for each in found] == ["ESO479-G001_r_2000", "decals_59"]


def test_published_tables_are_read_by_their_names(tmp_path: Path) -> None:
    (tmp_path / "n_1_g.prof").write_text("# arcsec,mag\nR,SB,SB_e\n1,20,0.01\n2,21,0.02\n3,99.999,99.999\n")
    (tmp_path / "n_1_r.photutils.csv").write_text("R_arcsec,SB_mag_arcsec2,SB_e\n2,21,nan\n1,20,0.01\n4,nan,nan\n")
    first, second = read_references(tmp_path)
    assert (first.object_id, first.band, first.tool, first.mu.tolist()) == ("n_1", "g", "autoprof", [20, 21])
    assert (second.band, second.tool, second.radius_arcsec.tolist()) == ("r", "photutils", [1, 2])
    assert second.mu_error.tolist() == [0.01, 0.0]


def test_truth_is_read_as_lists_or_row_by_row_as_intensity_or_magnitude(tmp_path: Path) -> None:
    import pandas as pd

    flux = {"object_id": ["7"], "band": ["r"], "radius_arcsec": [[1.0, 2.0]], "intensity": [[10.0, 1.0]]}
    pd.DataFrame(flux).to_parquet(tmp_path / "lists.parquet")
    rows = pd.DataFrame({"object_id": "7", "band": "r", "radius_arcsec": [1.0, 2.0], "mu": [20.0, 22.5]})
    rows.to_csv(tmp_path / "rows.csv", index=False)
    lists, long = read_references(tmp_path)
    assert lists.mu.tolist() == [20.0, 22.5] == long.mu.tolist()
    assert (lists.object_id, long.object_id, lists.tool) == ("7", "7", "truth")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("nothing.txt", "", "no profile in it"),
        ("table.csv", "x,y\n1,2\n", "named <object>_<band>"),
        ("a_r.csv", "x,y\n1,2\n", "no column radius_arcsec"),
        ("long.csv", "object_id,mu\n1,2\n", "no column band"),
    ],
)
def test_a_file_that_is_no_reference_is_named(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigurationError, match=said):
        read_references(tmp_path)


def test_the_command_prints_scores_and_draws_them(tmp_path: Path) -> None:
    pq.write_table(to_table([profile(offset=0.1), profile("b", offset=-0.1)]), tmp_path / "found.parquet")
    pq.write_table(to_table([profile(), profile("b")]), tmp_path / "truth.parquet")
    arguments = ["evaluate", "profiles", str(tmp_path / "found.parquet"), "--truth", str(tmp_path / "truth.parquet")]
    result = CliRunner().invoke(app, [*arguments, "--from", "1", "--out", str(tmp_path / "out"), "--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.output.splitlines()[-1])
    assert report["methods"]["isophote"]["rms_median"] == pytest.approx(0.1, abs=1e-3)
    assert report["methods"]["isophote"]["lost"] == 0
    assert "lies in no warehouse" in report["notes"][0]
    assert (tmp_path / "out" / "evaluation.png").read_bytes()[:4] == b"\x89PNG"
    assert math.isclose(report["rule"]["first_arcsec"], 1.0)
    wrong = CliRunner().invoke(app, [*arguments, "--from", "9", "--to", "3"])
    assert wrong.exit_code == 2


def test_what_has_no_profiles_or_no_common_object_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no such file"):
        read_profiles(str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigurationError, match="no Parquet file of profiles"):
        read_profiles(str(tmp_path / "empty"))
    pq.write_table(to_table([profile("x")]), tmp_path / "found.parquet")
    pq.write_table(to_table([profile("y")]), tmp_path / "truth.parquet")
    with pytest.raises(ConfigurationError, match="no profile of an object"):
        evaluate_product(str(tmp_path / "found.parquet"), tmp_path / "truth.parquet", rule=ComparisonRule())
