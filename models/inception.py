"""Inception v3 as FID uses it (Heusel et al. 2017): the network of 2015 with its pooling quirks, weights from a file.

The file is the state that ``pytorch-fid`` and ``torch-fidelity`` distribute (``pt_inception-2015-12-05``): a plain dictionary of
tensors. Nothing is downloaded here and no code is run from the file.

References
----------
Szegedy et al. 2016, arXiv 1512.00567, section 6, for the blocks. The published graph averages without the padding, and its last
block takes the maximum where the others take the mean.
"""

from __future__ import annotations

import io
import pickle

import torch
from torch import Tensor, nn
from torch.nn import functional

FEATURES = 2048
SIDE = 299
_EPSILON = 1e-3


class InceptionFileError(ValueError):
    """The file holds no such weights."""


class _Convolution(nn.Module):
    def __init__(
        self,
        channels: int,
        out: int,
        kernel: int | tuple[int, int],
        *,
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out, eps=_EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, Y, X) -> (B, out, Y / stride, X / stride)."""
        return functional.relu(self.bn(self.conv(x)))


class _Small(nn.Module):
    """Blocks on 35 x 35: one, 5 x 5, two 3 x 3, pool."""

    def __init__(self, channels: int, pooled: int) -> None:
        super().__init__()
        self.branch1x1 = _Convolution(channels, 64, 1)
        self.branch5x5_1 = _Convolution(channels, 48, 1)
        self.branch5x5_2 = _Convolution(48, 64, 5, padding=2)
        self.branch3x3dbl_1 = _Convolution(channels, 64, 1)
        self.branch3x3dbl_2 = _Convolution(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = _Convolution(96, 96, 3, padding=1)
        self.branch_pool = _Convolution(channels, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, 35, 35) -> (B, 224 + pooled, 35, 35)."""
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        parts = [self.branch1x1(x), self.branch5x5_2(self.branch5x5_1(x)), double, self.branch_pool(_mean(x))]
        return torch.cat(parts, dim=1)


class _ToMiddle(nn.Module):
    """35 x 35 to 17 x 17."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch3x3 = _Convolution(channels, 384, 3, stride=2)
        self.branch3x3dbl_1 = _Convolution(channels, 64, 1)
        self.branch3x3dbl_2 = _Convolution(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = _Convolution(96, 96, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, 35, 35) -> (B, 480 + channels, 17, 17)."""
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, functional.max_pool2d(x, 3, stride=2)], dim=1)


class _Middle(nn.Module):
    """Blocks on 17 x 17: convolutions of 1 x 7 and 7 x 1."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        row, column = {"kernel": (1, 7), "padding": (0, 3)}, {"kernel": (7, 1), "padding": (3, 0)}
        self.branch1x1 = _Convolution(channels, 192, 1)
        self.branch7x7_1 = _Convolution(channels, width, 1)
        self.branch7x7_2 = _Convolution(width, width, **row)  # type: ignore[arg-type]
        self.branch7x7_3 = _Convolution(width, 192, **column)  # type: ignore[arg-type]
        self.branch7x7dbl_1 = _Convolution(channels, width, 1)
        self.branch7x7dbl_2 = _Convolution(width, width, **column)  # type: ignore[arg-type]
        self.branch7x7dbl_3 = _Convolution(width, width, **row)  # type: ignore[arg-type]
        self.branch7x7dbl_4 = _Convolution(width, width, **column)  # type: ignore[arg-type]
        self.branch7x7dbl_5 = _Convolution(width, 192, **row)  # type: ignore[arg-type]
        self.branch_pool = _Convolution(channels, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, 17, 17) -> (B, 768, 17, 17)."""
        single = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), single, double, self.branch_pool(_mean(x))], dim=1)


