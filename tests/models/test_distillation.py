"""A student comes to answer as its teacher does."""

from __future__ import annotations

import torch
from series_cases import SMALL, answers, lively_model, questions, series

from models.distillation import Distillation
from models.earthpt import EarthPT, EarthPTConfig


def test_the_teacher_is_not_trained_and_not_saved() -> None:
    known = lively_model(3)
    lesson = Distillation(EarthPT(SMALL), known)
    assert len(list(lesson.parameters())) == len(list(lesson.student.parameters()))
    assert not any(name.startswith("_teacher") for name in lesson.state_dict())
    lesson.loss(series(), generator=torch.Generator().manual_seed(0)).backward()
    assert all(parameter.grad is None for parameter in known.parameters())


def test_a_student_that_knows_all_its_teacher_does_has_no_distance() -> None:
    known = lively_model(3)
    student = EarthPT(SMALL)
    student.load_state_dict(known.state_dict())
    lesson = Distillation(student, known, truth_share=0.0)
    assert lesson.loss(series(), generator=torch.Generator().manual_seed(0)) == 0


def test_a_student_comes_nearer_to_its_teacher() -> None:
    known, batch = lively_model(3), series(count=8)
    student = EarthPT(EarthPTConfig(layers=1, heads=2, width=16, pointers=2, queries=16, band_dropout=0.0))
    lesson = Distillation(student, known, truth_share=0.1)
    optimiser = torch.optim.Adam(lesson.parameters(), 5e-3)
    asked = questions(batch)
    wanted = answers(known, batch, asked)
    before = (answers(student, batch, asked) - wanted).abs().mean()
    student.train()
    for step in range(80):
        optimiser.zero_grad()
        lesson.loss(batch, generator=torch.Generator().manual_seed(step)).backward()
        optimiser.step()
    assert (answers(student, batch, asked) - wanted).abs().mean() < 0.6 * before
