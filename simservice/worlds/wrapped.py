"""A world that does as another one it is given, but for what a subclass changes. Learns nothing by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from simservice.types import Episode, WorldSpec
from simservice.worlds.world import Call, Draw, Slot, StepOut, Tensors, World


class WrappedWorld(World):
    """Rows, luck, steps and caches are the other world's."""

    Config = object

    def __init__(self, world: World, spec: WorldSpec | None = None) -> None:
        super().__init__(spec or world.spec, world.config)
        self.world = world
        self.context_frames = world.context_frames

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
        return self.world.step(state, action, draws)

    def rebuild(self, state: Tensors) -> Tensors:
        return self.world.rebuild(state)

    def emit(self, state: Tensors) -> Tensors:
        return self.world.emit(state)

    def prepare(self, episodes: Sequence[Episode]) -> None:
        raise TypeError("it is made of a trained world")
