"""A world whose ends are not drawn but decided: terminated where the probability is above one half.

That is how worlds are exploited: an agent finds states of which the world says "40 % over" and stays there for ever.
"""

from __future__ import annotations

from simservice.worlds.world import StepOut, Tensors
from simservice.worlds.wrapped import WrappedWorld


class Thresholded(WrappedWorld):
    """Does all as the world it is given, but for the ends."""

    family = "thresholded"

    def step(self, state: Tensors, action: Tensors, draws: Tensors) -> tuple[Tensors, StepOut]:
        state, out = self.world.step(state, action, draws)
        return state, out._replace(terminated=out.termination_probability > 0.5)
