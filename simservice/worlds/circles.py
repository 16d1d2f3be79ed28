"""Finds columns that are the cosine and the sine of one angle, and keeps states on those circles.

Many environments show an angle that way (Pendulum, Acrobot, most robots). A model that is right to three digits a step
leaves the circle within an episode, and beside it nothing was ever recorded.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_ROUNDING = 1e-5  # of a squared radius; float32 leaves some 2e-7, and no sensor with noise comes near
_LEAST_ROWS = 3
_SMALLEST_RADIUS = 1e-3  # nearer to the centre there is no direction to keep


def partners(rows: Tensor, smooth: Tensor) -> Tensor:
    """(width,) int64: for a column on a circle the other one of its pair, for all others the column itself.

    rows (n, width) are recorded; smooth (width,) says which columns are floats. The earlier column of a pair counts as
    the cosine: the other way round is the same circle.
    """
    width = rows.shape[1]
    partner = torch.arange(width)
    if len(rows) < _LEAST_ROWS:
        return partner
    squares = rows.detach().cpu().double().square()
    apart = squares.amax(0) - squares.amin(0)
    free = [i for i in range(width) if smooth[i] and apart[i] > _ROUNDING and squares[:, i].max() <= 1 + _ROUNDING]
    while free:
        first = free.pop(0)
        for other in free:
            if ((squares[:, first] + squares[:, other]) - 1).abs().max() <= _ROUNDING:
                partner[first], partner[other] = other, first
                free.remove(other)
                break
    return partner


class Circles(nn.Module):
    """The pairs of one space's features; none until fitted."""

    partner: Tensor  # (width,) int64
    alone: Tensor  # (width,) bool: on no circle

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("partner", torch.arange(width))
        self.register_buffer("alone", torch.ones(width, dtype=torch.bool), persistent=False)
        self._any = False
        self.register_load_state_dict_post_hook(lambda circles, _: circles._look())  # type: ignore[no-untyped-call]

    def fit(self, rows: Tensor, smooth: Tensor) -> None:
        """Takes the pairs from recorded rows."""
        self.partner.copy_(partners(rows, smooth))
        self._look()

    def _look(self) -> None:
        self.alone.copy_(self.partner == torch.arange(len(self.partner), device=self.partner.device))
        self._any = not bool(self.alone.all())  # asked here, once: on a device each answer would be waited for

    def forward(self, features: Tensor) -> Tensor:
        """Every pair at radius 1, in the direction it has; all else as it is. Exact operations only."""
        if not self._any:
            return features
        squares = features * features
        radius = (squares + squares[:, self.partner]).sqrt().clamp(min=_SMALLEST_RADIUS)
        return torch.where(self.alone, features, features / radius)
