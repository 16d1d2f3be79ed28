"""A world whose ends are not drawn but decided: terminated where the probability is above one half.

That is how worlds are exploited: an agent finds states of which the world says "40 % over" and stays there for ever.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from simservice.types import Episode
from simservice.worlds.world import Call, Draw, Slot, StepOut, Tensors, World


class Thresholded(World):
    """Does all as the world it is given, but for the ends."""

    family = "thresholded"
    Config = object

    def __init__(self, world: World) -> None:
        super().__init__(world.spec, world.config)
        self.world = world

    @property
    def slots(self) -> Mapping[str, Slot]:
        return self.world.slots

    @property
    def draws(self) -> Mapping[Call, Mapping[str, Draw]]:
        return self.world.draws

    def init(self, draws: Tensors) -> Tensors:
        return self.world.init(draws)

    def observe(
        self, state: Tensors, observation: Tensors, previous_action: Tensors, is_first: Tensor, draws: Tensors
    ) -> Tensors:
        return self.world.observe(state, observation, previous_action, is_first, draws)

    def step(self, state: Tensors, action: Tensors, draws: Tensors) -> tuple[Tensors, StepOut]:
        state, out = self.world.step(state, action, draws)
        return state, out._replace(terminated=out.termination_probability > 0.5)

    def emit(self, state: Tensors) -> Tensors:
        return self.world.emit(state)

    def rebuild(self, state: Tensors) -> Tensors:
        return self.world.rebuild(state)

    def prepare(self, episodes: Sequence[Episode]) -> None:
        raise TypeError("it is made of a trained world")
