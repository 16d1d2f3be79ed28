"""An exact linear world for tests: x' = A x + B a + noise, known answers, nothing learned. Registers as "toy".

Its arithmetic is numpy, which costs a fifth of torch here: what is timed beside it is the service.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from simservice.types import Array, Episode, WorldSpec
from simservice.worlds.world import Call, Draw, Slot, StepOut, Tensors, World

OBSERVATION = "observation"


@dataclass(frozen=True, kw_only=True)
class ToyConfig:
    """Every number of the toy: a slow growth (1.05 a step) pushed by the action; it terminates where |x| > bound."""

    growth: float = 1.05
    push: float = 0.1  # what one unit of action adds to every element
    start: float = 0.5  # starts are uniform in [-start, start)
    bound: float = 3.0
    noise: float = 0.0  # standard deviation of what each step adds
    broken_above: float = float("inf")  # observations with an element above this become NaN: a world that fails


def toy_spec(**changes: Any) -> WorldSpec:
    """The toy's contract; name fields of WorldSpec to change them."""
    fields: dict[str, Any] = dict(
        name="toy",
        version="000000000000",
        family="toy",
        observation_space=spaces.Box(-np.inf, np.inf, (4,), np.float32),
        action_space=spaces.Discrete(3),
        max_episode_steps=200,
        capabilities=frozenset({"reward", "termination", "uncertainty", "context"}),
    )
    return WorldSpec(**{**fields, **changes})


class Toy(World):
    """The toy world; a Discrete action n counts as n - start - 1, a Box action as the sum of its elements."""

    family = "toy"
    Config = ToyConfig
    default_config = ToyConfig()

    def __init__(self, spec: WorldSpec, config: ToyConfig = default_config) -> None:
        super().__init__(spec, config)
        self.register_buffer("growth", torch.tensor(config.growth, dtype=torch.float64))  # so that there are weights

    @property
    def slots(self) -> Mapping[str, Slot]:
        return {"x": Slot((4,), torch.float64)}

    @property
    def draws(self) -> Mapping[Call, Mapping[str, Draw]]:
        step = {"noise": Draw("normal", (4,))} if self.config.noise else {}
        return {"init": {"start": Draw("uniform", (4,))}, "observe": {}, "step": step}

    def init(self, draws: Tensors) -> Tensors:
        return {"x": (2.0 * draws["start"].double() - 1.0) * self.config.start}

    def observe(
        self, state: Tensors, observation: Tensors, previous_action: Tensors, is_first: torch.Tensor, draws: Tensors
    ) -> Tensors:
        return {"x": observation[OBSERVATION].double().clone()}

    def push(self, action: Array) -> Array:
        """(B, 1) what each action adds."""
        space = self.spec.action_space
        if isinstance(space, spaces.Discrete):
            return self.config.push * (action[:, None] - float(space.start) - 1.0)
        return self.config.push * action.astype(np.float64).sum(-1, keepdims=True)

    def step(self, state: Tensors, action: Tensors, draws: Tensors) -> tuple[Tensors, StepOut]:
        if not state["x"].is_cpu:
            return self._step_on_a_device(state["x"], action["action"], draws)
        x = state["x"].numpy() * self.config.growth + self.push(action["action"].numpy())
        if self.config.noise:
            x = x + self.config.noise * draws["noise"].numpy()
        terminated = (np.abs(x) > self.config.bound).any(-1)
        reward, probability = torch.from_numpy(x.sum(-1)), torch.from_numpy(terminated.astype(np.float32))
        certain = torch.from_numpy(np.zeros(len(x), dtype=np.float32))
        return {"x": torch.from_numpy(x)}, StepOut(reward, torch.from_numpy(terminated), probability, certain, {})

    def _step_on_a_device(self, x: torch.Tensor, action: torch.Tensor, draws: Tensors) -> tuple[Tensors, StepOut]:
        """The same in torch, which costs ten times as much where numpy can do it."""
        space = self.spec.action_space
        pushed = (
            action[:, None] - float(space.start) - 1.0 if isinstance(space, spaces.Discrete) else action.sum(-1, True)
        )
        x = x * self.growth + self.config.push * pushed.double()
        if self.config.noise:
            x = x + self.config.noise * draws["noise"]
        terminated = (x.abs() > self.config.bound).any(-1)
        return {"x": x}, StepOut(x.sum(-1), terminated, terminated.float(), torch.zeros_like(x[:, 0]).float(), {})

    def emit(self, state: Tensors) -> Tensors:
        if not state["x"].is_cpu:
            x = state["x"].where(state["x"] <= self.config.broken_above, torch.nan)
            return {OBSERVATION: x.to(getattr(torch, str(self.spec.observation_space.dtype)))}
        x = state["x"].numpy()
        if self.config.broken_above < float("inf"):
            x = np.where(x > self.config.broken_above, np.nan, x)
        return {OBSERVATION: torch.from_numpy(x.astype(self.spec.observation_space.dtype))}

    def render(self, state: Tensors) -> torch.Tensor:
        """A grey 2 × 2 picture whose brightness is the element's."""
        level = (state["x"].abs() / self.config.bound * 255).clamp(0, 255).to(torch.uint8)
        return level.view(-1, 2, 2, 1).expand(-1, 2, 2, 3).contiguous()

    def prepare(self, episodes: Sequence[Episode]) -> None:
        """Nothing is learned."""


class Failing(Toy):
    """Raises once it is told to, as a world with a fault does."""

    failing = False

    def step(self, state: Tensors, action: Tensors, draws: Tensors) -> tuple[Tensors, StepOut]:
        if self.failing:
            raise ZeroDivisionError("the world fails")
        return super().step(state, action, draws)
