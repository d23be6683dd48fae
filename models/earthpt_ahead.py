"""Forecasts of days to come by EarthPT: the numbers of `EarthPT.answer`, with less work and memory.

All questions stand at the end of their series. So the looks run through the core once, causally, and the questions read
the keys that the looks left; no mask of all steps by all steps is made.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.earthpt import EarthPT, Questions
from models.transformer import date_angles


def answer_ahead(model: EarthPT, channels: Tensor, day: Tensor, *, valid: Tensor, ahead: Tensor) -> Tensor:
    """Return quantiles of every output on days after the last valid look of each series; for inference.

    Parameters
    ----------
    model : EarthPT
    channels : Tensor, shape (B, T, 15)
        From `models.earthpt.to_channels`.
    day : Tensor, shape (B, T), days since 2000-01-01
    valid : Tensor of bool, shape (B, T)
        Valid looks stand first; each series has one at least.
    ahead : Tensor, shape (K,), days since 2000-01-01
        The same for all series.

    Returns
    -------
    Tensor, shape (B, K, 15, quantile)
    """
    batch, steps = day.shape
    origin = (valid.sum(dim=1, keepdim=True) - 1).expand(-1, len(ahead))
    asked = Questions(origin, ahead.expand(batch, -1), origin)
    seen, known = ~channels.isnan(), channels.nan_to_num(0.0)
    days = torch.cat([day, asked.day], dim=1)  # (B, T + K)
    angles = date_angles(days, model.core.config.head_width // 2)
    cache = model.core.new_cache(capacity=days.shape[1])
    # padding stands last, so that causal attention keeps it out of the looks' sight
    looks = model.core(model._embed_looks(known, seen, day), angles=angles[:, :steps], cache=cache)
    questions = model._embed_questions((seen & valid[..., None]).any(dim=1), day, asked)
    allowed = valid[:, None].expand(-1, len(ahead), -1)  # (B, K, T)
    own = torch.eye(len(ahead), dtype=torch.bool, device=day.device).expand(batch, -1, -1)
    attend = torch.cat([allowed, own], dim=-1)  # (B, K, T + K)
    hidden = model.core(questions, attend=attend, angles=angles[:, steps:], cache=cache)
    return model._read_out(hidden, looks, known, (allowed, days))
