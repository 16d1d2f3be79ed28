"""Recorded first observations of any kind, pictures too, for families that ground their starts in real frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from simservice.types import Episode, Leaf
from simservice.worlds.codec import torch_dtype
from simservice.worlds.world import Draw, Tensors

MAX_FRAMES = 512


class RecordedStarts(nn.Module):
    """The first observation of every episode, leaf by leaf; each is drawn alike. One zero row until fitted."""

    draws: ClassVar[dict[str, Draw]] = {"start": Draw("uniform")}

    def __init__(self, leaves: Sequence[Leaf]) -> None:
        super().__init__()
        self.leaves = tuple(leaves)
        for number, leaf in enumerate(self.leaves):
            self.register_buffer(
                f"leaf_{number}", torch.zeros((1, *leaf.shape), dtype=torch_dtype(leaf.dtype)), persistent=False
            )

    def fit(self, episodes: Sequence[Episode]) -> None:
        """Takes the first observation of every episode (of MAX_FRAMES of them, evenly spread, when there are more)."""
        chosen = np.unique(np.linspace(0, len(episodes) - 1, min(len(episodes), MAX_FRAMES)).astype(int))
        self.put(
            {
                leaf.path: torch.from_numpy(np.stack([episodes[i].observation[leaf.path][0] for i in chosen]))
                for leaf in self.leaves
            }
        )

    def forward(self, draws: Tensors) -> Tensors:
        """Observations (B, ...) by leaf path."""
        rows = {leaf.path: self._rows(number) for number, leaf in enumerate(self.leaves)}
        count = next(iter(rows.values())).shape[0]
        picked = (draws["start"].double() * count).long().clamp(max=count - 1)
        return {path: row[picked] for path, row in rows.items()}

    def tensors(self) -> Tensors:
        """What starts.safetensors holds: the rows by leaf path."""
        return {leaf.path: self._rows(number).detach().cpu().contiguous() for number, leaf in enumerate(self.leaves)}

    def put(self, tensors: Tensors) -> None:
        """Puts the rows back. Raises ValueError for what tensors() never gives."""
        paths = [leaf.path for leaf in self.leaves]
        if tensors.keys() != set(paths):
            raise ValueError(f"it must hold the tensors {paths}, found {sorted(tensors)}")
        count = len(tensors[paths[0]])
        for number, leaf in enumerate(self.leaves):
            rows, dtype = tensors[leaf.path], torch_dtype(leaf.dtype)
            if rows.dtype != dtype or rows.shape != (max(count, 1), *leaf.shape):
                found, wanted = f"{tuple(rows.shape)} {rows.dtype}", f"{(count, *leaf.shape)} {dtype}"
                raise ValueError(f"{leaf.path} is {found}, expected {wanted} with 1 row or more")
            setattr(self, f"leaf_{number}", rows.to(self._rows(number).device))

    def _rows(self, number: int) -> torch.Tensor:
        rows: torch.Tensor = getattr(self, f"leaf_{number}")
        return rows
