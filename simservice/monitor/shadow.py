"""Probes as the detectors look at them: the first steps of an episode, actions included. Knows no service."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from simservice.fidelity.pixels import seen
from simservice.fidelity.traces import Traces
from simservice.types import Array, Episode, Leaf, Leaves, leaves_of


def probe_traces(episodes: Sequence[Episode], action_space: gym.Space[Any], horizon: int) -> Traces:
    """One window an episode: its first steps, at most `horizon` of them. Each episode is a unit of its own."""
    states = [seen(episode.observation, lead=1) for episode in episodes]
    actions = [action_matrix(action_space, episode.action) for episode in episodes]
    length = np.array([min(len(episode), horizon) for episode in episodes])
    steps = np.arange(horizon)
    last = steps == length[:, None] - 1
    whole = np.array([len(episode) <= horizon for episode in episodes])  # the end was within the window
    terminated = np.array([episode.terminated for episode in episodes]) & whole
    truncated = np.array([episode.truncated for episode in episodes]) & whole
    return Traces(
        observation=np.stack([_rows(state, horizon + 1) for state in states]),
        action=np.stack([_rows(action, horizon) for action in actions]),
        reward=np.stack([_rows(episode.reward, horizon) for episode in episodes]),
        terminated=last & terminated[:, None],
        truncated=last & truncated[:, None],
        valid=steps < length[:, None],
        unit=np.arange(len(episodes)),
    )


def action_matrix(space: gym.Space[Any], leaves: Leaves) -> Array:
    """(T, A) float64 of action leaves (T, ...): numbers as they are, choices as one-hots."""
    return np.concatenate([_columns(leaf, leaves[leaf.path]) for leaf in leaves_of(space, "action")], axis=1)


def _columns(leaf: Leaf, array: Array) -> Array:
    rows = array.reshape(len(array), -1)
    if isinstance(leaf.space, spaces.Discrete):
        return np.eye(int(leaf.space.n))[rows[:, 0].astype(np.int64) - int(leaf.space.start)]
    if isinstance(leaf.space, spaces.MultiDiscrete):
        first, sizes = leaf.space.start.reshape(-1), leaf.space.nvec.reshape(-1)
        parts = [np.eye(int(n))[rows[:, i].astype(np.int64) - int(first[i])] for i, n in enumerate(sizes)]
        return np.concatenate(parts, axis=1)
    return np.asarray(rows, dtype=np.float64)


def _rows(array: Array, count: int) -> Array:
    """The first rows; the last one again where there are fewer."""
    return array[np.minimum(np.arange(count), len(array) - 1)]
