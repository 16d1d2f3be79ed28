"""The values that each channel of recorded pictures takes, where they are few: drawn frames are snapped to them.

A frame that is a little wrong is then right again, so nothing fades over many steps. Pictures that take many values,
such as photographs or smooth edges, are left as they are. Pure torch.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

FEW = 16
"""So many values of a channel, or less, are a palette."""


class Palette(nn.Module):
    """Frames (B, channels, height, width) uint8 to the nearest values there are; until fitted, to themselves."""

    nearest: Tensor  # (channels, 256) uint8
    channel: Tensor  # (channels, 1, 1)

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("nearest", torch.arange(256, dtype=torch.uint8).repeat(channels, 1))
        self.register_buffer("channel", torch.arange(channels).view(-1, 1, 1), persistent=False)

    def fit(self, episodes: Iterable[Tensor]) -> None:
        """Takes the values of all frames (rows, channels, height, width) uint8."""
        every = torch.arange(256, device=self.nearest.device)
        found = torch.zeros_like(self.nearest, dtype=torch.int64)
        for frames in episodes:
            found += torch.stack([torch.bincount(part.flatten(), minlength=256) for part in frames.unbind(1)])
        for channel, counts in enumerate(found):
            values = counts.nonzero().flatten()
            kept = values[(every[:, None] - values).abs().argmin(1)] if len(values) <= FEW else every
            self.nearest[channel] = kept.to(torch.uint8)

    def forward(self, frames: Tensor) -> Tensor:
        snapped: Tensor = self.nearest[self.channel, frames.long()]
        return snapped
