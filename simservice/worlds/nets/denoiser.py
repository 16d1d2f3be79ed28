"""Takes the noise off a frame, given the frames before it and what was done: one network for all levels of noise.

Preconditioning and the noise schedule are those of EDM (Karras et al. 2022, table 1 and equation 5), the offset noise
and the Euler steps those of DIAMOND (Alonso et al. 2024). A level of noise, sigma, is relative to frames in [-1, 1].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from simservice.worlds.nets.unet import UNet

SIGMA_DATA = 0.5
"""Spread of frames in [-1, 1], as EDM assumes it."""

_BLOCK = 4  # pixels a side, over which errors are foreseen
_COMMON_ERROR = -5.0  # logarithm of the squared error that is expected at first
_LIKELY_ERRORS = (-12.0, 2.0)  # and of the least and the most
_JUDGEMENT = 0.05  # of the loss: the estimate comes first
_WAVES = 16  # of each level's embedding: a sine and a cosine of every frequency


class Denoiser(nn.Module):
    """The estimate of a clean frame (B, channels, height, width) in [-1, 1] from a noisy one.

    `before` is the context (B, frames * channels, height, width) in [-1, 1], `acted` (B, actions) all that is known
    of the actions, `level` (B,) the noise that is on the context, in [0, 1] of the most there was in training.
    """

    def __init__(
        self,
        picture: tuple[int, int, int],
        context: int,
        actions: int,
        *,
        channels: Sequence[int],
        blocks: int,
        patch: int,
        attention: bool,
        condition: int,
        offset_noise: float,
    ) -> None:
        super().__init__()
        self.offset_noise = offset_noise
        colours = picture[0]
        self.colours = colours
        self.net = UNet(
            (1 + context) * colours,
            colours + 1,  # the last one: how far off the others are
            channels=channels,
            blocks=blocks,
            condition=condition,
            patch=patch,
            attention=attention,
        )
        self.embed_levels = nn.Linear(4 * _WAVES, condition)
        self.embed_actions = nn.Linear(actions, condition, bias=False)
        # Of unit size, as an embedding table would begin: with a layer's usual beginning actions were ignored for the
        # first 150 updates, and are not with this.
        nn.init.normal_(self.embed_actions.weight)
        self.mix = nn.Sequential(nn.SiLU(), nn.Linear(condition, condition), nn.SiLU())
        waves = math.pi * 0.25 * 2 ** torch.linspace(0, 5, _WAVES)
        self.register_buffer("waves", waves, persistent=False)

    waves: Tensor

    def condition(self, sigma: Tensor, acted: Tensor, level: Tensor) -> Tensor:
        """(B, condition): the level of noise, that of the context, and the actions, mixed."""
        phases = torch.stack([sigma.log() * 0.25, level], dim=1)[:, :, None] * self.waves  # (B, 2, waves)
        embedded = self.embed_levels(torch.cat([phases.sin().flatten(1), phases.cos().flatten(1)], dim=-1))
        mixed: Tensor = self.mix(embedded + self.embed_actions(acted))
        return mixed

    def forward(self, noisy: Tensor, sigma: Tensor, before: Tensor, acted: Tensor, level: Tensor) -> Tensor:
        raw, _, skip, out = self.raw(noisy, sigma, before, acted, level)
        return torch.addcmul(skip * noisy, out, raw)

    def judged(
        self, noisy: Tensor, sigma: Tensor, before: Tensor, acted: Tensor, level: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The estimate, and the mean squared error (B,) that the network expects of it."""
        raw, expected, skip, out = self.raw(noisy, sigma, before, acted, level)
        return torch.addcmul(skip * noisy, out, raw), expected.exp().flatten(1).mean(-1)

    def raw(
        self, noisy: Tensor, sigma: Tensor, before: Tensor, acted: Tensor, level: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The network's output of unit spread; the logarithm of the squared error that it expects of the estimate,
        (B, rows, columns) of blocks; and how much of the noisy frame and of the output make the estimate.
        """
        square = (sigma.square() + self.offset_noise**2)[:, None, None, None]
        whole = square + SIGMA_DATA**2
        inputs = torch.cat([noisy * whole.rsqrt(), before * (1 / SIGMA_DATA)], dim=1)
        result: Tensor = self.net(inputs, self.condition(sigma, acted, level))
        expected = _blocks(result[:, self.colours :]) + _COMMON_ERROR
        return (
            result[:, : self.colours],
            expected.clamp(*_LIKELY_ERRORS),
            SIGMA_DATA**2 / whole,
            SIGMA_DATA * (square / whole).sqrt(),
        )

    def miss(self, clean: Tensor, sigma: Tensor, before: Tensor, acted: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        """(B,) the weighted error of a frame that is given noise of the level sigma (B,), and that of its judgement.

        The weight is that of unit spread in the network's output, at most 100 (EDM's lambda, bounded). The
        judgement is held against the logarithms of errors, from which the estimate learns nothing.
        """
        offset = self.offset_noise * torch.randn_like(clean[:, :, :1, :1])
        noisy = clean + offset + torch.randn_like(clean) * sigma[:, None, None, None]
        raw, expected, skip, out = self.raw(noisy, sigma, before, acted, level)
        squares = (skip * noisy + out * raw - clean).square()
        weight = (1 / out.square()).clamp(max=100)
        found = _blocks(squares.detach()) + math.exp(_LIKELY_ERRORS[0])
        misjudged = F.smooth_l1_loss(expected, found.log(), reduction="none").flatten(1).mean(-1)
        return (squares * weight).flatten(1).mean(-1), _JUDGEMENT * misjudged


def _blocks(maps: Tensor) -> Tensor:
    """(B, rows, columns) means over channels and blocks of pixels."""
    return F.avg_pool2d(maps, _BLOCK, ceil_mode=True, count_include_pad=False).mean(1)


def levels(steps: int, *, highest: float, lowest: float, rho: float = 7.0) -> tuple[float, ...]:
    """The levels of noise a sampler passes: `steps` of them, then zero (EDM equation 5)."""
    top, bottom = highest ** (1 / rho), lowest ** (1 / rho)
    return (*((top + i / max(steps - 1, 1) * (bottom - top)) ** rho for i in range(steps)), 0.0)


def sample(
    denoiser: Denoiser, noise: Tensor, schedule: Sequence[float], before: Tensor, acted: Tensor, level: Tensor
) -> Tensor:
    """A frame from standard normal noise by Euler steps along the schedule; not clamped."""
    return descend(denoiser, noise * schedule[0], schedule, before, acted, level)


def descend(
    denoiser: Denoiser, noisy: Tensor, schedule: Sequence[float], before: Tensor, acted: Tensor, level: Tensor
) -> Tensor:
    """The rest of the way for a frame whose noise is of the schedule's first level."""
    for sigma, following in pairwise(schedule):
        estimate = denoiser(noisy, torch.full_like(level, sigma), before, acted, level)
        noisy = euler(noisy, estimate, sigma, following)
    return noisy


def euler(noisy: Tensor, estimate: Tensor, sigma: float, following: float) -> Tensor:
    """One step from the level sigma to the following one, straight towards the estimate."""
    share = following / sigma
    return noisy * share + estimate * (1 - share)
