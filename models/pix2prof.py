"""Pix2Prof as published: a single-band image in, its surface-brightness profile out, one sample after another.

Smith, Arora, Stone, Courteau and Geach 2021, MNRAS 503, 96, arXiv 2010.00622: a residual network in its small-image variant
encodes the image, and a recurrent network begun with that encoding writes the profile. Radius is no output: a sample's
number is its radius, so the weights know one pixel scale. There is no mask and no uncertainty.

The authors never left training mode: batch norm took its statistics from the image at hand and dropout was active. Eval
mode, which uses the statistics gathered in training, is what a loaded model is in; `as_published` gives the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

SIDE = 256
"""Pixels of a published input, either way."""
DARK, BRIGHT = 2.0, 30.0
"""Nanomaggies that become 0 and 1: constants of the published weights."""
CLIPPED_AT = 0.999
TEACHER_SHARE = 0.4
"""Of sequences in training that are fed the true values."""
FIRST_VALUE = 0.0
SHORTEST, LONGEST = 100, 1024
LEVEL_STEPS, LEVEL_SPREAD = 99, 0.01
"""A profile ends once so many of its last values scatter by no more, mag per arcsec^2."""
_STRIDES = (1, 2, 2, 2)
_BLOCKS = 2
_MIDDLING = 20.0


@dataclass(frozen=True)
class Pix2ProfConfig:
    """Size of a Pix2Prof; the defaults are the published ones.

    Parameters
    ----------
    width : int
        Channels of the first stage; an encoding has eight times as many numbers.
    layers : int
        Of the recurrent network.
    dropout : float
        Between them, in training.

    Raises
    ------
    ValueError
        Where there would be no channel or no layer.
    """

    width: int = 64
    layers: int = 3
    dropout: float = 0.2

    def __post_init__(self) -> None:
        if self.width < 1 or self.layers < 1 or not 0 <= self.dropout < 1:
            raise ValueError(f"{self}: width and layers are at least 1, dropout is from 0 to below 1")

    @property
    def encoding(self) -> int:
        """Return how many numbers an encoding has."""
        return self.width * 2 ** (len(_STRIDES) - 1)


@dataclass(frozen=True)
class ProfiledImages:
    """Images and their true profiles.

    Parameters
    ----------
    images : Tensor, shape (B, 1, Y, X)
        Scaled.
    mu : Tensor, shape (B, T)
        mag per arcsec^2; anything where it is not valid.
    valid : Tensor, shape (B, T), bool
        Steps that a profile has.
    """

    images: Tensor
    mu: Tensor
    valid: Tensor


class Block(nn.Module):
    """Two 3 x 3 convolutions beside the identity, or beside a 1 x 1 convolution where the shape changes."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels != out:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, Y, X) -> (B, out, Y / stride, X / stride)."""
        inner = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(inner)) + self.shortcut(x))


class Encoder(nn.Module):
    """ResNet-18 for small images: no pooling but at its end (He et al. 2016, arXiv 1512.03385, section 4.2)."""

    def __init__(self, config: Pix2ProfConfig) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, config.width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(config.width)
        self.layer1, self.layer2, self.layer3, self.layer4 = (_stage(config.width, stage) for stage in range(4))
        self.fc1 = nn.Linear(config.encoding, config.encoding)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 1, Y, X) -> (B, encoding)."""
        x = functional.relu(self.bn1(self.conv1(images)))  # (B, width, Y, X)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))  # (B, 8 width, Y / 8, X / 8)
        encoding: Tensor = self.fc1(x.mean(dim=(2, 3)))
        return encoding


class Decoder(nn.Module):
    """Gated recurrent units that are begun with the encoding in every layer and fed the value before."""

    def __init__(self, config: Pix2ProfConfig) -> None:
        super().__init__()
        self.config = config
        self.gru = nn.GRU(1, config.encoding, config.layers, dropout=config.dropout if config.layers > 1 else 0.0)
        self.fc = nn.Linear(config.encoding, 1)

    def begin(self, encoding: Tensor) -> tuple[Tensor, ...]:
        """Return the first state of each layer."""
        return (encoding,) * self.config.layers

    def step(
        self, last: Tensor, state: tuple[Tensor, ...], *, generator: torch.Generator | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the next values (B,) and states, from the last values (B,) and states; dropout in training mode."""
        x, new = last[:, None], []  # (B,) -> (B, 1)
        for layer, weights in enumerate(self.gru.all_weights):
            x = torch.gru_cell(x, state[layer], *weights)  # (B, encoding)
            new.append(x)
            if self.training and layer < len(state) - 1:
                x = _dropped(x, self.config.dropout, generator)
        return functional.relu(self.fc(functional.relu(x)))[:, 0], tuple(new)


