"""What frames of the data look like as a whole, and how far beyond that one is: garbage, told without a network.

A frame, in blocks of pixels, is measured from the mean frame along the axes in which those of the data differ most, by
how far they go along each (Mahalanobis 1936, "On the generalised distance in statistics"); what of it lies on none of
these axes, by the little that the data has there. Pure torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_SIDE, _BLOCKS = 16, 768  # blocks along a side, and in all of a frame's channels, at most
_AXES = 128  # told apart; whatever lies beside them is one
_LEAST_SPREAD = 1 / 255  # of a block's values in [-1, 1]: half a grey level is no difference
_FITTED_FRAMES = 4000
_USUAL = 0.99  # of frames that were held out


class TypicalFrames(nn.Module):
    """Frames (B, channels, height, width) in [-1, 1] to (B,), how far beyond the usual each is; 0 for usual ones.

    It is log(1 + d), where d is by how much more a frame is away from the mean one than usual frames are; a frame of
    the data is away by 1 or less on average. Until fit() and allow() every frame is a usual one.
    """

    mean: Tensor  # (blocks,)
    axes: Tensor  # (blocks, axes) of unit length
    spread: Tensor  # (axes,) the data's deviation along each
    rest: Tensor  # () its deviation along any other
    usual: Tensor  # () the distance up to which nothing is strange

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        most = min(_SIDE, math.isqrt(_BLOCKS // channels))
        self._sides = min(most, height), min(most, width)
        blocks = channels * math.prod(self._sides)
        self.register_buffer("mean", torch.zeros(blocks))
        self.register_buffer("axes", torch.zeros(blocks, min(_AXES, blocks)))
        self.register_buffer("spread", torch.ones(min(_AXES, blocks)))
        self.register_buffer("rest", torch.ones(()))
        self.register_buffer("usual", torch.full((), torch.inf))

    def fit(self, frames: Iterable[Tensor], count: int) -> None:
        """Takes mean and axes from `count` frames of the data, in batches, of which evenly spread ones are kept."""
        stride, seen, kept_blocks = max(1, count // _FITTED_FRAMES), 0, []
        for batch in frames:
            kept_blocks.append(self._blocks(batch[-seen % stride :: stride]))
            seen += len(batch)
        blocks = torch.cat(kept_blocks).double()
        mean = blocks.mean(0)
        variance, axes = torch.linalg.eigh((blocks - mean).T @ (blocks - mean) / len(blocks))
        variance, axes = variance.flip(0).clamp(min=_LEAST_SPREAD**2), axes.flip(1)
        kept = len(self.spread)
        self.mean.copy_(mean)
        self.axes.copy_(axes[:, :kept])
        self.spread.copy_(variance[:kept].sqrt())
        self.rest.copy_(variance[kept:].mean().sqrt() if kept < len(variance) else variance.new_tensor(_LEAST_SPREAD))

    def allow(self, frames: Iterable[Tensor]) -> None:
        """From now on frames as far away as nearly all of these, which were held out, are usual."""
        self.usual.copy_(torch.cat([self._distance(batch) for batch in frames]).quantile(_USUAL))

    def forward(self, frames: Tensor) -> Tensor:
        return (self._distance(frames) - self.usual).clamp(min=0).log1p()

    def _distance(self, frames: Tensor) -> Tensor:
        off = self._blocks(frames) - self.mean
        along = off @ self.axes
        beside = (off.square().sum(1) - along.square().sum(1)).clamp(min=0)
        return (((along / self.spread).square().sum(1) + beside / self.rest.square()) / off.shape[1]).sqrt()

    def _blocks(self, frames: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(frames, self._sides).flatten(1)
