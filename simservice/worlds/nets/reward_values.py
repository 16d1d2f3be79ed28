"""Rewards as weights over a few values: those that occur when there are few, else a ladder that grows with size."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from simservice.types import Array


class RewardValues(nn.Module):
    """Up to `size` values in ascending order. A reward between two of them is a little of each ("two-hot").

    Hafner et al. 2023, "Mastering Diverse Domains through World Models", section "Robust predictions", for rewards of
    many sizes; with fewer than `size` distinct rewards a value is a class, as in Micheli et al. 2022 (IRIS).
    """

    values: Tensor  # (size,) ascending; what is not used repeats the last
    used: Tensor  # (size,) bool

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("values", torch.arange(size, dtype=torch.float32))
        self.register_buffer("used", torch.ones(size, dtype=torch.bool))

    def fit(self, rewards: Array) -> None:
        """Takes the values from all rewards of the data."""
        found = np.unique(rewards.astype(np.float32))
        if len(found) > self.size:
            small, large = (np.sign(end) * np.log1p(abs(end)) for end in (found[0], found[-1]))
            steps = np.linspace(small, large, self.size)
            found = (np.sign(steps) * np.expm1(np.abs(steps))).astype(np.float32)
        values = np.concatenate([found, np.repeat(found[-1:], self.size - len(found))])
        self.values.copy_(torch.from_numpy(values))
        self.used.copy_(torch.arange(self.size) < len(found))

    def weights(self, reward: Tensor) -> Tensor:
        """(..., size) of rewards (...): they sum to 1, and with the values to the reward, if it is in their range."""
        last = self.used.sum() - 1
        above = torch.searchsorted(self.values, reward.contiguous()).clamp(max=last)
        below = (above - 1).clamp(min=0)
        low, high = self.values[below], self.values[above]
        share = ((reward - low) / (high - low).clamp(min=1e-12)).clamp(0, 1)
        share = torch.where(above == below, torch.ones_like(share), share)
        blank = torch.zeros((*reward.shape, self.size), device=reward.device)
        lower = blank.scatter(-1, below.unsqueeze(-1), (1 - share).unsqueeze(-1))
        return lower.scatter_add(-1, above.unsqueeze(-1), share.unsqueeze(-1))

    def surprise(self, logits: Tensor, reward: Tensor) -> Tensor:
        """(...) the cross-entropy of logits (..., size) and rewards (...)."""
        return -(self.weights(reward) * torch.log_softmax(self._masked(logits), dim=-1)).sum(-1)

    def expected(self, logits: Tensor) -> Tensor:
        """(...) the mean reward under logits (..., size)."""
        return (torch.softmax(self._masked(logits), dim=-1) * self.values).sum(-1)

    def _masked(self, logits: Tensor) -> Tensor:
        return logits.masked_fill(~self.used, -1e30)
