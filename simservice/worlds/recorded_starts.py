"""Starts for worlds of any observation: one of the recorded first observations, leaf by leaf, bytes kept as bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from simservice.types import Episode, leaves_of
from simservice.worlds.codec import torch_dtype
from simservice.worlds.world import Draw, Tensors

MAX_ROWS = 2048


class RecordedStarts(nn.Module):
    """A bootstrap of real resets: what it draws was seen before. Holds one zero row until fitted."""

    draws: ClassVar[dict[str, Draw]] = {"start": Draw("uniform")}

    def __init__(self, space: gym.Space[object]) -> None:
        super().__init__()
        self.leaves = leaves_of(space, "observation")
        self._place = {leaf.path: f"rows{number}" for number, leaf in enumerate(self.leaves)}
        for leaf in self.leaves:
            empty = torch.zeros((1, *leaf.shape), dtype=torch_dtype(leaf.dtype))
            self.register_buffer(self._place[leaf.path], empty, persistent=False)

    def fit(self, episodes: Sequence[Episode]) -> None:
        """Takes the first observation of every episode (of MAX_ROWS of them, evenly spread, when there are more)."""
        chosen = np.unique(np.linspace(0, len(episodes) - 1, min(len(episodes), MAX_ROWS)).astype(int))
        for path in self._place:
            self._set(path, torch.from_numpy(np.stack([episodes[i].observation[path][0] for i in chosen])))

    def forward(self, draws: Tensors) -> Tensors:
        """Leaves (B, ...) of starts, in the space's dtypes."""
        count = self._rows(self.leaves[0].path).shape[0]
        row = (draws["start"].double() * count).long().clamp(max=count - 1)
        return {path: self._rows(path)[row] for path in self._place}

    def tensors(self) -> Tensors:
        """What starts.safetensors holds."""
        return {path: self._rows(path).detach().cpu().contiguous() for path in self._place}

    def put(self, tensors: Tensors) -> None:
        """Puts the rows back. Raises ValueError for what tensors() never gives."""
        if tensors.keys() != self._place.keys():
            raise ValueError(f"it must hold the tensors {sorted(self._place)}, found {sorted(tensors)}")
        counts = {len(rows) for rows in tensors.values()}
        for leaf in self.leaves:
            rows, wanted = tensors[leaf.path], torch_dtype(leaf.dtype)
            if rows.dtype != wanted or tuple(rows.shape[1:]) != leaf.shape or len(counts) != 1 or 0 in counts:
                raise ValueError(
                    f"{leaf.path} is {tuple(rows.shape)} {rows.dtype}, expected (1 or more, *{leaf.shape}) {wanted}"
                )
            self._set(leaf.path, rows)

    def _rows(self, path: str) -> Tensor:
        return self.get_buffer(self._place[path])

    def _set(self, path: str, rows: Tensor) -> None:
        setattr(self, self._place[path], rows.to(self._rows(path).device))
