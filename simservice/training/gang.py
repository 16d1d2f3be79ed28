"""Trainings that share one world over several processes: each takes its part of a batch, gradients are averaged.

Knows torch's process groups only. Who starts the processes, and where, is another's business.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, distributed, nn

from simservice.errors import ConfigError
from simservice.worlds.world import Batch, Tensors


class Gang(Protocol):
    """Whom a training belongs to. Every member makes the same updates and holds the same weights."""

    @property
    def rank(self) -> int:
        """Which member this is; the first one writes the files."""

    def part(self, batch: Batch, groups: int) -> Batch:
        """This member's rows of a batch that all of them drew alike; of each group as many."""

    def average(self, parameters: Iterable[nn.Parameter], loss: Tensor) -> Tensor:
        """Makes every gradient the mean over the members, and returns the mean loss."""

    def follow(self, buffers: Iterable[Tensor]) -> None:
        """Makes buffers the first member's: what a loss notes of its rows must be the same everywhere, too."""

    def agree(self, value: float) -> float:
        """The first member's value: what decides must be the same number everywhere."""


class _Alone(NamedTuple):
    """One process with all of the batch."""

    rank: int = 0

    def part(self, batch: Batch, groups: int) -> Batch:
        return batch

    def average(self, parameters: Iterable[nn.Parameter], loss: Tensor) -> Tensor:
        return loss

    def follow(self, buffers: Iterable[Tensor]) -> None:
        pass

    def agree(self, value: float) -> float:
        return value


ALONE: Gang = _Alone()


class ProcessGang:
    """The members of torch's default process group, which must have been made."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.rank, self.size = distributed.get_rank(), distributed.get_world_size()
        self.device = torch.device(device)

    def part(self, batch: Batch, groups: int) -> Batch:
        """A block of every group. Raises ConfigError where the rows cannot be dealt out evenly."""
        rows = batch.reward.shape[0]
        if rows % (groups * self.size):
            raise ConfigError(f"a batch of {rows} rows in {groups} groups cannot be dealt out to {self.size} processes")
        own = torch.arange(rows, device=batch.reward.device).view(groups, self.size, -1)[:, self.rank].reshape(-1)

        def rows_of(leaves: Tensors) -> Tensors:
            return {path: leaf[own] for path, leaf in leaves.items()}

        return Batch(
            observation=rows_of(batch.observation),
            action=rows_of(batch.action),
            reward=batch.reward[own],
            terminated=batch.terminated[own],
            is_first=batch.is_first[own],
            valid=batch.valid[own],
        )

    def average(self, parameters: Iterable[nn.Parameter], loss: Tensor) -> Tensor:
        """One message for all gradients: small worlds would spend their time on many."""
        trained = [parameter for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([loss.reshape(1).float(), *(p.grad.reshape(-1) for p in trained if p.grad is not None)])
        distributed.all_reduce(flat)
        flat /= self.size
        offset = 1
        for parameter in trained:
            end = offset + parameter.numel()
            parameter.grad = flat[offset:end].view_as(parameter)
            offset = end
        return flat[0]

    def follow(self, buffers: Iterable[Tensor]) -> None:
        """One message a buffer, as bytes: not every kind of group knows every dtype."""
        for buffer in buffers:
            distributed.broadcast(buffer.view(-1).view(torch.uint8), 0)

    def agree(self, value: float) -> float:
        shared = torch.tensor([value], dtype=torch.float64, device=self.device)
        distributed.broadcast(shared, 0)
        return float(shared)
