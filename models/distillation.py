"""A small EarthPT that learns from a large one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.earthpt import EarthPT, pinball
from models.tokens import Tokens


class Distillation(nn.Module):
    """Trains a student to give a teacher's quantiles, and the truth where they differ.

    Quantiles of a teacher carry more than one noisy look does, so the student needs fewer series (Hinton et al. 2015,
    arXiv 1503.02531, for class probabilities; here for quantiles).

    Parameters
    ----------
    student, teacher : EarthPT
        The teacher is not trained, and not among this module's parameters.
    truth_share : float
        Weight of the pinball loss against the looks themselves; the rest is the distance from the teacher's quantiles.
    """

    def __init__(self, student: EarthPT, teacher: EarthPT, *, truth_share: float = 0.3) -> None:
        super().__init__()
        self.student, self.truth_share = student, truth_share
        # in a tuple, so that the teacher is neither a submodule nor saved
        self._teacher = (teacher.eval().requires_grad_(False),)

    def loss(self, batch: Tokens, *, generator: torch.Generator) -> Tensor:
        """Return the loss of questions drawn about each series.

        Parameters
        ----------
        batch : Tokens
            As for `EarthPT.loss`.
        generator : torch.Generator
            Draws questions and bands.
        """
        channels, questions = self.student.exercise(batch, generator)
        day = batch.position[..., 0]
        answer = self.student.answer(channels, day, batch.valid, questions)  # (B, K, 15, Q)
        with torch.no_grad():
            (teacher,) = self._teacher
            wanted = teacher.to(day.device).answer(channels, day, batch.valid, questions)
        known = ~channels.isnan().all(dim=1)[:, None, :, None] & (questions.target > questions.origin)[..., None, None]
        apart = ((answer - wanted).abs() * known).sum() / (known.sum() * answer.shape[-1]).clamp(min=1)
        truth = channels.gather(1, questions.target[..., None].expand(-1, -1, channels.shape[2]))
        own = pinball(answer, truth, questions.target > questions.origin)
        return self.truth_share * own + (1 - self.truth_share) * apart
