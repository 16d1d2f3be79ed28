"""Several small networks of one shape side by side, evaluated as one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LANES = 16
"""Columns a vector kernel takes at once, on every processor this runs on."""


def padded(columns: int) -> int:
    """The multiple of LANES that holds so many columns."""
    return -(-columns // LANES) * LANES


class Members(nn.Module):
    """Linear layers with SiLU between: (members, rows, inputs) to (members, rows, padded outputs)."""

    def __init__(self, members: int, sizes: Sequence[int]) -> None:
        super().__init__()
        layers = []
        for number, (fan_in, fan_out) in enumerate(pairwise([*sizes[:-1], padded(sizes[-1])])):
            weight = nn.Parameter(torch.randn(members, fan_in, fan_out) / math.sqrt(fan_in))
            bias = nn.Parameter(torch.zeros(members, 1, fan_out))
            self.register_parameter(f"weight_{number}", weight)
            self.register_parameter(f"bias_{number}", bias)
            layers.append((weight, bias))
        self._first, *self._deeper = layers  # held plainly: looking a parameter up takes longer than adding a bias

    def forward(self, inputs: Tensor) -> Tensor:
        weight, bias = self._first
        hidden = torch.baddbmm(bias, inputs, weight)
        for weight, bias in self._deeper:
            hidden = torch.baddbmm(bias, F.silu(hidden), weight)
        return hidden
