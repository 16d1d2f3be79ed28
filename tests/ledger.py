"""A world that keeps books: each lane's state holds a hash of all that was ever done to it. Registers as "ledger".

Every observation tells the hash before the step, the hash after it and the number of steps, beside four numbers from a
small float32 network with luck, whose rounding depends on the batch as a learned world's does. So from its answers
alone a client sees a step that was lost, done twice or done out of order, and to whom a lane belongs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from simservice.types import Array, Episode, Provenance, WorldSpec
from simservice.worlds import checkpoint
from simservice.worlds.world import Call, Draw, Slot, StepOut, Tensors, World

NUMBERS = 4
BEFORE, AFTER, COUNT = NUMBERS, NUMBERS + 1, NUMBERS + 2  # columns of the observation
MODULUS = 2**31 - 1
ACTIONS = 5


@dataclass(frozen=True, kw_only=True)
class LedgerConfig:
    """Nothing of it is learned."""

    hidden: int = 32
    luck: float = 0.1


def ledger_spec(max_episode_steps: int = 100) -> WorldSpec:
    """The contract: observations are float64, which holds the hashes exactly."""
    return WorldSpec(
        name="ledger",
        version="000000000000",
        family="ledger",
        observation_space=spaces.Box(-np.inf, np.inf, (NUMBERS + 3,), np.float64),
        action_space=spaces.Discrete(ACTIONS),
        max_episode_steps=max_episode_steps,
        capabilities=frozenset({"reward", "termination"}),
    )


def entered(before: Any, action: Any, count: Any) -> Any:
    """The hash after a step, from the hash before it, the action and how many steps came before; int64 arrays."""
    return (before * 48271 + action * 16807 + count * 69621 + 11) % MODULUS


class Ledger(World):
    """Never terminates: an episode ends by the time limit, so that no rounding decides when."""

    family = "ledger"
    Config = LedgerConfig

    def __init__(self, spec: WorldSpec, config: LedgerConfig | None = None) -> None:
        config = config or LedgerConfig()
        super().__init__(spec, config)
        generator = torch.Generator().manual_seed(7)
        self.register_buffer("into", torch.randn(NUMBERS + 1, config.hidden, generator=generator))
        self.register_buffer("out", torch.randn(config.hidden, NUMBERS, generator=generator) / config.hidden)

    @property
    def slots(self) -> Mapping[str, Slot]:
        return {"x": Slot((NUMBERS,), torch.float32), "books": Slot((3,), torch.int64)}

    @property
    def draws(self) -> Mapping[Call, Mapping[str, Draw]]:
        start = {"x": Draw("uniform", (NUMBERS,)), "books": Draw("uniform", (2,))}
        return {"init": start, "observe": {}, "step": {"x": Draw("normal", (NUMBERS,))}}

    def init(self, draws: Tensors) -> Tensors:
        high, low = (draws["books"].double() * 2**15).long().unbind(-1)
        owner = (high << 15) + low
        return {"x": draws["x"].clone(), "books": torch.stack([owner, owner, torch.zeros_like(owner)], dim=-1)}

    def observe(
        self, state: Tensors, observation: Tensors, previous_action: Tensors, is_first: torch.Tensor, draws: Tensors
    ) -> Tensors:
        raise TypeError("a ledger is started by its seed alone")

    def step(self, state: Tensors, action: Tensors, draws: Tensors) -> tuple[Tensors, StepOut]:
        x, push = state["x"], action["action"].float()[:, None] - 2.0
        moved = 0.9 * x + torch.tanh(torch.cat([x, push], -1) @ self.into) @ self.out + self.config.luck * draws["x"]
        _, before, count = state["books"].unbind(-1)
        books = torch.stack([before, entered(before, action["action"].long(), count), count + 1], dim=-1)
        never = torch.zeros(len(x))
        reward = moved.double().sum(-1)
        return {"x": moved, "books": books}, StepOut(reward, never.bool(), never, torch.full_like(never, torch.nan), {})

    def emit(self, state: Tensors) -> Tensors:
        return {"observation": torch.cat([state["x"].double(), state["books"].double()], dim=-1)}

    def prepare(self, episodes: Sequence[Episode]) -> None:
        """Nothing is learned."""


def save_ledger(folder: Path, max_episode_steps: int = 100) -> Path:
    """The world as a checkpoint folder."""
    checkpoint.save(Ledger(ledger_spec(max_episode_steps)), folder, provenance=Provenance())
    return folder


def books(observation: Array) -> Array:
    """(lanes, 3) int64: the hash before, the hash after, the steps of the episode."""
    return observation[:, NUMBERS:].astype(np.int64)
