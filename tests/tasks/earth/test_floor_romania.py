"""The floor on real data: tree cover of 70 % or more from the Romanian Sentinel-2 series, blocks held out."""

from __future__ import annotations

from pathlib import Path

import pytest
from hillside_cases import BANDS, BLOCK, Hillside, read_hillside, scores_of

from storage.classes import CANOPY_OR_NOT
from tasks.earth.floor import LabelledBlock, train_forest
from tasks.earth.label_splits import blocked_folds

TARGET = 0.935


@pytest.fixture(scope="module")
def hillside(shared_data: Path) -> Hillside:
    return read_hillside(shared_data)


def test_one_split_of_the_real_series_reaches_the_target(hillside: Hillside) -> None:
    found = scores_of(hillside, range(1)).per_seed[0]
    assert found.pr_auc is not None
    assert found.pr_auc >= TARGET
    assert found.prevalence == pytest.approx(0.325, abs=0.001)


@pytest.mark.slow
def test_training_by_blocks_reports_the_same_quality(hillside: Hillside) -> None:
    """The path of the product: pixels, not cells; one pooled split; classes from the settings."""
    folds = blocked_folds((100, 70), block_size=BLOCK, folds=5, seed=0)
    halves = [slice(0, 3500), slice(3500, 7000)]
    blocks = [
        LabelledBlock(
            hillside.reflectance[:, :, half],
            hillside.valid[:, half],
            hillside.dates,
            hillside.labels.ravel()[half],
            folds.ravel()[half],
        )
        for half in halves
    ]
    metrics = train_forest(blocks, bands=BANDS, classes=CANOPY_OR_NOT, jobs=2).metrics
    assert metrics["classes"]["none"]["pr_auc"] >= TARGET
    assert metrics["classes"]["none"]["prevalence"] == pytest.approx(0.325, abs=0.001)
    assert metrics["canopy"]["roc_auc"] > 0.95


@pytest.mark.slow
def test_five_splits_of_the_real_series_reach_the_target(
    hillside: Hillside, capsys: pytest.CaptureFixture[str]
) -> None:
    found = scores_of(hillside, range(5))
    with capsys.disabled():
        print(
            f"\nnot-canopy, 20 m cells, pooled 5-fold over 10 x 10 cells: PR-AUC {found.pr_auc.mean():.4f} "
            f"+- {found.pr_auc.std(ddof=1):.4f} ({found.pr_auc.min():.4f} to {found.pr_auc.max():.4f}), "
            f"ROC-AUC {found.roc_auc.mean():.4f}, prevalence {found.per_seed[0].prevalence:.3f}"
        )
    assert found.pr_auc.mean() >= TARGET
    assert found.pr_auc.std(ddof=1) < 0.01
