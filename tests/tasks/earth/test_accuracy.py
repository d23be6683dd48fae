"""Estimators against the worked examples of the papers, against exhaustive truth, and at their edges."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest

from tasks.earth.accuracy import (
    NOT_ESTIMATED,
    ProbabilitySampleError,
    estimate_from_sample,
    mapped_areas,
    olofsson,
    stehman,
    stratum_sizes_of,
)
from tasks.errors import ConfigurationError

CHANGE = ("deforestation", "forest gain", "stable forest", "stable non-forest")
TABLE_8 = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]])
MAPPED_PIXELS = (200_000, 150_000, 3_200_000, 6_450_000)
HECTARES = sum(MAPPED_PIXELS) * 30 * 30 / 10_000

STRATA = "A" * 10 + "B" * 10 + "C" * 10 + "D" * 10
MAPPED = "A" * 7 + "B" * 3 + "A" + "B" * 11 + "C" * 6 + "BB" + "D" * 10
REFERENCE = "AAAAACBABC" + "ABBBBBAABB" + "CCCCCDDBBA" + "DDDDDDDCCB"
SIZES = {"A": 40_000, "B": 30_000, "C": 20_000, "D": 10_000}


def half_width(estimate: object) -> float:
    return 1.96 * estimate.standard_error  # type: ignore[attr-defined]


def test_olofsson_2014_worked_example_accuracies() -> None:
    """Section 5.2 and tables 8-9: 0.95 +- 0.02 overall, and the user's and producer's accuracies printed there."""
    found = olofsson(TABLE_8, MAPPED_PIXELS, CHANGE)
    assert found.overall.value == pytest.approx(0.947, abs=0.0005)
    assert half_width(found.overall) == pytest.approx(0.0185, abs=0.0005)
    users = [(0.88, 0.07), (0.73, 0.10), (0.93, 0.04), (0.96, 0.02)]
    # the paper prints +-0.23 and +-0.01 for the second and last producer's accuracy; its equation 7 gives these
    producers = [(0.75, 0.21), (0.85, 0.254), (0.93, 0.03), (0.96, 0.018)]
    for estimates, published in ((found.users, users), (found.producers, producers)):
        for estimate, (value, half) in zip(estimates, published, strict=True):
            assert estimate.value == pytest.approx(value, abs=0.005)
            assert half_width(estimate) == pytest.approx(half, abs=0.005)


def test_olofsson_2014_worked_example_areas() -> None:
    """Section 5.2: 21,158 +- 6,158 ha of deforestation, and so on, to the hectare."""
    found = olofsson(TABLE_8, MAPPED_PIXELS, CHANGE)
    published = [(21_158, 6_158), (11_686, 3_756), (285_770, 15_510), (581_386, 16_282)]
    for share, (hectares, half) in zip(found.area_share, published, strict=True):
        assert share.value * HECTARES == pytest.approx(hectares, abs=1)
        assert half_width(share) * HECTARES == pytest.approx(half, abs=1)
        assert share.low < share.value < share.high


def test_stehman_2014_numerical_example() -> None:
    """Section 4 of the paper: 40 units in strata of 40, 30, 20 and 10 thousand pixels."""
    found = stehman(STRATA, MAPPED, REFERENCE, stratum_sizes=SIZES, classes=tuple("ABCD"))
    assert found.overall.value == pytest.approx(0.63)
    assert found.overall.standard_error == pytest.approx(0.085, abs=0.0005)
    assert [share.value for share in found.area_share] == pytest.approx([0.35, 0.34, 0.20, 0.11])
    assert found.area_share[0].standard_error == pytest.approx(0.082, abs=0.0005)
    assert found.area_share[2].standard_error == pytest.approx(0.064, abs=0.0005)
    assert found.users[1].value == pytest.approx(0.574, abs=0.0005)
    assert found.users[1].standard_error == pytest.approx(0.125, abs=0.0005)
    assert found.producers[1].value == pytest.approx(0.794, abs=0.0005)
    # the text is cited with 0.114; equation 28 on its table gives 0.1165, as the R packages mapaccuracy and mapac do
    assert found.producers[1].standard_error == pytest.approx(0.1165, abs=0.0005)
    assert found.matrix[1, 2] == pytest.approx(0.08)
    assert found.matrix.sum() == pytest.approx(1)


def test_both_methods_agree_where_strata_are_the_classes() -> None:
    rows, columns = np.indices(TABLE_8.shape)
    mapped = np.repeat(np.array(CHANGE)[rows.ravel()], TABLE_8.ravel())
    reference = np.repeat(np.array(CHANGE)[columns.ravel()], TABLE_8.ravel())
    sizes = dict(zip(CHANGE, MAPPED_PIXELS, strict=True))
    a = olofsson(TABLE_8, MAPPED_PIXELS, CHANGE)
    b = stehman(mapped, mapped, reference, stratum_sizes=sizes, classes=CHANGE)
    np.testing.assert_allclose(a.matrix, b.matrix)
    for one, other in zip(
        (a.overall, *a.area_share, *a.producers), (b.overall, *b.area_share, *b.producers), strict=True
    ):
        assert one.value == pytest.approx(other.value)
        assert one.standard_error == pytest.approx(other.standard_error, rel=1e-3)  # finite population correction


@pytest.mark.parametrize("strata_are_classes", [True, False])
def test_intervals_hold_the_truth_as_often_as_they_say(strata_are_classes: bool) -> None:
    rng = np.random.default_rng(0)
    truth = rng.random(60_000) < 0.2
    mapped = np.where(rng.random(60_000) < 0.1, ~truth, truth)
    stratum = mapped if strata_are_classes else rng.random(60_000) < np.where(mapped, 0.7, 0.2)
    names = np.array(["none", "canopy"])
    sizes = {name: int((names[stratum.astype(int)] == name).sum()) for name in names}
    held = np.zeros(3)
    for _ in range(300):
        units = np.concatenate([rng.choice(np.flatnonzero(stratum == s), 600, replace=False) for s in (False, True)])
        arguments = [names[values[units].astype(int)].tolist() for values in (stratum, mapped, truth)]
        if strata_are_classes:
            counts = np.array([[np.sum((mapped[units] == i) & (truth[units] == j)) for j in (0, 1)] for i in (0, 1)])
            found = olofsson(counts, [sizes[name] for name in names], names.tolist())
        else:
            found = stehman(*arguments, stratum_sizes=sizes, classes=names.tolist())
        true_producers = (mapped & truth).sum() / truth.sum()
        for i, (estimate, value) in enumerate(
            [
                (found.area_share[1], truth.mean()),
                (found.overall, (mapped == truth).mean()),
                (found.producers[1], true_producers),
            ]
        ):
            held[i] += estimate.low <= value <= estimate.high
    assert (held / 300 > 0.92).all()
    assert (held / 300 < 0.99).all()


def test_a_stratum_of_one_unit_gives_values_but_no_interval() -> None:
    counts = TABLE_8.copy()
    counts[0] = (1, 0, 0, 0)
    found = olofsson(counts, MAPPED_PIXELS, CHANGE)
    assert found.overall.value == pytest.approx(0.95, abs=0.01)
    assert math.isnan(found.overall.low)
    assert "deforestation has one sampled unit" in found.overall.note
    assert math.isnan(found.users[0].standard_error)
    of_stehman = stehman("AAB", "AAB", "ABB", stratum_sizes={"A": 10, "B": 10}, classes="AB")
    assert math.isnan(of_stehman.overall.high)
    assert of_stehman.overall.value == 0.75


def test_a_stratum_without_units_is_an_error() -> None:
    counts = TABLE_8.copy()
    counts[1] = 0
    with pytest.raises(ConfigurationError, match="forest gain has no interpreted sample unit"):
        olofsson(counts, MAPPED_PIXELS, CHANGE)
    with pytest.raises(ConfigurationError, match="C has no"):
        stehman("AB", "AB", "AB", stratum_sizes={"A": 5, "B": 5, "C": 5}, classes="ABC")


def test_full_agreement_gives_no_interval_of_width_zero() -> None:
    found = olofsson(np.diag([50, 50]), (900, 100), ("none", "canopy"))
    assert found.overall.value == 1
    assert math.isnan(found.overall.low)
    assert "no interval" in found.overall.note
    assert found.users[0].low == pytest.approx(0.025 ** (1 / 50))  # exact binomial
    assert found.users[0].high == 1


def test_a_class_that_nobody_saw_has_no_accuracy() -> None:
    found = olofsson(np.array([[40, 0, 2], [0, 0, 0], [3, 0, 30]]), (900, 0, 100), ("none", "rare", "canopy"))
    assert math.isnan(found.producers[1].value)
    assert math.isnan(found.users[1].value)
    assert found.area_share[1].value == 0
    assert found.to_dict()["classes"]["rare"]["users_accuracy"]["value"] is None


def test_a_census_leaves_nothing_uncertain() -> None:
    found = stehman("AABB", "AABB", "ABBB", stratum_sizes={"A": 2, "B": 2}, classes="AB")
    assert found.overall.low == found.overall.value == found.overall.high == 0.75


def interpreted_sample(**fields: object) -> pd.DataFrame:
    frame = pd.DataFrame(
        {
            "stratum": list(STRATA),
            "map_class": list(MAPPED),
            "reference": list(REFERENCE),
            "inclusion_probability": [10 / SIZES[s] for s in STRATA],
        }
    )
    return frame.assign(**fields)


def test_a_sample_chooses_its_estimators_by_its_strata() -> None:
    other_strata = estimate_from_sample(interpreted_sample(), tuple("ABCD"))
    assert other_strata.method == "stehman2014"
    assert other_strata.overall.value == pytest.approx(0.63)
    assert stratum_sizes_of(interpreted_sample()) == pytest.approx(SIZES)
    map_strata = estimate_from_sample(
        interpreted_sample(stratum=list(MAPPED), inclusion_probability=0.01), tuple("ABCD")
    )
    assert map_strata.method == "olofsson2014"


def test_units_without_reference_are_left_out_and_counted() -> None:
    sample = interpreted_sample()
    sample.loc[[3, 22], "reference"] = ["", None]
    found = estimate_from_sample(sample, tuple("ABCD"))
    assert "2 of 40 units" in found.notes[-1]
    assert found.sampled == {"A": 9, "B": 10, "C": 9, "D": 10}


@pytest.mark.parametrize("broken", [0.0, 1.5, math.nan])
def test_a_sample_that_is_no_probability_sample_is_refused(broken: float) -> None:
    with pytest.raises(ProbabilitySampleError, match="inclusion_probability"):
        estimate_from_sample(interpreted_sample(inclusion_probability=broken), tuple("ABCD"))
    with pytest.raises(ProbabilitySampleError, match="canopus sample"):
        estimate_from_sample(interpreted_sample().drop(columns="inclusion_probability"), tuple("ABCD"))
    mixed = interpreted_sample()
    mixed.loc[0, "inclusion_probability"] = 0.5
    with pytest.raises(ProbabilitySampleError, match="differs within stratum 'A'"):
        estimate_from_sample(mixed, tuple("ABCD"))


def test_unknown_references_and_empty_interpretations_are_named() -> None:
    with pytest.raises(ConfigurationError, match="'reference' holds D"):
        estimate_from_sample(interpreted_sample(), tuple("ABC"))
    with pytest.raises(ConfigurationError, match="empty throughout"):
        estimate_from_sample(interpreted_sample(reference=""), tuple("ABCD"))


def test_the_report_is_json_and_in_hectares() -> None:
    report = olofsson(TABLE_8, MAPPED_PIXELS, CHANGE).to_dict(total_hectares=HECTARES)
    again = json.loads(json.dumps(report, allow_nan=False))
    assert again["classes"]["deforestation"]["area_hectares"]["value"] == pytest.approx(21_158, abs=1)


def test_without_a_sample_areas_are_called_mapped_only() -> None:
    report = mapped_areas({"none": 900, "canopy": 100}, pixel_area_m2=100)
    assert report["mapped_hectares"] == {"none": 9.0, "canopy": 1.0}
    assert report["note"] == NOT_ESTIMATED
