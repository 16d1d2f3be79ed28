"""Small policies as vectors of numbers: linear in what is seen, for every space with a fixed shape.

Optimised a little inside a world, each with luck of its own, they are independent policies to be ranked; optimised
to the end they show whether it can be won in the dream only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from simservice.data.policies import Policy
from simservice.fidelity.pixels import seen
from simservice.monitor.imagine import DreamPlayer
from simservice.monitor.reality import Reality
from simservice.types import Array, Episode, Leaf, from_leaves, leaves_of, to_leaves

MOST_FEATURES = 32
"""Of larger observations so many random directions are seen."""


@dataclass(frozen=True)
class LinearPolicies:
    """What every policy of one environment has in common."""

    observation_space: gym.Space[Any]
    action_space: gym.Space[Any]
    mean: Array  # (D,) of real observations
    scale: Array  # (D,)
    directions: Array | None  # (D, MOST_FEATURES)

    @classmethod
    def fitted(
        cls, observation_space: gym.Space[Any], action_space: gym.Space[Any], episodes: Sequence[Episode]
    ) -> LinearPolicies:
        """Observations are standardised by these real episodes."""
        rows = np.concatenate([seen(episode.observation, lead=1) for episode in episodes])
        spread = rows.std(axis=0)
        directions = None
        if rows.shape[1] > MOST_FEATURES:
            directions = np.random.default_rng(0).normal(size=(rows.shape[1], MOST_FEATURES)) / np.sqrt(rows.shape[1])
        return cls(observation_space, action_space, rows.mean(axis=0), np.where(spread > 1e-9, spread, 1.0), directions)

    @property
    def parameters(self) -> int:
        """Length of the vector that is one policy."""
        return self._features * sum(self._widths)

    def draw(self, seed: int) -> Array:
        """(parameters,) of a policy nobody trained. Its constant part is small, or most would do one thing always."""
        drawn = np.random.default_rng([seed, 9]).normal(size=(self._features, sum(self._widths)))
        drawn[-1] *= 0.2
        return drawn.ravel()

    def policy(self, parameters: Array) -> Policy:
        """The policy (parameters,) for any number of lanes; or (lanes, parameters): one for each lane."""
        weights = parameters.reshape(*parameters.shape[:-1], self._features, sum(self._widths))

        def act(observation: Any) -> Any:
            features = self._look(observation)
            output = features @ weights if weights.ndim == 2 else np.einsum("lf,lfo->lo", features, weights)
            parts = np.split(output, np.cumsum(self._widths)[:-1], axis=1)
            leaves = leaves_of(self.action_space, "action")
            chosen = {leaf.path: _choice(leaf)(part) for leaf, part in zip(leaves, parts, strict=True)}
            return from_leaves(self.action_space, chosen, "action")

        return act

    def _look(self, observation: Any) -> Array:
        rows = seen(to_leaves(self.observation_space, observation, "observation"), lead=1)
        features = np.clip((rows - self.mean) / self.scale, -10.0, 10.0)
        if self.directions is not None:
            features = features @ self.directions
        return np.concatenate([features, np.ones((len(features), 1))], axis=1)

    @property
    def _features(self) -> int:
        return 1 + (len(self.mean) if self.directions is None else MOST_FEATURES)

    @property
    def _widths(self) -> list[int]:
        return [_width(leaf) for leaf in leaves_of(self.action_space, "action")]


def _width(leaf: Leaf) -> int:
    """Numbers a policy says for one leaf of the action."""
    space = leaf.space
    if isinstance(space, spaces.Discrete):
        return int(space.n)
    return int(space.nvec.sum()) if isinstance(space, spaces.MultiDiscrete) else int(np.prod(leaf.shape))


def _choice(leaf: Leaf) -> Callable[[Array], Array]:
    """From what a policy says (lanes, width) to a leaf of actions."""
    space = leaf.space

    def choose(said: Array) -> Array:
        if isinstance(space, spaces.Discrete):
            return np.asarray(said.argmax(axis=1) + int(space.start))
        if isinstance(space, spaces.MultiDiscrete):
            parts = np.split(said, np.cumsum(space.nvec.ravel())[:-1], axis=1)
            picked = np.stack([part.argmax(axis=1) for part in parts], axis=1)
            return np.asarray(picked.reshape(-1, *leaf.shape) + space.start)
        if isinstance(space, spaces.MultiBinary):
            return np.asarray(said.reshape(-1, *leaf.shape) > 0)
        assert isinstance(space, spaces.Box)
        values = said.reshape(-1, *leaf.shape)
        with np.errstate(invalid="ignore"):
            within = space.low + (np.tanh(values) + 1.0) * (space.high - space.low) / 2.0
        bounded = np.isfinite(space.low) & np.isfinite(space.high)
        return np.clip(np.where(bounded, within, values), space.low, space.high)

    return lambda said: choose(said).astype(leaf.dtype)


def side_by_side(
    groups: Sequence[tuple[Policy, int]], observation_space: gym.Space[Any], action_space: gym.Space[Any]
) -> Policy:
    """One policy for many lanes, in groups of (policy, lanes): each group acts by a policy of its own."""

    def act(observation: Any) -> Any:
        leaves = to_leaves(observation_space, observation, "observation")
        parts, first = [], 0
        for policy, lanes in groups:
            rows = {path: array[first : first + lanes] for path, array in leaves.items()}
            part = from_leaves(observation_space, rows, "observation")
            parts.append(to_leaves(action_space, policy(part), "action"))
            first += lanes
        return from_leaves(
            action_space, {path: np.concatenate([part[path] for part in parts]) for path in parts[0]}, "action"
        )

    return act


def imagined_returns(player: DreamPlayer, small: LinearPolicies, policies: Array, reality: Reality, seed: int) -> Array:
    """(P,) mean imagined returns of policies (P, parameters), over as many episodes as there are lanes for."""
    each = max(1, player.lanes // len(policies))
    at_once = player.lanes // each
    found: list[Array] = []
    for first in range(0, len(policies), at_once):
        part = np.repeat(policies[first : first + at_once], each, axis=0)
        rows = np.resize(np.arange(len(part)), player.lanes)  # a session steps all of its lanes
        returns = player.episodes(small.policy(part[rows]), reality.limit, seed).returns[: len(part)]
        found.append(returns.reshape(-1, each).mean(axis=1))
    return np.concatenate(found)
