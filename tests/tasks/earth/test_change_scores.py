"""Scores of changes, by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from storage.classes import NO_CLASS
from tasks.earth.change import GAIN, LOSS
from tasks.earth.change_scores import FoundChange, TrueChange, describe_scores, scores_of


def test_scores_by_hand() -> None:
    truth = TrueChange(
        np.array([[LOSS, LOSS, LOSS, 0, GAIN]], np.uint8), np.array([[100, 100, 100, 0, 50]]), np.ones((1, 5), bool)
    )
    found = FoundChange(np.array([[LOSS, LOSS, 0, LOSS, 0]], np.uint8), np.array([[110, 150, 0, 7, 0]]))
    loss = scores_of(found, truth)["loss"]
    assert loss["pixels"] == {"true": 3, "mapped": 3, "recall": 0.6667, "precision": 0.6667, "precision_next_to": 1.0}
    assert loss["date"] == {"n": 2, "median": 30.0, "mean": 30.0, "within": {"30": 0.5, "60": 1.0, "90": 1.0}}
    assert scores_of(found, truth)["gain"]["pixels"]["recall"] == 0.0
    young = replace(truth, woodland=np.array([[True, False, False, True, True]]))
    assert scores_of(found, young)["loss"]["pixels"]["precision"] == 0.5


def test_what_was_not_seen_is_neither_missed_nor_wrong() -> None:
    truth = TrueChange(np.full((1, 4), LOSS, np.uint8), np.full((1, 4), 100), np.ones((1, 4), bool))
    found = FoundChange(np.array([[LOSS, NO_CLASS, NO_CLASS, 0]], np.uint8), np.full((1, 4), 100))
    assert scores_of(found, truth)["loss"]["pixels"] == {
        "true": 2, "mapped": 1, "recall": 0.5, "precision": 1.0, "precision_next_to": 1.0,
    }  # fmt: skip


def test_nothing_found_and_nothing_true_has_no_scores_but_words() -> None:
    none = np.zeros((3, 3), np.uint8)
    scores = scores_of(FoundChange(none, none.astype(int)), TrueChange(none, none.astype(int), none == 0))
    assert scores["gain"]["pixels"]["recall"] is None
    assert scores["gain"]["patches"]["precision"] is None
    assert " - " in describe_scores({"item": "i", "pixels": 9, "methods": {"canopus": scores}})