class _ToLarge(nn.Module):
    """17 x 17 to 8 x 8."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch3x3_1 = _Convolution(channels, 192, 1)
        self.branch3x3_2 = _Convolution(192, 320, 3, stride=2)
        self.branch7x7x3_1 = _Convolution(channels, 192, 1)
        self.branch7x7x3_2 = _Convolution(192, 192, (1, 7), padding=(0, 3))
        self.branch7x7x3_3 = _Convolution(192, 192, (7, 1), padding=(3, 0))
        self.branch7x7x3_4 = _Convolution(192, 192, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, 17, 17) -> (B, 512 + channels, 8, 8)."""
        long = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x))))
        return torch.cat([self.branch3x3_2(self.branch3x3_1(x)), long, functional.max_pool2d(x, 3, stride=2)], dim=1)


class _Large(nn.Module):
    """Blocks on 8 x 8, whose branches fork."""

    def __init__(self, channels: int, *, takes_maximum: bool) -> None:
        super().__init__()
        self.takes_maximum = takes_maximum
        self.branch1x1 = _Convolution(channels, 320, 1)
        self.branch3x3_1 = _Convolution(channels, 384, 1)
        self.branch3x3_2a = _Convolution(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3_2b = _Convolution(384, 384, (3, 1), padding=(1, 0))
        self.branch3x3dbl_1 = _Convolution(channels, 448, 1)
        self.branch3x3dbl_2 = _Convolution(448, 384, 3, padding=1)
        self.branch3x3dbl_3a = _Convolution(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3dbl_3b = _Convolution(384, 384, (3, 1), padding=(1, 0))
        self.branch_pool = _Convolution(channels, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, 8, 8) -> (B, 2048, 8, 8)."""
        single = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        pooled = functional.max_pool2d(x, 3, stride=1, padding=1) if self.takes_maximum else _mean(x)
        forks = [self.branch3x3_2a(single), self.branch3x3_2b(single)]
        forks += [self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double)]
        return torch.cat([self.branch1x1(x), *forks, self.branch_pool(pooled)], dim=1)


class Inception(nn.Module):
    """Images in colours to 2048 features; in eval mode, as loaded."""

    num_features = FEATURES

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = _Convolution(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = _Convolution(32, 32, 3)
        self.Conv2d_2b_3x3 = _Convolution(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = _Convolution(64, 80, 1)
        self.Conv2d_4a_3x3 = _Convolution(80, 192, 3)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = _Small(192, 32), _Small(256, 64), _Small(288, 64)
        self.Mixed_6a = _ToMiddle(288)
        self.Mixed_6b, self.Mixed_6c = _Middle(768, 128), _Middle(768, 160)
        self.Mixed_6d, self.Mixed_6e = _Middle(768, 160), _Middle(768, 192)
        self.Mixed_7a = _ToLarge(768)
        self.Mixed_7b, self.Mixed_7c = _Large(1280, takes_maximum=False), _Large(2048, takes_maximum=True)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, Y, X) red, green and blue from 0 to 1 -> (B, 2048)."""
        x = functional.interpolate(images, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(2 * x - 1)))
        x = functional.max_pool2d(x, 3, stride=2)
        x = functional.max_pool2d(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)), 3, stride=2)
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))
        return x.mean(dim=(2, 3))


def load_inception(data: bytes) -> Inception:
    """Return the network with the weights of a file.

    Raises
    ------
    InceptionFileError
        Where the file is none of tensors, or of another network.
    """
    try:
        found = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    # what is no pickle at all fails in the reader of pickles wherever it stands
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, LookupError) as error:
        raise InceptionFileError("no file of tensors") from error
    model = Inception()
    wanted = model.state_dict()
    known = {name: tensor for name, tensor in found.items() if name in wanted} if isinstance(found, dict) else {}
    absent = [name for name in wanted if name not in known and not name.endswith("num_batches_tracked")]
    other = [name for name, tensor in known.items() if tensor.shape != wanted[name].shape]
    if absent or other:
        raise InceptionFileError(
            f"not the weights of FID's Inception: {(absent + other)[0]} is missing or of another shape"
        )
    model.load_state_dict(known, strict=False)
    return model.eval()


def _mean(x: Tensor) -> Tensor:
    return functional.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
