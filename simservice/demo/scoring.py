"""The final measurement: a policy's returns over many fresh real episodes, played after all training has ended."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from simservice.client.policy import Policy
from simservice.data.collect import RealStepCounter, collect_episodes

SEED_OFFSET = 1_000_000
"""Scores are played from starts that no training and no check has seen."""

RESAMPLES = 2_000


@dataclass(frozen=True)
class Score:
    """Returns of real episodes, with what they cost in steps nobody learned from."""

    returns: tuple[float, ...]
    steps: int

    @property
    def mean(self) -> float:
        """The mean return."""
        return float(np.mean(self.returns))

    @property
    def interval(self) -> tuple[float, float]:
        """95 % bootstrap interval of the mean, over episodes."""
        values = np.asarray(self.returns)
        drawn = np.random.default_rng(0).integers(len(values), size=(RESAMPLES, len(values)))
        low, high = np.quantile(values[drawn].mean(axis=1), [0.025, 0.975])
        return float(low), float(high)


def score(
    policy: Policy,
    env_id: str,
    episodes: int,
    seed: int,
    *,
    env_kwargs: Mapping[str, Any] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Score:
    """Plays the policy greedily; its steps are counted apart from those of training."""
    counter = RealStepCounter()
    played = collect_episodes(
        env_id,
        episodes=episodes,
        seed=SEED_OFFSET + seed,
        policy=policy.greedy(),
        policy_name="score",
        num_envs=min(50, episodes),
        env_kwargs=env_kwargs,
        budget=counter,
        progress=progress,
    )
    return Score(tuple(episode.undiscounted_return for episode in played), counter.steps)
