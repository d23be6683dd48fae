"""Made-up series, questions about them, and small networks that answer."""

from __future__ import annotations

import torch

from models.earthpt import EarthPT, EarthPTConfig, Questions, to_channels
from models.tokens import Tokens

SMALL = EarthPTConfig(layers=2, heads=2, width=32, pointers=3, queries=16)


def series(count: int = 3, looks: int = 20, seed: int = 0) -> Tokens:
    """Return made-up series with some padding at the end of each."""
    draw = torch.Generator().manual_seed(seed)
    values = torch.rand((count, looks, 10), generator=draw) * 1.2 - 0.95
    day = 7000 + torch.cumsum(1 + (torch.rand((count, looks), generator=draw) * 20).floor(), dim=1)
    valid = torch.arange(looks) < torch.randint(looks // 2, looks + 1, (count, 1), generator=draw)
    return Tokens(values, torch.stack([day, day], dim=-1), valid)


def questions(batch: Tokens, count: int = 4) -> Questions:
    """Return questions from the middle of each series on."""
    origin = torch.full((len(batch.valid), count), batch.valid.shape[1] // 2 - 1)
    day = batch.position[..., 0].gather(1, origin) + torch.tensor([5.0, 40.0, 90.0, 200.0])[:count]
    return Questions(origin, day, origin)


def answers(model: EarthPT, batch: Tokens, asked: Questions) -> torch.Tensor:
    with torch.inference_mode():
        return model.eval().answer(to_channels(batch.values), batch.position[..., 0], batch.valid, asked)


def lively_model(seed: int) -> EarthPT:
    """Return a small network whose answers depend on all that it sees, as if it had been trained."""
    found = EarthPT(SMALL, generator=torch.Generator().manual_seed(seed))
    last = found.head[2]
    assert isinstance(last, torch.nn.Linear)
    torch.nn.init.normal_(last.weight, 0, 0.3, generator=torch.Generator().manual_seed(seed + 1))
    return found
