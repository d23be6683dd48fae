"""Two rules of sampling, paired: equal ones differ by nothing, a worse one by more than the interval."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from generation_cases import corrupted, drawn

from storage.location import Location, resolve
from tasks.errors import ConfigurationError
from tasks.sky.generation_evaluation import score_sets
from tasks.sky.generation_rules import TwoRules, compare_rules, sample_twice
from tasks.sky.generation_scores import Scored
from tasks.sky.generation_sets import GalaxySet


@pytest.fixture(scope="module")
def scored() -> Scored:
    return score_sets(drawn(60, 42), drawn(120, 41), resamples=5)


def test_one_rule_twice_differs_by_nothing(scored: Scored) -> None:
    found = compare_rules(TwoRules(drawn(60, 42), drawn(60, 42), (1.0, 1.0)), scored, resamples=20)
    assert (found["sgd"]["value"], found["sgd"]["low"], found["sgd"]["high"]) == (0, 0, 0)
    assert found["sgd"]["floor"] == pytest.approx(scored.report["metrics"]["sgd"]["floor"])


def test_a_worse_rule_lies_farther_beyond_its_interval(scored: Scored) -> None:
    worse = corrupted(drawn(60, 42), "flux", 1.0)
    found = compare_rules(TwoRules(worse, drawn(60, 42), (30.0, 1.0)), scored, resamples=50)
    assert found["sgd"]["low"] > 0.25 * found["sgd"]["floor"] > 0
    assert found["images_per_second"] == [30.0, 1.0]


def test_sets_of_other_sizes_are_refused(scored: Scored) -> None:
    with pytest.raises(ConfigurationError, match="60 and 50 galaxies by two rules"):
        compare_rules(TwoRules(drawn(60, 42), drawn(60, 42)[:50], (1.0, 1.0)), scored)


def test_both_rules_are_asked_for_the_same_noise() -> None:
    asked = []

    def draws(warehouse: Location, name: str, count: int, seed: int) -> GalaxySet:
        asked.append((name, count, seed))
        return replace(drawn(60, 42)[:count], origin=f"rule {len(asked)}")

    found = sample_twice(resolve(Path("nowhere")), "model", 10, 7, rules=(draws, draws))
    assert asked == [("model", 10, 7)] * 2
    assert (len(found.one), len(found.other)) == (10, 10)
    assert (found.one.origin, found.other.origin) == ("rule 1", "rule 2")
