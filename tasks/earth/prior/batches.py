"""The prior as batches for the training loop."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from models.tokens import Tokens
from tasks.earth.prior.series import PriorConfig, Series, draw_series


@dataclass(frozen=True)
class PriorBatches:
    """Endless batches of generated series; any position can be drawn by itself.

    Parameters
    ----------
    config : PriorConfig
        What is drawn.
    """

    config: PriorConfig

    def at(self, position: int) -> Tokens:
        """Return the batch at a position."""
        return to_tokens(draw_series(self.config, position))

    def tokens(self, batch: Tokens) -> int:
        """Return how many looks a batch holds."""
        return int(batch.valid.sum())


def to_tokens(series: Series) -> Tokens:
    """Return series as the network takes them: reflectance scaled as published, x = 2 (v / 1000) - 1."""
    values = torch.from_numpy(series.reflectance * np.float32(20.0) - np.float32(1.0))
    day = torch.from_numpy(series.day.astype(np.float32))
    return Tokens(values, torch.stack([day, day], dim=-1), torch.from_numpy(series.valid))
