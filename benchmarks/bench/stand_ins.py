"""Worlds that are only as heavy as real ones: frames, a recurrent state-space model of usual size, a device that takes
its time. Nothing is learned in them. Registered by SIMSERVICE_EXTRA_FAMILIES, which stage.py sets.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn
from toy import Toy, ToyConfig, toy_spec

from bench.numpy_lanes import FRAME, GROWTH, PUSH, observation_space
from simservice.types import Episode, WorldSpec
from simservice.worlds.world import Call, Draw, Slot, StepOut, Tensors, World

OBSERVATION = "observation"
RECURRENT_OBSERVATION = 8  # numbers
REWARDED = frozenset({"reward", "termination"})


def spec(name: str, family: str, observation: spaces.Box) -> WorldSpec:
    """The contract of a stand-in with three actions; nothing ends an episode but what the world says."""
    return WorldSpec(
        name=name,
        version="0" * 12,
        family=family,
        observation_space=observation,
        action_space=spaces.Discrete(3),
        max_episode_steps=None,
        capabilities=REWARDED,
    )


def numbers(count: int) -> spaces.Box:
    """Observations of so many numbers."""
    return spaces.Box(-np.inf, np.inf, (count,), np.float32)


class StandIn(World):
    """What all of them share: no data, no uncertainty, no ends."""

    def prepare(self, episodes: Sequence[Episode]) -> None:
        """Nothing is learned."""

    def observe(
        self, state: Tensors, observation: Tensors, previous_action: Tensors, is_first: Tensor, draws: Tensors
    ) -> Tensors:
        """None of them is ever grounded: they do not say that they can be."""
        raise NotImplementedError

    @staticmethod
    def said(reward: Tensor) -> StepOut:
        """A step that ends nothing."""
        zeros = torch.zeros(len(reward))
        return StepOut(reward, torch.zeros(len(reward), dtype=torch.bool), zeros, zeros, {})


@dataclass(frozen=True, kw_only=True)
class FramesConfig:
    """How a picture looks and its shade moves."""

    push: float = 8.0  # grey levels an action adds
    block: int = 1  # pixels of one colour, squared: 1 is noise, which no codec makes smaller


class Frames(StandIn):
    """Pictures of 64 x 64 x 3 that cost a copy: what is timed is how they travel."""

    family = "bench-frames"
    Config = FramesConfig

    def __init__(self, spec: WorldSpec, config: FramesConfig) -> None:
        super().__init__(spec, config)
        generator = torch.Generator().manual_seed(0)
        coarse = (FRAME[0] // config.block, FRAME[1] // config.block, FRAME[2])
        colours = torch.randint(0, 256, coarse, generator=generator, dtype=torch.uint8)
        picture = colours.repeat_interleave(config.block, 0).repeat_interleave(config.block, 1)
        self.register_buffer("picture", picture)

    @property
    def slots(self) -> Mapping[str, Slot]:
        return {"shade": Slot((), torch.float32)}

    @property
    def draws(self) -> Mapping[Call, Mapping[str, Draw]]:
        return {"init": {"shade": Draw("uniform")}, "observe": {}, "step": {}}

    def init(self, draws: Tensors) -> Tensors:
        return {"shade": draws["shade"] * 255.0}

    def step(self, state: Tensors, action: Tensors, draws: Tensors) -> tuple[Tensors, StepOut]:
        shade = (state["shade"] + self.config.push * (action["action"] - 1)) % 255.0
        return {"shade": shade}, self.said(shade)

    def emit(self, state: Tensors) -> Tensors:
        return {OBSERVATION: self.picture + state["shade"].to(torch.uint8)[:, None, None, None]}


@dataclass(frozen=True, kw_only=True)
class RecurrentConfig:
    """The size of a small DreamerV3."""

    deter: int = 256
    groups: int = 16
    classes: int = 16
    hidden: int = 256


class Recurrent(StandIn):
    """The serving side of a recurrent state-space model: a GRU and a grid of categorical variables, with heads."""

    family = "bench-recurrent"
    Config = RecurrentConfig

    def __init__(self, spec: WorldSpec, config: RecurrentConfig) -> None:
        super().__init__(spec, config)
        torch.manual_seed(0)
        stoch = config.groups * config.classes
        observed = int(np.prod(spec.observation_space.shape or ()))
        self.into = nn.Linear(stoch + 3, config.hidden)
        self.cell = nn.GRUCell(config.hidden, config.deter)
        self.prior = nn.Sequential(nn.Linear(config.deter, config.hidden), nn.SiLU(), nn.Linear(config.hidden, stoch))
        self.heads = nn.Sequential(
            nn.Linear(config.deter + stoch, config.hidden), nn.SiLU(), nn.Linear(config.hidden, observed + 1)
        )

    @property
    def slots(self) -> Mapping[str, Slot]:
        grid = (self.config.groups, self.config.classes)
        return {"deter": Slot((self.config.deter,), torch.float32), "stoch": Slot(grid, torch.float32)}

    @property
    def draws(self) -> Mapping[Call, Mapping[str, Draw]]:
        luck = {"category": Draw("uniform", (self.config.groups,))}
        return {"init": luck, "observe": luck, "step": luck}

    def init(self, draws: Tensors) -> Tensors:
        deter = torch.zeros(len(draws["category"]), self.config.deter)
        return {"deter": deter, "stoch": self._drawn(self.prior(deter), draws["category"])}

    def step(self, state: Tensors, action: Tensors, draws: Tensors) -> tuple[Tensors, StepOut]:
        taken = torch.nn.functional.one_hot(action["action"], 3).float()
        joined = torch.nn.functional.silu(self.into(torch.cat([state["stoch"].flatten(1), taken], -1)))
        deter = self.cell(joined, state["deter"])
        after = {"deter": deter, "stoch": self._drawn(self.prior(deter), draws["category"])}
        return after, self.said(self._heads(after)[:, -1])

    def emit(self, state: Tensors) -> Tensors:
        return {OBSERVATION: self._heads(state)[:, :-1].contiguous()}

    def _heads(self, state: Tensors) -> Tensor:
        found: Tensor = self.heads(torch.cat([state["deter"], state["stoch"].flatten(1)], -1))
        return found

    def _drawn(self, logits: Tensor, luck: Tensor) -> Tensor:
        """One of each group's classes, as ones and zeros, by the inverse of their distribution function."""
        grid = logits.unflatten(-1, (self.config.groups, self.config.classes))
        below = torch.softmax(grid, -1).cumsum(-1)
        chosen = (below < luck.unsqueeze(-1)).sum(-1).clamp(max=self.config.classes - 1)
        return torch.nn.functional.one_hot(chosen, self.config.classes).float()


