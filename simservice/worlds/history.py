"""The last frames a world has seen and what was done at each: what its next frame is drawn from. Pure torch."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class History(NamedTuple):
    """B rows. Before a lane's first frame that frame is repeated, and what was done is not known."""

    frames: Tensor  # (B, context, channels, height, width) uint8, oldest first
    acted: Tensor  # (B, context, actions + 1) float32: what was done at each; the last column says whether it is known

    def done(self, action: Tensor) -> History:
        """What was done (B, actions) at the newest frame is known now."""
        known = torch.cat([action, torch.ones_like(action[:, :1])], dim=-1)
        return History(self.frames, torch.cat([self.acted[:, 1:], known[:, None]], dim=1))

    def seen(self, frame: Tensor) -> History:
        """A frame (B, channels, height, width) came of it."""
        return History(torch.cat([self.frames[:, 1:], frame[:, None]], dim=1), self.acted)


def opened(frame: Tensor, context: int, actions: int) -> History:
    """Rows that have seen one frame and nothing else."""
    acted = torch.zeros(len(frame), context, actions + 1, device=frame.device)
    return History(frame[:, None].repeat(1, context, 1, 1, 1), acted)


def at_step(frames: Tensor, acted: Tensor, step: Tensor, context: int) -> History:
    """The history of one step (B,) of every segment, its own action known, as frame by frame would have built it.

    Segments are frames (B, T + 1, channels, height, width) uint8 and actions (B, T, actions).
    """
    rows = torch.arange(len(step), device=step.device)[:, None]
    time = step[:, None] + torch.arange(1 - context, 1, device=step.device)  # (B, context)
    known = (time >= 0).float()[..., None]
    past = time.clamp(min=0)
    return History(frames[rows, past], torch.cat([acted[rows, past] * known, known], dim=-1))
