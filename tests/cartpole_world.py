"""CartPole's true dynamics as a world: what an agent can learn here, it can learn wherever the world is right."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import gymnasium as gym
import torch

from simservice.serving.local import LocalConfig, LocalServer
from simservice.types import Episode, Provenance, WorldSpec
from simservice.worlds import checkpoint, registry
from simservice.worlds.world import Call, Draw, Slot, StepOut, Tensors, World

TAU, FORCE, GRAVITY, LENGTH, POLE, TOTAL = 0.02, 10.0, 9.8, 0.5, 0.1, 1.1


@dataclass(frozen=True, kw_only=True)
class CartPoleConfig:
    """Nothing to choose."""


def cartpole_spec() -> WorldSpec:
    """The contract of CartPole-v1."""
    env = gym.make("CartPole-v1")
    spec = WorldSpec(
        name="cartpole",
        version="000000000000",
        family="true-cartpole",
        observation_space=env.observation_space,
        action_space=env.action_space,
        max_episode_steps=500,
        capabilities=frozenset({"reward", "termination", "context"}),
    )
    env.close()
    return spec


class CartPoleWorld(World):
    """Exact; Gymnasium's own formulas."""

    family = "true-cartpole"
    Config = CartPoleConfig

    def __init__(self, spec: WorldSpec, config: CartPoleConfig | None = None) -> None:
        super().__init__(spec, config or CartPoleConfig())
        self.register_buffer("gravity", torch.tensor(GRAVITY, dtype=torch.float64))

    @property
    def slots(self) -> Mapping[str, Slot]:
        return {"x": Slot((4,), torch.float64)}

    @property
    def draws(self) -> Mapping[Call, Mapping[str, Draw]]:
        return {"init": {"start": Draw("uniform", (4,))}, "observe": {}, "step": {}}

    def init(self, draws: Tensors) -> Tensors:
        return {"x": (draws["start"].double() - 0.5) * 0.1}

    def observe(
        self, state: Tensors, observation: Tensors, previous_action: Tensors, is_first: torch.Tensor, draws: Tensors
    ) -> Tensors:
        return {"x": observation["observation"].double().clone()}

    def step(self, state: Tensors, action: Tensors, draws: Tensors) -> tuple[Tensors, StepOut]:
        x, speed, angle, turn = state["x"].unbind(-1)
        force = (action["action"].double() * 2 - 1) * FORCE
        cos, sin = angle.cos(), angle.sin()
        push = (force + POLE * LENGTH * turn**2 * sin) / TOTAL
        spin = (self.gravity * sin - cos * push) / (LENGTH * (4 / 3 - POLE * cos**2 / TOTAL))
        pull = push - POLE * LENGTH * spin * cos / TOTAL
        moved = torch.stack([x + TAU * speed, speed + TAU * pull, angle + TAU * turn, turn + TAU * spin], dim=-1)
        terminated = (moved[:, 0].abs() > 2.4) | (moved[:, 2].abs() > 12 * 2 * math.pi / 360)
        ones = torch.ones(len(x))
        return {"x": moved}, StepOut(ones, terminated, terminated.float(), torch.full_like(ones, torch.nan), {})

    def emit(self, state: Tensors) -> Tensors:
        return {"observation": state["x"].float()}

    def prepare(self, episodes: Sequence[Episode]) -> None:
        """Nothing is learned."""


@contextmanager
def served_cartpole(folder: Path) -> Iterator[str]:
    """The address of a local server of the world, as "cartpole"; its checkpoint goes into `folder`."""
    registry.register(CartPoleWorld)
    world = folder / "cartpole"
    checkpoint.save(CartPoleWorld(cartpole_spec()), world, provenance=Provenance(env_id="CartPole-v1"))
    with LocalServer([world], store_url="memory:", config=LocalConfig(grace_s=0.1)) as server:
        yield server.address
