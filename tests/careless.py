"""CartPole's true dynamics, but for its ends: a fallen pole ends an episode with a chance of four in ten a step."""

from __future__ import annotations

from collections.abc import Mapping

from cartpole_world import CartPoleWorld

from simservice.worlds.world import Call, Draw, StepOut, Tensors


class Careless(CartPoleWorld):
    """Where ends are drawn a fallen agent gets some two steps more; where they are decided it never ends."""

    family = "careless"

    @property
    def draws(self) -> Mapping[Call, Mapping[str, Draw]]:
        return {**super().draws, "step": {"end": Draw("uniform", ())}}

    def step(self, state: Tensors, action: Tensors, draws: Tensors) -> tuple[Tensors, StepOut]:
        state, out = super().step(state, action, draws)
        probability = 0.4 * out.termination_probability
        return state, out._replace(terminated=probability > draws["end"], termination_probability=probability)
