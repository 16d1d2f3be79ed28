"""A stack of linear layers, each normalised and bent."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F


class Perceptron(nn.Module):
    """Linear, layer norm, SiLU for each hidden size, then a plain linear layer: (..., inputs) to (..., outputs).

    Without outputs the last hidden layer is the result. Layer norm instead of DreamerV3's RMS norm: on the CPU it is
    one kernel and takes a third of the time. Sizes in between must be multiples of 16, see members.LANES.
    """

    def __init__(self, sizes: list[int], outputs: int | None = None, *, zero: bool = False) -> None:
        super().__init__()
        self.hidden = nn.ModuleList(nn.Linear(fan_in, fan_out) for fan_in, fan_out in pairwise(sizes))
        self.norms = nn.ModuleList(nn.LayerNorm(size) for size in sizes[1:])
        self.last = None if outputs is None else nn.Linear(sizes[-1], outputs)
        if self.last is not None and zero:
            nn.init.zeros_(self.last.weight)
            nn.init.zeros_(self.last.bias)

    def forward(self, inputs: Tensor) -> Tensor:
        for layer, norm in zip(self.hidden, self.norms, strict=True):
            inputs = F.silu(norm(layer(inputs)))
        return inputs if self.last is None else self.last(inputs)
