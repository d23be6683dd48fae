"""The page of an evaluation: pictures on one stretch, every metric with its floor."""

from __future__ import annotations

import io

import numpy as np
from generation_cases import drawn
from PIL import Image

from tasks.sky.generation_evaluation import score_sets
from tasks.sky.generation_report import draw_evaluation, write_page


def test_the_page_holds_every_metric_and_a_picture_full_of_ink() -> None:
    scored = score_sets(drawn(60, 42), drawn(120, 41), train=drawn(60, 43), resamples=5)
    page = write_page(scored.report, "evaluation.png")
    for metric in scored.report["metrics"].values():
        assert f"| {metric['label']} |" in page
    assert "![real and generated galaxies, distributions, metrics](evaluation.png)" in page
    assert "nearer to train than to 60 held-out galaxies" in page
    pixels = np.asarray(Image.open(io.BytesIO(draw_evaluation(scored))).convert("L"))
    # a page with ink on it from top to bottom
    assert pixels.shape[0] > pixels.shape[1] > 1400
    assert (pixels.std(axis=1).reshape(-1)[: pixels.shape[0] // 8 * 8].reshape(8, -1).max(axis=1) > 5).all()
