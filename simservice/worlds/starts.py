"""Starts for families of vectors: new ones drawn around the recorded resets, along the directions in which those vary.

A start is a recorded row plus normal multiples of the differences to its nearest rows, reflected into the recorded
range; the cosine and sine of an angle are turned together. So columns that never vary stay constant, related columns
stay related, whole numbers stay as recorded, and almost no draw repeats the data. A classifier (nearest neighbours)
tells new starts from fresh resets with an AUC of .58 to .59 from 130 resets, of .59 to .63 from 50 (CartPole, Pendulum,
Acrobot, MountainCar); a bootstrap has .70 to .74 and .89 to .91.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from simservice.types import Episode
from simservice.worlds.circles import partners
from simservice.worlds.codec import Codec
from simservice.worlds.world import Draw, Tensors

NEIGHBOURS = 8
MAX_ROWS = 2048
_SPREAD = 1.5 / NEIGHBOURS**0.5  # of each difference; smaller repeats the data, larger leaves curved sets


class Starts(nn.Module):
    """Recorded first observations as features, and the drawing of new ones. Holds one zero row until fitted."""

    draws: ClassVar[dict[str, Draw]] = {"start": Draw("uniform"), "start_shift": Draw("normal", (NEIGHBOURS,))}
    rows: Tensor  # (rows, width) float32
    apart: Tensor  # (rows, NEIGHBOURS, width) float32: how far the nearest rows lie; 0 where there are too few
    angle: Tensor  # (rows, NEIGHBOURS, width) float32: on a circle the sine of the angle between a row and a near one
    low: Tensor  # (width,) float32
    high: Tensor
    smooth: Tensor  # (width,) float32: 1 where a feature may be shifted
    partner: Tensor  # (width,) int64, see circles.partners
    side: Tensor  # (width,) float32: -1 for a cosine, 1 for a sine, 0 for all else

    def __init__(self, codec: Codec) -> None:
        super().__init__()
        self._width = codec.width
        self.register_buffer("smooth", codec.columns().float(), persistent=False)
        self._circles = False
        for name, value in self._with_rows(torch.zeros(1, codec.width)).items():
            self.register_buffer(name, value, persistent=False)

    def fit(self, episodes: Sequence[Episode], codec: Codec) -> None:
        """Takes the first observation of every episode (of MAX_ROWS of them, evenly spread, when there are more)."""
        chosen = np.unique(np.linspace(0, len(episodes) - 1, min(len(episodes), MAX_ROWS)).astype(int))
        first = {
            leaf.path: torch.from_numpy(np.stack([episodes[i].observation[leaf.path][0] for i in chosen]))
            for leaf in codec.leaves
        }
        for name, value in self._with_rows(codec.encode(first)).items():
            setattr(self, name, value.to(self.rows.device))

    def forward(self, draws: Tensors) -> Tensor:
        """Features (B, width) of new starts."""
        count = self.rows.shape[0]
        row = (draws["start"].double() * count).long().clamp(max=count - 1)
        base = self.rows[row]
        shift = (draws["start_shift"] * _SPREAD)[:, :, None]
        start = self._summed(base, shift * self.apart[row])
        low, high = self.low, self.high
        start = torch.where(start > high, 2 * high - start, start)
        start = torch.where(start < low, 2 * low - start, start)
        start = torch.minimum(torch.maximum(start, low), high)
        if not self._circles:
            return start
        turn = self._summed(torch.zeros_like(base), shift * self.angle[row])
        return torch.where(self.side == 0, start, self._turned(base, base[:, self.partner], turn * self.side))

    def _summed(self, first: Tensor, parts: Tensor) -> Tensor:
        """One after another: a sum's order of addition may depend on the batch."""
        for part in parts.unbind(1):
            first = first + part
        return first

    def _turned(self, base: Tensor, across: Tensor, turn: Tensor) -> Tensor:
        """Pairs turned on their circles by about `turn`; the other way, or not at all, where no row was seen."""
        tangent, across = turn / 2, across * self.side  # of half the angle: rational, and so the same everywhere
        square = tangent * tangent
        one, other = (1 - square) * base, 2 * tangent * across
        for turned in ((one + other) / (1 + square), (one - other) / (1 + square)):
            outside = (turned < self.low) | (turned > self.high)
            base = torch.where(outside | outside[:, self.partner], base, turned)
        return base

    def tensors(self) -> Tensors:
        """What starts.safetensors holds: the rows; the rest follows from them."""
        return {"rows": self.rows.detach().cpu().contiguous()}

    def put(self, tensors: Tensors) -> None:
        """Puts the rows back. Raises ValueError for what tensors() never gives."""
        if tensors.keys() != {"rows"}:
            raise ValueError(f"it must hold the tensor 'rows' alone, found {sorted(tensors)}")
        rows = tensors["rows"]
        if rows.dtype != torch.float32 or rows.ndim != 2 or rows.shape[0] < 1 or rows.shape[1] != self._width:
            raise ValueError(
                f"rows is {tuple(rows.shape)} {rows.dtype}, expected (1 or more, {self._width}) torch.float32"
            )
        for name, value in self._with_rows(rows).items():
            setattr(self, name, value.to(self.rows.device))

    def _with_rows(self, rows: Tensor) -> Tensors:
        spread = rows.double().std(0, unbiased=False)
        varies = self.smooth.cpu().bool() & (spread > 1e-9 * rows.double().abs().amax(0))
        # Rows of other categories are no neighbours, so those columns count much more than any float.
        weight = torch.where(varies, 1 / spread, torch.where(self.smooth.cpu().bool(), 0.0, 1e3))
        scaled = (rows.double() - rows.double().mean(0)) * weight
        count = rows.shape[0]
        neighbours = torch.arange(count)[:, None].repeat(1, NEIGHBOURS)
        near = min(NEIGHBOURS, count - 1)
        for first in range(0, count if near else 0, 512):
            block = slice(first, min(first + 512, count))
            distance = torch.cdist(scaled[block], scaled, compute_mode="donot_use_mm_for_euclid_dist")
            distance[torch.arange(distance.shape[0]), torch.arange(block.start, block.stop)] = torch.inf
            neighbours[block, :near] = distance.topk(near, largest=False).indices
        partner, own = partners(rows, self.smooth), torch.arange(rows.shape[1])
        self._circles = bool((partner != own).any())
        base, near_rows = rows[:, None], rows[neighbours]
        return {
            "rows": rows.clone(),
            "apart": (near_rows - base) * self.smooth.to(rows.device),
            "angle": base[..., partner] * near_rows - base * near_rows[..., partner],
            "low": rows.amin(0),
            "high": rows.amax(0),
            "partner": partner,
            "side": (own > partner).float() - (own < partner).float(),
        }
