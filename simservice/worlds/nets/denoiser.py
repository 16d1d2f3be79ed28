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

from simservice.worlds.nets.unet import UNet

SIGMA_DATA = 0.5
"""Spread of frames in [-1, 1], as EDM assumes it."""

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
        self.net = UNet(
            (1 + context) * colours,
            colours,
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
        raw, skip, out = self.raw(noisy, sigma, before, acted, level)
        return torch.addcmul(skip * noisy, out, raw)

    def raw(
        self, noisy: Tensor, sigma: Tensor, before: Tensor, acted: Tensor, level: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The network's output of unit spread, and how much of the noisy frame and of it make the estimate."""
        square = (sigma.square() + self.offset_noise**2)[:, None, None, None]
        whole = square + SIGMA_DATA**2
        inputs = torch.cat([noisy * whole.rsqrt(), before * (1 / SIGMA_DATA)], dim=1)
        result: Tensor = self.net(inputs, self.condition(sigma, acted, level))
        return result, SIGMA_DATA**2 / whole, SIGMA_DATA * (square / whole).sqrt()

    def miss(self, clean: Tensor, sigma: Tensor, before: Tensor, acted: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        """(B,) the weighted error of a frame that is given noise of the level sigma (B,), and the estimate itself.

        The weight is that of unit spread in the network's output, at most 100 (EDM's lambda, bounded).
        """
        offset = self.offset_noise * torch.randn_like(clean[:, :, :1, :1])
        noisy = clean + offset + torch.randn_like(clean) * sigma[:, None, None, None]
        raw, skip, out = self.raw(noisy, sigma, before, acted, level)
        estimate = skip * noisy + out * raw
        weight = (1 / out.square()).clamp(max=100)
        return ((estimate - clean).square() * weight).flatten(1).mean(-1), estimate


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