@dataclass(frozen=True, kw_only=True)
class SleeperConfig:
    """A device that takes this long for a tick, whatever its size."""

    tick_s: float = 0.002


class Sleeper(StandIn):
    """Waits as the host does for a GPU, without work of its own: so replicas share a machine and no processor."""

    family = "bench-sleeper"
    Config = SleeperConfig

    @property
    def slots(self) -> Mapping[str, Slot]:
        return {"x": Slot((4,), torch.float32)}

    @property
    def draws(self) -> Mapping[Call, Mapping[str, Draw]]:
        return {"init": {"x": Draw("uniform", (4,))}, "observe": {}, "step": {}}

    def init(self, draws: Tensors) -> Tensors:
        return {"x": draws["x"].clone()}

    def step(self, state: Tensors, action: Tensors, draws: Tensors) -> tuple[Tensors, StepOut]:
        time.sleep(self.config.tick_s)
        # A device would do it: numpy takes a fifth of the processor's time that torch takes for so few numbers.
        x = 0.9 * state["x"].numpy() + np.float32(0.1) * (action["action"].numpy()[:, None] - 1).astype(np.float32)
        zeros = torch.from_numpy(np.zeros(len(x), dtype=np.float32))
        ends = torch.from_numpy(np.zeros(len(x), dtype=np.bool_))
        return {"x": torch.from_numpy(x)}, StepOut(torch.from_numpy(x.sum(-1)), ends, zeros, zeros, {})

    def emit(self, state: Tensors) -> Tensors:
        return {OBSERVATION: torch.from_numpy(state["x"].numpy().copy())}


def families() -> str:
    """All of them as SIMSERVICE_EXTRA_FAMILIES names them."""
    return ",".join(f"{__name__}:{cls.__name__}" for cls in (Frames, Recurrent, Sleeper))


def world(kind: str, name: str) -> World:
    """One of those that rows are about: toy, episodic, frames, rendered, recurrent, sleeper."""
    if kind == "episodic":  # the toy with its ends
        return Toy(toy_spec(name=name), ToyConfig(growth=GROWTH, push=PUSH))
    if kind == "toy":  # bounded, and without an end, so that no reset falls into a measurement
        return Toy(toy_spec(name=name, max_episode_steps=None), ToyConfig(growth=GROWTH, push=PUSH))
    if kind == "rendered":
        return Frames(spec(name, Frames.family, observation_space(frames=True)), FramesConfig(block=8))
    cls, observation = {
        "frames": (Frames, observation_space(frames=True)),
        "recurrent": (Recurrent, numbers(RECURRENT_OBSERVATION)),
        "sleeper": (Sleeper, numbers(4)),
    }[kind]
    found: World = cls(spec(name, cls.family, observation), cls.Config())
    return found
