"""Vectors as numbers of a finite set and back: finite scalar quantisation, and a codebook whose dead codes revive."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

_INSIDE = 1e-3  # keeps a rounded level off the border of the first and the last one


class FiniteScalar(nn.Module):
    """Every column is rounded to one of a few levels; a code is the levels' combination. Nothing is learned here.

    Mentzer et al. 2023, "Finite Scalar Quantization", section 3.1: none can die, for there is no codebook. Gradients
    pass the rounding unchanged. The bound is x / (1 + |x|) and not a hyperbolic tangent: a quotient is rounded alike in
    every kernel, so a lane's code cannot depend on its place in the batch.
    """

    unit: Tensor  # (width,) int64: what a step of each column adds to the code
    count: Tensor  # (width,) float32: levels of each column

    def __init__(self, levels: Sequence[int]) -> None:
        super().__init__()
        if not levels or min(levels) < 2:
            raise ValueError("levels must be 2 or more in every column")
        self.width, self.size = len(levels), math.prod(levels)
        unit = [math.prod(levels[:i]) for i in range(len(levels))]
        self.register_buffer("unit", torch.tensor(unit), persistent=False)
        self.register_buffer("count", torch.tensor([float(n) for n in levels]), persistent=False)

    def forward(self, vectors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of (..., width): the quantised vectors in [-1, 1], codes (...) int64, and a loss (), here zero."""
        bounded = (vectors / (1 + vectors.abs()) + 1) * 0.5 * (self.count - 2 * _INSIDE) - 0.5 + _INSIDE
        level = bounded + (torch.round(bounded) - bounded).detach()
        code = (torch.round(bounded).long() * self.unit).sum(-1)
        return level * (2 / (self.count - 1)) - 1, code, vectors.new_zeros(())

    def vectors(self, code: Tensor) -> Tensor:
        """(..., width) what the codes (...) stand for."""
        level = torch.div(code.unsqueeze(-1), self.unit, rounding_mode="floor") % self.count.long()
        return level.float() * (2 / (self.count - 1)) - 1


class Codebook(nn.Module):
    """Every vector is replaced by the nearest of `size` learned ones.

    van den Oord et al. 2017, "Neural Discrete Representation Learning", section 3.2 and appendix A.1: entries follow
    the mean of what they stand for, and what is encoded is drawn to them by a commitment loss. An entry that hardly
    anything is nearest to is put where a vector of the present batch lies.
    """

    entries: Tensor  # (size, width)
    usage: Tensor  # (size,) how many vectors a batch gives to each entry, on average over the last batches
    total: Tensor  # (size, width) their sums

    def __init__(
        self, size: int, width: int, *, decay: float = 0.97, commitment: float = 0.25, dead_below: float = 0.02
    ) -> None:
        super().__init__()
        if size < 2 or width < 1:
            raise ValueError("size must be 2 or more, width 1 or more")
        self.size, self.width = size, width
        self.decay, self.commitment, self.dead_below = decay, commitment, dead_below
        entries = torch.randn(size, width) / math.sqrt(width)
        self.register_buffer("entries", entries)
        self.register_buffer("usage", torch.ones(size))
        self.register_buffer("total", entries.clone())

    def forward(self, vectors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of (..., width): the nearest entries, their numbers (...) int64, and the commitment loss ().

        In training mode the entries move, and dead ones revive by torch's own random numbers.
        """
        rows = vectors.reshape(-1, self.width)
        distance = self.entries.square().sum(-1) - 2 * (rows @ self.entries.T)
        nearest = distance.argmin(-1)
        if self.training:
            self._follow(rows.detach(), nearest)
        code = nearest.view(vectors.shape[:-1])
        found = self.vectors(code)
        loss = self.commitment * (vectors - found).square().mean()
        return vectors + (found - vectors).detach(), code, loss

    def vectors(self, code: Tensor) -> Tensor:
        """(..., width) the entries of the codes (...)."""
        return self.entries[code]

    @torch.no_grad()
    def _follow(self, rows: Tensor, nearest: Tensor) -> None:
        counts = torch.bincount(nearest, minlength=self.size).float()
        sums = torch.zeros_like(self.total).index_add_(0, nearest, rows)
        self.usage.lerp_(counts, 1 - self.decay)
        self.total.lerp_(sums, 1 - self.decay)
        dead = self.usage < self.dead_below
        # Rare vectors are what dead entries are for: those far from their entries are picked more often.
        missed = (rows - self.entries[nearest]).square().sum(-1) + 1e-8
        picked = rows[torch.multinomial(missed, self.size, replacement=True)]
        self.total.copy_(torch.where(dead[:, None], picked, self.total))
        self.usage.copy_(torch.where(dead, torch.ones_like(self.usage), self.usage))
        self.entries.copy_(self.total / self.usage[:, None].clamp(min=self.dead_below))


def perplexity(code: Tensor, size: int) -> Tensor:
    """() how many codes are used, as the exponential of the entropy of their frequencies."""
    share = torch.bincount(code.reshape(-1), minlength=size).float()
    share = share / share.sum().clamp(min=1)
    return torch.exp(-(share * share.clamp(min=1e-12).log()).sum())


def active(code: Tensor, size: int) -> int:
    """How many codes occur at all."""
    return int((torch.bincount(code.reshape(-1), minlength=size) > 0).sum())