class Pix2Prof(nn.Module):
    """Images (B, 1, Y, X), scaled by `scale_images`, to profiles in mag per arcsec^2.

    Parameters
    ----------
    config : Pix2ProfConfig
        Its size.
    generator : torch.Generator, optional
        Draws the first weights.
    """

    def __init__(self, config: Pix2ProfConfig, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        _initialise(self, generator or torch.Generator().manual_seed(0))

    def forward(
        self, images: Tensor, mu: Tensor, *, teacher: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Return predictions for as many steps as the true profiles have.

        Parameters
        ----------
        images : Tensor, shape (B, 1, Y, X)
            Scaled.
        mu : Tensor, shape (B, T)
            What is fed instead of predictions; step t sees those before t.
        teacher : Tensor, shape (B,), bool, optional
            Which sequences are fed it; the others are fed their own values, cut off from the gradient. By default all.
        generator : torch.Generator, optional
            Draws dropout in training mode.

        Returns
        -------
        Tensor, shape (B, T), mag per arcsec^2
        """
        state = self.decoder.begin(self.encoder(images))
        taught = mu.new_ones(len(mu), dtype=torch.bool) if teacher is None else teacher
        last, made = torch.full_like(mu[:, 0], FIRST_VALUE), []
        for true in mu.unbind(dim=1):
            value, state = self.decoder.step(last, state, generator=generator)
            made.append(value)
            last = torch.where(taught, true, value.detach())
        return torch.stack(made, dim=1)

    def loss(self, batch: ProfiledImages, *, generator: torch.Generator) -> Tensor:
        """Return `summed_squares`; four in ten sequences, drawn, are fed the truth."""
        draws = torch.rand(len(batch.mu), generator=generator, device=generator.device)
        mu = batch.mu.where(batch.valid, torch.zeros_like(batch.mu))
        teacher = (draws < TEACHER_SHARE).to(mu.device)
        return summed_squares(self(batch.images, mu, teacher=teacher, generator=generator), mu, batch.valid)

    def roll_out(
        self, images: Tensor, *, longest: int = LONGEST, generator: torch.Generator | None = None
    ) -> tuple[Tensor, ...]:
        """Return the profile of each image, its own values fed back, to where it has become level.

        Parameters
        ----------
        images : Tensor, shape (B, 1, Y, X)
            Scaled. Inside `as_published` give one at a time, as published: images share their statistics there.
        longest : int
            Most values.
        generator : torch.Generator, optional
            Draws dropout inside `as_published`.

        Returns
        -------
        tuple of Tensor, shape (T,), mag per arcsec^2
            T is above `SHORTEST` and differs from image to image.
        """
        state = self.decoder.begin(self.encoder(images))
        last = images.new_full((len(images),), FIRST_VALUE)
        made = images.new_empty((len(images), longest))
        lengths = torch.full((len(images),), longest, device=images.device)
        for step in range(longest):
            last, state = self.decoder.step(last, state, generator=generator)
            made[:, step] = last
            ended = has_ended(made[:, : step + 1])
            lengths = lengths.where(~ended, lengths.clamp(max=step + 1))
            if ended.any() and int(lengths.max()) <= step + 1:
                break
        return tuple(profile[:length] for profile, length in zip(made, lengths.tolist(), strict=True))

    def to_config(self) -> dict[str, Any]:
        """Return its settings, ready for JSON."""
        return asdict(self.config)


@contextmanager
def as_published(model: Pix2Prof) -> Iterator[None]:
    """Let a model behave as its authors ran it: statistics of the image at hand, dropout on; nothing is gathered."""
    modes = {module: module.training for module in model.modules()}
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    try:
        model.train()
        for norm in norms:
            norm.track_running_stats = False
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
        for module, mode in modes.items():
            module.training = mode


def scale_images(flux: Tensor) -> Tensor:
    """Return images as the published weights take them: clipped at the image's 99.9th percentile, (v - 2) / 28.

    Parameters
    ----------
    flux : Tensor, shape (..., Y, X)
        nanomaggies per pixel, finite.

    Examples
    --------
    >>> scale_images(torch.tensor([[2.0, 30.0], [2.0, 30.0]])).tolist()
    [[0.0, 1.0], [0.0, 1.0]]
    """
    most = torch.quantile(flux.flatten(-2), CLIPPED_AT, dim=-1)[..., None, None]
    return (flux.minimum(most) - DARK) / (BRIGHT - DARK)


def has_ended(values: Tensor) -> Tensor:
    """Return whether each profile is at its end: more than 100 values, the last 99 with a standard deviation of 0.01 at most.

    Parameters
    ----------
    values : Tensor, shape (B, T)
        So far. The deviation is that of a population (divided by 99), which the paper leaves open.

    Returns
    -------
    Tensor, shape (B,), bool
    """
    if values.shape[1] <= SHORTEST:
        return torch.zeros(len(values), dtype=torch.bool, device=values.device)
    return values[:, -LEVEL_STEPS:].std(dim=1, correction=0) <= LEVEL_SPREAD


def summed_squares(predicted: Tensor, mu: Tensor, valid: Tensor) -> Tensor:
    """Return the squared error summed over a profile's valid steps, mean over profiles: (B, T) each -> ()."""
    return ((predicted - mu).square() * valid).sum(dim=1).mean()


def _stage(width: int, stage: int) -> nn.Sequential:
    out = width * 2**stage
    before = out if stage == 0 else out // 2
    return nn.Sequential(Block(before, out, _STRIDES[stage]), *(Block(out, out, 1) for _ in range(_BLOCKS - 1)))


def _dropped(x: Tensor, share: float, generator: torch.Generator | None) -> Tensor:
    kept = torch.empty_like(x).bernoulli_(1 - share, generator=generator)
    return x * kept / (1 - share)


def _initialise(model: Pix2Prof, generator: torch.Generator) -> None:
    """Draw weights as He et al. 2015 do; norms stay 1, biases are 0 but the last, which begins inside the range of answers."""
    for name, parameter in model.named_parameters():
        if parameter.dim() >= 2:
            nn.init.kaiming_normal_(parameter, nonlinearity="relu", generator=generator)
        elif name.endswith("bias") or "bias_" in name:
            nn.init.zeros_(parameter)
    nn.init.constant_(model.decoder.fc.bias, _MIDDLING)
