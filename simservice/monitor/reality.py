"""The real side of a probe: a mixture of policies, their episodes, and windows cut from them. Knows no service."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np

from simservice.data.collect import RealStepCounter, collect_episodes
from simservice.data.environments import close, make_environment, max_episode_steps
from simservice.data.policies import Policy, epsilon_mixture, random_policy, sticky_policy
from simservice.fidelity.pixels import picture, seen
from simservice.fidelity.traces import Traces
from simservice.types import Array, Episode, Leaves, leaves_of

EPSILON = 0.3
STEPS_AN_EPISODE = 8  # single steps that are scored of each episode, beside its last


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """What one probe plays; the same config and seed play the same real episodes."""

    env_id: str
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)  # reality as it is now, e.g. {"gravity": 12}
    episodes: int = 16  # of each policy, in reality and in the world
    horizon: int = 100  # steps of the error curve
    windows: int = 256  # starts that the curve is measured from
    copies: int = 4  # imagined trajectories of each start, averaged: a world's luck is not its error
    max_episode_steps: int | None = None  # cap in both; None: the real environment's own
    lanes: int = 256
    seed: int = 0


@dataclass(frozen=True)
class Window:
    """A stretch of a real episode: the steps from `start` on, at most as many as are asked for."""

    episode: int
    start: int


@dataclass(frozen=True)
class Reality:
    """The environment as the probe found it."""

    observation_space: gym.Space[Any]
    action_space: gym.Space[Any]
    limit: int | None  # steps after which an episode is cut
    reward_threshold: float | None

    @classmethod
    def of(cls, config: ProbeConfig) -> Reality:
        """Looks at the environment without taking a step."""
        environment = make_environment(config.env_id, config.env_kwargs, config.attributes)
        try:
            limits = [limit for limit in (config.max_episode_steps, max_episode_steps(environment)) if limit]
            threshold = environment.spec.reward_threshold if environment.spec is not None else None
            limit = min(limits) if limits else None
            return cls(environment.observation_space, environment.action_space, limit, threshold)
        finally:
            close(environment)


def suite(reality: Reality, policy: Policy | None) -> dict[str, Callable[[int], Policy]]:
    """The mixture by name: makers of policies, from a seed.

    The same for every probe of a world, so that a change of the numbers is a change of the world or of reality.
    """
    spaces = reality.observation_space, reality.action_space
    made: dict[str, Callable[[int], Policy]] = {
        "random": lambda seed: random_policy(*spaces, seed),
        "sticky": lambda seed: sticky_policy(*spaces, seed),
    }
    if policy is not None:
        chosen = policy
        made["policy"] = lambda _: chosen
        made[f"policy-epsilon{EPSILON:g}"] = lambda seed: epsilon_mixture(chosen, *spaces, EPSILON, seed)
    return made


def play(config: ProbeConfig, reality: Reality, name: str, policy: Policy, counter: RealStepCounter) -> list[Episode]:
    """Whole real episodes of one policy. Starts differ from policy to policy and are the same in every run."""
    return collect_episodes(
        config.env_id,
        episodes=config.episodes,
        seed=config.seed * 1000 + sum(name.encode()),
        policy=policy,
        policy_name=name,
        max_steps=reality.limit,
        env_kwargs=config.env_kwargs,
        attributes=config.attributes,
        budget=counter,
    )


def cut_windows(episodes: Sequence[Episode], count: int, horizon: int, seed: int) -> list[Window]:
    """About `count` starts, as many of each episode, drawn without repetition.

    In an episode that did not terminate no window reaches over its end, as far as it is long enough: what a time limit
    hides is missing, but did not die.
    """
    generator = np.random.default_rng(seed)
    share = max(1, -(-count // len(episodes)))
    windows: list[Window] = []
    for number, episode in enumerate(episodes):
        last = len(episode) if episode.terminated else max(len(episode) - horizon + 1, 1)
        starts = generator.choice(last, size=min(share, last), replace=False)
        windows += [Window(number, int(start)) for start in np.sort(starts)]
    return windows


def single_steps(episodes: Sequence[Episode], seed: int) -> list[Window]:
    """Some steps of each episode, its last (the one that ended it) among them."""
    generator = np.random.default_rng([seed, 1])
    windows: list[Window] = []
    for number, episode in enumerate(episodes):
        others = generator.choice(len(episode) - 1, min(STEPS_AN_EPISODE, len(episode) - 1), replace=False)
        windows += [Window(number, int(start)) for start in (*np.sort(others), len(episode) - 1)]
    return windows


def real_traces(
    episodes: Sequence[Episode],
    windows: Sequence[Window],
    horizon: int,
    action_space: gym.Space[Any] | None = None,
    *,
    frames: bool = False,
) -> Traces:
    """The windows as metrics look at them; rows after an episode's end repeat its last.

    With the actions as numbers where their space is given, and with pictures where asked for and there are any.
    """
    states = [seen(episode.observation, lead=1) for episode in episodes]
    steps = np.arange(horizon)
    length = np.array([len(episodes[window.episode]) - window.start for window in windows])
    valid = steps < length[:, None]  # (N, H)
    last = steps == length[:, None] - 1
    ends = np.array(
        [(episodes[window.episode].terminated, episodes[window.episode].truncated) for window in windows], dtype=bool
    )
    acted = [action_numbers(action_space, episode.action) for episode in episodes] if action_space is not None else None
    shown = [picture(episode.observation, lead=1) for episode in episodes] if frames else []
    pictures = [rows for rows in shown if rows is not None]
    return Traces(
        observation=np.stack([_rows(states[w.episode], w.start, horizon + 1) for w in windows]),
        action=np.stack([_rows(acted[w.episode], w.start, horizon) for w in windows]) if acted else None,
        frames=np.stack([_rows(pictures[w.episode], w.start, horizon + 1) for w in windows]) if pictures else None,
        reward=np.stack([_rows(episodes[w.episode].reward, w.start, horizon) for w in windows]),
        terminated=last & ends[:, :1],
        truncated=last & ends[:, 1:],
        valid=valid,
        unit=np.array([window.episode for window in windows]),
    )


def action_numbers(space: gym.Space[Any], action: Leaves) -> Array:
    """(T, A) float64; a discrete action as one-hot."""
    columns = []
    for leaf in leaves_of(space, "action"):
        rows = action[leaf.path]
        if isinstance(leaf.space, gym.spaces.Discrete):
            columns.append(np.eye(int(leaf.space.n))[rows - int(leaf.space.start)])
        else:
            columns.append(rows.reshape(len(rows), -1).astype(np.float64))
    return np.concatenate(columns, axis=1)


def _rows(array: Array, start: int, count: int) -> Array:
    return array[np.minimum(np.arange(start, start + count), len(array) - 1)]
