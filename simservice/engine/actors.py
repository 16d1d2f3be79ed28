"""Who acts in a rollout: a script of given actions, or a policy. Knows no worlds and no sessions."""

from __future__ import annotations

from typing import Any, Protocol

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from simservice.engine.control import Control
from simservice.engine.luck import LuckAhead
from simservice.engine.pages import Pages
from simservice.engine.policies import RolloutPolicy
from simservice.engine.sampling import ActionDistribution, SamplingParameters, sample
from simservice.types import Leaves, PolicyUse, WorldSpec


class Actor(Protocol):
    """Acts once a step, for all lanes."""

    looks: bool  # at observations
    fits: bool  # its raw actions to the action space, before the world gets them
    lane_bytes: int  # of what it says about one step of one lane, about

    def act(self, number: int, observation: Leaves, control: Control, pages: Pages) -> Leaves:
        """The actions of step `number`, (lanes, ...); what else it has to say goes into the pages."""


class Script:
    """Acts as it was told before."""

    looks = False
    fits = False
    lane_bytes = 0

    def __init__(self, actions: Leaves) -> None:
        self._actions = actions  # (steps, lanes, ...)

    def act(self, number: int, observation: Leaves, control: Control, pages: Pages) -> Leaves:
        """Row `number` of the script."""
        return {path: array[number] for path, array in self._actions.items()}


class Pilot:
    """A policy that explores by the lanes' own luck, which is drawn apart from the world's."""

    looks = True

    def __init__(self, policy: RolloutPolicy, use: PolicyUse, spec: WorldSpec, steps: int) -> None:
        self._policy = policy
        self._distribution = ActionDistribution(policy.distribution, spec.action_space)
        self._parameters = SamplingParameters(explore=not use.greedy, epsilon=use.epsilon, rescale=not use.clip_only)
        self.fits = not _counts_from_zero(spec.action_space)
        self._draws = {} if use.greedy else self._distribution.draws
        self._steps = steps  # that it will act for
        self._luck: LuckAhead | None = None
        self.lane_bytes = 4 + sum(_bytes(output.shape, output.dtype.itemsize) for output in policy.outputs)

    def act(self, number: int, observation: Leaves, control: Control, pages: Pages) -> Leaves:
        """One action a lane."""
        if self._luck is None:
            self._luck = LuckAhead(control, self._draws, "explore", self._steps)
        outputs = self._policy(observation)
        sampled = sample(self._distribution, outputs, self._luck.take(slice(0, pages.lanes)), self._parameters)
        action = {self._distribution.leaf.path: sampled.action}
        pages.act(action, sampled.raw, sampled.log_probability, outputs)
        return action


def _counts_from_zero(space: gym.Space[Any]) -> bool:
    return isinstance(space, spaces.Discrete | spaces.MultiDiscrete) and not np.any(space.start)


def _bytes(shape: tuple[int, ...], itemsize: int) -> int:
    for extent in shape:
        itemsize *= extent
    return itemsize
