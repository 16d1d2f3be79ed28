"""Vectors of codes that know what the codes look like. Knows no transformer and no tokenizer."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Likeness(nn.Module):
    """A vector for each code: what the patch that it stands for looks like, linearly, and one of its own.

    Codes are names, and names tell nothing of each other. Patches do: one that shows two things is the sum of two that
    show one. So what is learned of a thing alone holds for it beside any other, also where no data shows the two.
    The vector of its own tells what a sum does not, such as whether two things are in one place.
    """

    def __init__(self, codes: int, pixels: int, width: int, scale: float) -> None:
        super().__init__()
        self.own = nn.Parameter(torch.randn(codes, width) * scale)
        self.seen = nn.Parameter(torch.randn(width, pixels) * scale)

    def forward(self, looks: Tensor) -> Tensor:
        """(codes, width) of the codes' patches (codes, pixels)."""
        return self.own + looks @ self.seen.T
