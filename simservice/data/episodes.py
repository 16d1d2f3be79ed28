"""Checks, describes and fingerprints recorded episodes. Does not know where they come from or where they are kept."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np

from simservice.errors import InvalidInput
from simservice.types import Array, Episode, Leaves, leaves_of


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Recorded episodes and where they come from: all that training and a later reader need to know."""

    episodes: tuple[Episode, ...]
    observation_space: gym.Space[Any]
    action_space: gym.Space[Any]
    env_id: str | None = None
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    env_attributes: Mapping[str, Any] = field(default_factory=dict)  # physics changed after the environment was made
    max_episode_steps: int | None = None
    dataset_id: str | None = None
    hash: str = ""  # sha256 over the episodes' arrays, 64 hex digits
    real_steps: int = 0  # every step the environment took for it
    metadata: Mapping[str, Any] = field(default_factory=dict)  # seed, policy and other JSON values

    @property
    def steps(self) -> int:
        """The transitions in it."""
        return sum(len(episode) for episode in self.episodes)


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """What a set of episodes covers, at a glance."""

    episodes: int
    steps: int
    terminated: int
    truncated: int  # at a time limit, and not terminated in the same step
    unfinished: int
    return_mean: float
    return_std: float
    actions: Mapping[str, float]  # share by value (discrete) or mean by component (continuous), by name
    discrete: bool

    def __str__(self) -> str:
        shown = list(self.actions.items())[:8]
        if self.discrete:
            actions = "actions " + ", ".join(f"{name}: {100 * share:.0f} %" for name, share in shown)
        else:
            actions = "mean action " + ", ".join(f"{name}: {value:+.2f}" for name, value in shown)
        more = f" and {len(self.actions) - 8} more" if len(self.actions) > 8 else ""
        ends = f"{self.terminated} terminated, {self.truncated} truncated, {self.unfinished} unfinished"
        terminal = 100 * self.terminated / self.steps
        return (
            f"{self.episodes} episodes ({ends}), {self.steps} steps ({terminal:.1f} % terminal), "
            f"return {self.return_mean:.1f} ± {self.return_std:.1f}, {actions}{more}"
        )


def coverage(episodes: Sequence[Episode], action_space: gym.Space[Any]) -> Coverage:
    """The figures of `episodes`; return is taken over finished episodes, or over all when none finished."""
    if not episodes:
        raise InvalidInput("episodes", "there are none")
    finished = [episode for episode in episodes if episode.terminated or episode.truncated] or list(episodes)
    returns = [episode.undiscounted_return for episode in finished]
    leaves = leaves_of(action_space, "action")
    discrete = all(np.issubdtype(leaf.dtype, np.integer) for leaf in leaves)
    actions: dict[str, float] = {}
    for leaf in leaves:
        name = leaf.path.removeprefix("action").strip("/")
        values = np.concatenate([episode.action[leaf.path] for episode in episodes])
        actions |= _shares(name, values) if np.issubdtype(leaf.dtype, np.integer) else _means(name, values)
    return Coverage(
        episodes=len(episodes),
        steps=sum(len(episode) for episode in episodes),
        terminated=sum(episode.terminated for episode in episodes),
        truncated=sum(episode.truncated and not episode.terminated for episode in episodes),
        unfinished=sum(not (episode.terminated or episode.truncated) for episode in episodes),
        return_mean=float(np.mean(returns)),
        return_std=float(np.std(returns)),
        actions=actions,
        discrete=discrete,
    )


def check_episode(episode: Episode, observation_space: gym.Space[Any], action_space: gym.Space[Any], name: str) -> None:
    """Raises InvalidInput naming `name` unless shapes, dtypes and lengths fit the spaces and all numbers are finite."""
    steps = len(episode)
    if steps < 1:
        raise InvalidInput(name, "has no step")
    parts = ((observation_space, episode.observation, "observation", steps + 1),)
    for space, leaves, root, rows in (*parts, (action_space, episode.action, "action", steps)):
        for leaf in leaves_of(space, root):
            found = leaves.get(leaf.path)
            wanted = (rows, *leaf.shape)
            if found is None or found.shape != wanted or found.dtype != leaf.dtype:
                what = "missing" if found is None else f"{found.dtype} {found.shape}"
                raise InvalidInput(f"{name}, {leaf.path}", f"is {what}, where the space asks for {leaf.dtype} {wanted}")
            _check_finite(found, f"{name}, {leaf.path}")
    _check_finite(episode.reward, f"{name}, reward")


def fingerprint(episodes: Sequence[Episode]) -> str:
    """sha256 over every array of every episode with its path, dtype and shape, and over how the episodes ended."""
    digest = hashlib.sha256()
    for episode in episodes:
        arrays: Leaves = {**episode.observation, **episode.action, "reward": episode.reward}
        for path in sorted(arrays):
            array = np.ascontiguousarray(arrays[path])
            digest.update(f"{path} {array.dtype.str} {array.shape};".encode())
            digest.update(array.tobytes())
        digest.update(f"{episode.terminated} {episode.truncated};".encode())
    return digest.hexdigest()


def _check_finite(array: Array, name: str) -> None:
    if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
        row = int(np.argwhere(~np.isfinite(array))[0][0])
        raise InvalidInput(name, f"is not a finite number in row {row}")


def _shares(name: str, values: Array) -> dict[str, float]:
    rows = values.reshape(len(values), -1)
    shares: dict[str, float] = {}
    for column in range(rows.shape[1]):
        prefix = "/".join(part for part in (name, str(column) if rows.shape[1] > 1 else "") if part)
        found, counts = np.unique(rows[:, column], return_counts=True)
        shares |= {
            f"{prefix}={value}" if prefix else str(value): float(count / len(rows))
            for value, count in zip(found, counts, strict=True)
        }
    return shares


def _means(name: str, values: Array) -> dict[str, float]:
    means = values.reshape(len(values), -1).mean(axis=0, dtype=np.float64)
    return {f"{name}[{i}]" if name else f"[{i}]": float(mean) for i, mean in enumerate(means)}
