"""Next-step prediction over Tokens: an embedding, the one core, a head, a loss, and `generate`.

Where a step stands is told by learned positions (GPT-2, and every published model here), which end at the block size,
or by rotary angles made from dates, which do not end.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.tokens import Tokens, compact
from models.transformer import KeyValueCache, Transformer, TransformerConfig, date_angles


@dataclass(frozen=True)
class Chance:
    """Noise that is added to every prediction before it is fed back.

    Parameters
    ----------
    temperature : float
        Standard deviation of the Gaussian, in units of the values; 0 is none.
    generator : torch.Generator, optional
        Draws it; needed where the temperature is not 0.
    """

    temperature: float = 0.0
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        if self.temperature and self.generator is None:
            raise ValueError(
                f"temperature {self.temperature} needs a generator: Chance(temperature, torch.Generator())"
            )

    def add_to(self, prediction: Tensor) -> Tensor:
        """Return the prediction with noise."""
        if not self.temperature:
            return prediction
        noise = torch.randn(
            prediction.shape, generator=self.generator, device=prediction.device, dtype=prediction.dtype
        )
        return prediction + self.temperature * noise


class Autoregressive(nn.Module):
    """A model whose output at step t is its prediction of the values at step t + 1.

    Valid steps stand first in every sequence (`models.tokens.compact`), so that causal attention alone keeps padding out of
    sight. A model of its own kind overrides `features`.

    Parameters
    ----------
    core : TransformerConfig
        Size of the core.
    embed, head : nn.Module
        From the channels of `features` to D, and from D to the channels of the values.
    block_size : int, optional
        Number of learned positions; without it, dates (``position[..., 0]``) turn queries and keys instead.
    """

    def __init__(
        self, core: TransformerConfig, *, embed: nn.Module, head: nn.Module, block_size: int | None = None
    ) -> None:
        super().__init__()
        self.embed = embed
        self.positions = None if block_size is None else nn.Embedding(block_size, core.width)
        self.drop = nn.Dropout(core.dropout)
        self.core = Transformer(core)
        self.head = head
        self.block_size = block_size

    def features(self, values: Tensor, position: Tensor) -> Tensor:
        """Return what the embedding takes, from values (B, T, C) and position (B, T, P); here the values, 0 for NaN."""
        return values.nan_to_num(0.0)

    def forward(self, tokens: Tokens) -> Tensor:
        """Return the prediction that follows each step, shape (B, T, C)."""
        return self.head(self.core.ln_f(self.hidden(tokens)))

    def hidden(self, tokens: Tokens, *, stop: int | None = None) -> Tensor:
        """Return the output of the last block, or of the first `stop` ones, before the final norm: (B, T, D)."""
        return self._run(tokens, _count_up(tokens.valid.shape[1], tokens.valid), stop=stop)

    def embedding(self, tokens: Tokens) -> Tensor:
        """Return the mean over a sequence's valid steps of the last block's output, before the norm: (B, D)."""
        weight = tokens.valid[..., None].to(tokens.values.dtype)
        return (self.hidden(tokens) * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1.0)

    def loss(self, batch: Tokens, *, generator: torch.Generator) -> Tensor:
        """Return the mean Huber loss of every valid step's prediction of the next one.

        Parameters
        ----------
        batch : Tokens
            (B, T, C), T at least 2. Channels that a step does not have (NaN) and steps that are not valid do not count.
        generator : torch.Generator
            Not used: nothing is drawn.
        """
        batch = compact(batch, steps=batch.valid.shape[1])
        predictions = self(batch.steps(None, -1))
        return huber(predictions, batch.values[:, 1:], batch.valid[:, 1:])

    def generate(
        self, context: Tokens, position: Tensor, *, chance: Chance | None = None, cached: bool = True
    ) -> Tensor:
        """Return values that follow each sequence, every prediction fed back as if it had been seen.

        Sequences may differ in length. With learned positions, context past the block size is cut to its last
        `block_size` steps and positions restart at 0, as published; then no key can be kept and every step recomputes.

        Parameters
        ----------
        context : Tokens
            (B, T, C); every sequence has a valid step at least.
        position : Tensor, shape (B, S, P)
            Of the steps to come.
        chance : Chance, optional
            Noise on what is fed back and returned; by default none.
        cached : bool
            Whether keys and values are kept; the result is the same.

        Returns
        -------
        Tensor, shape (B, S, C)

        Raises
        ------
        ValueError
            Where a sequence has no valid step.
        """
        rollout = _Rollout(self, compact(context), position)
        chance = chance or Chance()
        for step in range(position.shape[1]):
            use_cache = cached and rollout.longest <= (self.block_size or rollout.longest)
            prediction = rollout.predict_cached() if use_cache else rollout.predict_again()
            rollout.add(chance.add_to(prediction), step)
        return rollout.made

    def _run(
        self,
        tokens: Tokens,
        index: Tensor,
        *,
        attend: Tensor | None = None,
        cache: KeyValueCache | None = None,
        stop: int | None = None,
    ) -> Tensor:
        """Return the blocks' output for steps of given numbers in their sequence: index (B or 1, T) -> (B, T, D)."""
        x = self.embed(self.features(tokens.values, tokens.position))  # (B, T, C) -> (B, T, D)
        angles = None
        if self.positions is None:
            angles = date_angles(tokens.position[..., 0], self.core.config.head_width // 2)
        else:
            self._require_room(tokens.valid.shape[1])
            x = x + self.positions(index)
        return self.core.blocks(self.drop(x), attend=attend, angles=angles, cache=cache, stop=stop)

    def _require_room(self, steps: int) -> None:
        if self.block_size is not None and steps > self.block_size:
            raise ValueError(f"{steps} steps; the learned positions end at {self.block_size}: cut the sequences")


class _Rollout:
    """Sequences that grow: left-aligned, so that a shorter one's next step overwrites its first step of padding."""

    def __init__(self, model: Autoregressive, context: Tokens, position: Tensor) -> None:
        self.model, self.coming = model, position.to(context.position)
        self.count = context.valid.sum(dim=1)
        if not bool((self.count > 0).all()):
            raise ValueError("a sequence has no valid step; generate() needs one at least to begin from")
        self.longest = int(self.count.max())
        self.ragged = bool((self.count != self.longest).any())
        batch, more, channels = len(context), position.shape[1], context.values.shape[2]
        self.made = context.values.new_empty(batch, more, channels)
        self.tokens = Tokens(
            torch.cat([context.values, torch.zeros_like(self.made)], dim=1),  # (B, T + S, C)
            torch.cat([context.position, self.coming], dim=1),
            torch.cat([context.valid, context.valid.new_zeros(batch, more)], dim=1),
        )
        self.cache: KeyValueCache | None = None
        self.known = self.tokens.valid.clone()  # (B, T + S): slots of the cache that hold a step

    def add(self, prediction: Tensor, step: int) -> None:
        """Put a prediction (B, C) behind each sequence."""
        row = torch.arange(len(self.count), device=self.count.device)
        self.made[:, step] = prediction
        self.tokens.values[row, self.count] = prediction.to(self.tokens.values.dtype)
        self.tokens.position[row, self.count] = self.coming[:, step]
        self.tokens.valid[row, self.count] = True
        self.count = self.count + 1
        self.longest += 1

    def predict_again(self) -> Tensor:
        """Return what follows each sequence from its last steps, all of them computed again: (B, C)."""
        width = min(self.longest, self.model.block_size or self.longest)
        first = (self.count - width).clamp(min=0)
        index = _count_up(width, self.count)
        window = _gather(self.tokens, first[:, None] + index)
        return self._predict(self.model._run(window, index), self.count - first - 1)

    def predict_cached(self) -> Tensor:
        """Return what follows each sequence, from kept keys and the steps that are new: (B, C)."""
        if self.cache is None:
            self.cache = self.model.core.new_cache(capacity=self.tokens.valid.shape[1])
            context, index = self.tokens.steps(None, self.longest), _count_up(self.longest, self.count)
            return self._predict(self.model._run(context, index, cache=self.cache), self.count - 1)
        index = self.count[:, None] - 1  # (B, 1)
        slot = self.cache.length
        self.known[:, slot] = True
        attend = self.known[:, None, : slot + 1] if self.ragged else None  # (B, 1, slot + 1)
        hidden = self.model._run(_gather(self.tokens, index), index, attend=attend, cache=self.cache)
        return self._predict(hidden, torch.zeros_like(self.count))

    def _predict(self, hidden: Tensor, last: Tensor) -> Tensor:
        """Return the head's output at one step of each sequence: (B, T, D) -> (B, C)."""
        row = torch.arange(len(last), device=last.device)
        return self.model.head(self.model.core.ln_f(hidden[row, last]))


def huber(predictions: Tensor, targets: Tensor, counts: Tensor) -> Tensor:
    """Return the mean Huber loss (delta 1) over channels that are known at steps that count.

    Parameters
    ----------
    predictions, targets : Tensor, shape (B, T, C)
        Targets are NaN where not known.
    counts : Tensor of bool, shape (B, T)

    References
    ----------
    Huber 1964, Ann. Math. Statist. 35, 73; delta 1 as published for EarthPT and AstroPT.
    """
    known = ~targets.isnan() & counts[..., None]
    each = F.huber_loss(predictions, targets.nan_to_num(0.0), reduction="none")
    return (each * known).sum() / known.sum().clamp(min=1)


def _gather(tokens: Tokens, index: Tensor) -> Tokens:
    """Return the steps of given numbers: index (B, T')."""
    row = torch.arange(len(index), device=index.device)[:, None]
    return Tokens(tokens.values[row, index], tokens.position[row, index], tokens.valid[row, index])


def _count_up(steps: int, like: Tensor) -> Tensor:
    """Return 0, 1, ..., steps - 1 on the device of another tensor, shape (1, steps)."""
    return torch.arange(steps, device=like.device)[None]
