"""Categorical latents drawn from given uniforms, and scalars as two-hot categories on a symmetric logarithmic scale."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from simservice.worlds.nets.members import padded


def symlog(value: Tensor) -> Tensor:
    """sign(x) log(1 + |x|): far values come near, near ones stay (DreamerV3, equation 1)."""
    return value.sign() * value.abs().log1p()


def symexp(value: Tensor) -> Tensor:
    """The inverse of symlog."""
    return value.sign() * value.abs().expm1()


def mixed(logits: Tensor, uniform_share: float) -> Tensor:
    """Probabilities (..., classes) of which a share is spread evenly ("unimix"): no class is ever impossible."""
    probabilities = logits.softmax(-1)
    classes = probabilities.shape[-1]
    share = torch.full((), uniform_share / classes, dtype=probabilities.dtype, device=probabilities.device)
    return torch.add(share, probabilities, alpha=1 - uniform_share)


def pick(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """One-hots (..., classes) by the inverse cumulative distribution: one uniform (...) decides for each variable."""
    cumulative = probabilities.cumsum(-1)
    last = probabilities.shape[-1] - 1  # a sum just below 1 must not let the largest uniform fall off the end
    chosen = (cumulative[..., :last] <= uniform.unsqueeze(-1)).sum(-1, keepdim=True)
    return (chosen == torch.arange(last + 1, device=probabilities.device)).to(probabilities.dtype)


class _StraightThrough(torch.autograd.Function):
    """One-hots forward; backward as if they were the probabilities they were drawn from."""

    @staticmethod
    def forward(ctx: Any, probabilities: Tensor, uniform: Tensor) -> Tensor:
        return pick(probabilities, uniform)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


def pick_straight_through(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """As pick, with the gradient passed on to the probabilities."""
    picked: Tensor = _StraightThrough.apply(probabilities, uniform)  # type: ignore[no-untyped-call]
    return picked


def divergence(left: Tensor, right: Tensor) -> Tensor:
    """KL(left || right) in nats of categoricals (..., variables, classes), summed over the variables: (...)."""
    return (left * (left.log() - right.log())).sum((-2, -1))


class TwoHot(nn.Module):
    """A scalar as weights on the two nearest of evenly spaced bins of its symlog, between bounds that fit() takes.

    DreamerV3's reward head (section "symexp two-hot loss"), with the bins laid over the range of the data instead of
    [-20, 20]: few bins then suffice. bins must be a multiple of 16: softmax and exp run over whole vectors only.
    """

    low: Tensor  # () float32, symlog of the smallest value
    high: Tensor

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.bins = padded(bins)
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))

    def fit(self, low: float, high: float) -> None:
        """Takes the range of the values; a single value gives that one for any logits."""
        self.low.fill_(math.copysign(math.log1p(abs(low)), low))
        self.high.fill_(math.copysign(math.log1p(abs(high)), high))

    def loss(self, logits: Tensor, value: Tensor) -> Tensor:
        """Cross-entropy (...) of logits (..., bins) with the two-hot of value (...)."""
        width = (self.high - self.low).clamp(min=1e-8) / (self.bins - 1)
        place = ((symlog(value) - self.low) / width).clamp(0, self.bins - 1)
        below = place.floor().clamp(max=self.bins - 2)
        share = (place - below).unsqueeze(-1)
        logs = logits.log_softmax(-1)
        index = below.long().unsqueeze(-1)
        return -((1 - share) * logs.gather(-1, index) + share * logs.gather(-1, index + 1)).squeeze(-1)

    def mean(self, logits: Tensor) -> Tensor:
        """The expected value (...)."""
        steps = torch.arange(self.bins, dtype=logits.dtype, device=logits.device) / (self.bins - 1)
        values = symexp(self.low + (self.high - self.low) * steps)
        return (logits.softmax(-1) * values).sum(-1)
