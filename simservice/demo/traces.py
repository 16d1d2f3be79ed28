"""One start and one row of actions, played three times: in reality, in the served world, in changed reality."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from simservice.client.policy import Policy
from simservice.client.vector_env import RemoteVectorEnv
from simservice.data.collect import collect_episodes
from simservice.data.environments import close, make_environment
from simservice.types import Array, Context, Episode
from simservice.web.feature_names import feature_name

STEPS = 120
LANES = 64
PATH = "observation"


@dataclass(frozen=True)
class Trace:
    """One feature over the steps; null where a trajectory has ended."""

    name: str
    real: list[float | None]
    imagined: list[float | None]  # median over lanes that differ by their luck alone
    lower: list[float | None]  # 5 % and 95 % of those lanes
    upper: list[float | None]
    changed: list[float | None]


def record_traces(
    address: str, world: str, policy: Policy, env_id: str, changed: Mapping[str, float], seed: int
) -> list[Trace]:
    """Plays the policy, with some random actions, in reality; repeats its actions elsewhere from the same start."""
    [episode] = collect_episodes(
        env_id, episodes=1, seed=2_000_000 + seed, policy=policy.greedy(), epsilon=0.15, max_steps=STEPS
    )
    real = _matrix(episode.observation[PATH])
    dream = _imagine(address, world, episode, seed)  # (lanes, steps + 1, width)
    other = _replay(env_id, changed, episode, len(real))
    middle, lower, upper = (np.quantile(dream, share, axis=0) for share in (0.5, 0.05, 0.95))
    names = [feature_name(env_id, column) for column in range(real.shape[1])]
    columns = (real, middle, lower, upper, other)
    return [Trace(name, *(plain_numbers(rows[:, column]) for rows in columns)) for column, name in enumerate(names)]


def plain_numbers(values: Iterable[float]) -> list[float | None]:
    """JSON values; what is not finite becomes null."""
    return [round(float(value), 6) if math.isfinite(value) else None for value in values]


def _imagine(address: str, world: str, episode: Episode, seed: int) -> Array:
    """(lanes, steps + 1, width): every lane grounded in the episode's first observation. A lane stays where it ends."""
    start = np.repeat(episode.observation[PATH][None, :1], LANES, axis=0)
    none_yet = np.repeat(episode.action["action"][None, :0], LANES, axis=0)
    context = Context(observation={PATH: start}, action={"action": none_yet})
    env = RemoteVectorEnv(LANES, address=address, world=world)
    try:
        observation, _ = env.reset(seed=seed, options={"context": context})
        rows, running = [_matrix(observation)], np.ones((LANES, 1), dtype=bool)
        for action in episode.action["action"]:
            observation, _, terminated, truncated, _ = env.step(np.repeat(action[None], LANES, axis=0))
            rows.append(np.where(running, _matrix(observation), rows[-1]))
            running &= ~(terminated | truncated)[:, None]
    finally:
        env.close()
    return np.stack(rows, axis=1)


def _replay(env_id: str, changed: Mapping[str, float], episode: Episode, rows: int) -> Array:
    """(rows, width): the same seed, so the same start, in reality with changed physics; NaN after its end."""
    environment = make_environment(env_id, attributes=changed)
    try:
        observation, _ = environment.reset(seed=episode.seed)
        found = [np.ravel(observation)]
        for action in episode.action["action"]:
            observation, _, terminated, truncated, _ = environment.step(action)
            found.append(np.ravel(observation))
            if terminated or truncated:
                break
    finally:
        close(environment)
    played = np.asarray(found, dtype=np.float64)
    return np.pad(played, ((0, rows - len(played)), (0, 0)), constant_values=np.nan)


def _matrix(values: Array) -> Array:
    return np.asarray(values, dtype=np.float64).reshape(len(values), -1)
