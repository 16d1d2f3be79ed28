"""A small U-Net whose every block is steered by a condition vector. Knows nothing of noise levels, actions or frames.

Pixels may be folded into channels first (`patch`): a picture of 32 x 32 pixels at patch 2 is worked on as 16 x 16, at
a quarter of the cost; what lies inside a patch is told apart by channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

GROUP_CHANNELS = 16
"""Channels normalised together: a multiple of what a vector kernel takes at once."""


def folded(pixels: Tensor, patch: int) -> Tensor:
    """(B, channels * patch**2, height / patch, width / patch) of pixels (B, channels, height, width).

    Channels lie last in memory: so laid, convolutions take a quarter less time on a CPU.
    """
    return F.pixel_unshuffle(pixels, patch).contiguous(memory_format=torch.channels_last)


class AdaptiveNorm(nn.Module):
    """Group normalisation whose scale and shift are linear in the condition (FiLM; Dhariwal and Nichol 2021)."""

    def __init__(self, channels: int, condition: int) -> None:
        super().__init__()
        self.groups = channels // GROUP_CHANNELS
        self.steer = nn.Linear(condition, 2 * channels)
        nn.init.zeros_(self.steer.bias)

    def forward(self, inputs: Tensor, condition: Tensor) -> Tensor:
        scale, shift = self.steer(condition)[:, :, None, None].chunk(2, dim=1)
        return torch.addcmul(shift, F.group_norm(inputs, self.groups), 1 + scale)


class Block(nn.Module):
    """Two convolutions beside a short cut; the second begins at zero, so a new block changes nothing."""

    def __init__(self, fan_in: int, channels: int, condition: int) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = AdaptiveNorm(fan_in, condition), AdaptiveNorm(channels, condition)
        self.conv_1 = nn.Conv2d(fan_in, channels, 3, padding=1)
        self.conv_2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.short_cut = nn.Conv2d(fan_in, channels, 1) if fan_in != channels else nn.Identity()

    def forward(self, inputs: Tensor, condition: Tensor) -> Tensor:
        hidden = self.conv_1(F.silu(self.norm_1(inputs, condition)))
        hidden = self.conv_2(F.silu(self.norm_2(hidden, condition)))
        result: Tensor = hidden + self.short_cut(inputs)
        return result


class Attention(nn.Module):
    """Every place looks at every other one; one head a GROUP_CHANNELS * 2 channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = max(1, channels // (2 * GROUP_CHANNELS))
        self.norm = nn.GroupNorm(channels // GROUP_CHANNELS, channels)
        self.project, self.merge = nn.Conv2d(channels, 3 * channels, 1), nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.merge.weight)

    def forward(self, inputs: Tensor) -> Tensor:
        batch, channels, height, width = inputs.shape
        mixed = self.project(self.norm(inputs)).view(batch, 3, self.heads, channels // self.heads, height * width)
        query, key, value = mixed.transpose(-1, -2).unbind(1)
        seen = F.scaled_dot_product_attention(query, key, value)
        result: Tensor = inputs + self.merge(seen.transpose(-1, -2).reshape(inputs.shape))
        return result


class UNet(nn.Module):
    """(B, inputs, height, width) and a condition (B, condition) to (B, outputs, height, width), of any size.

    channels are those of each resolution, finest first, multiples of GROUP_CHANNELS; each has `blocks` blocks on the
    way down and on the way up. The output begins at zero.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        channels: Sequence[int],
        blocks: int,
        condition: int,
        patch: int,
        attention: bool,
    ) -> None:
        super().__init__()
        self.patch, self.blocks, self.depth = patch, blocks, len(channels)
        self.enter = nn.Conv2d(inputs * patch**2, channels[0], 3, padding=1)
        down, up, shrink, grow = [], [], [], []
        for level, width in enumerate(channels):
            fan_in = channels[max(level - 1, 0)]
            down += [Block(fan_in if i == 0 else width, width, condition) for i in range(blocks)]
            if level + 1 < len(channels):
                shrink.append(nn.Conv2d(width, width, 3, stride=2, padding=1))
                grow.append(nn.Conv2d(channels[level + 1], width, 3, padding=1))
                up += [Block(2 * width if i == 0 else width, width, condition) for i in range(blocks)]
        self.down, self.up = nn.ModuleList(down), nn.ModuleList(up)
        self.shrink, self.grow = nn.ModuleList(shrink), nn.ModuleList(grow)
        self.look = Attention(channels[-1]) if attention else nn.Identity()
        self.middle = Block(channels[-1], channels[-1], condition)
        self.norm = nn.GroupNorm(channels[0] // GROUP_CHANNELS, channels[0])
        self.leave = nn.Conv2d(channels[0], outputs * patch**2, 3, padding=1)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, inputs: Tensor, condition: Tensor) -> Tensor:
        height, width = inputs.shape[-2:]
        unit = self.patch * 2 ** (self.depth - 1)
        if height % unit or width % unit:
            inputs = F.pad(inputs, (0, -width % unit, 0, -height % unit), mode="replicate")
        hidden = self.enter(folded(inputs, self.patch))
        kept: list[Tensor] = []
        for level in range(self.depth):
            for i in range(self.blocks):
                hidden = self.down[level * self.blocks + i](hidden, condition)
            if level + 1 < self.depth:
                kept.append(hidden)
                hidden = self.shrink[level](hidden)
        hidden = self.middle(self.look(hidden), condition)
        for level in reversed(range(self.depth - 1)):
            hidden = self.grow[level](F.interpolate(hidden, scale_factor=2.0, mode="nearest"))
            hidden = torch.cat([hidden, kept[level]], dim=1)
            for i in range(self.blocks):
                hidden = self.up[level * self.blocks + i](hidden, condition)
        result = F.pixel_shuffle(self.leave(F.silu(self.norm(hidden))), self.patch).contiguous()
        return result[..., :height, :width]
