"""PPO that learns in reality alone: what the same real steps are worth without a dream."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simservice.client.policy import load_policy
from simservice.demo.agent_process import AgentProcess, News
from simservice.demo.scoring import Score, score

SAME: Mapping[str, Any] = {"num_envs": 64, "rollout_steps": 32}
"""The dream's own settings; a batch is 2,048 steps."""

SMALL_BATCHES: Mapping[str, Any] = {"num_envs": 4, "rollout_steps": 64, "minibatch_size": 64}
"""Retuned for a learner with few real steps: a dozen updates of 3,000 steps."""


@dataclass(frozen=True)
class Baseline:
    """A learning curve in reality, the steps it took, and what its policy scores."""

    learning: Sequence[tuple[int, float]]
    real_steps: int
    score: Score


def play_baseline(
    agent: AgentProcess,
    policy: Path,
    settings: Mapping[str, Any],
    *,
    env_id: str,
    steps: int,
    episodes: int,
    seed: int,
    progress: Callable[[str, float], None],
) -> Baseline:
    """Trains with at least `steps` real steps (whole batches), saves the policy, and scores it."""
    batch = settings["num_envs"] * settings["rollout_steps"]
    job = {
        "job": "reality",
        "env_id": env_id,
        "env_kwargs": {},
        "seed": seed,
        "policy": str(policy),
        "settings": {**settings, "total_steps": batch * math.ceil(steps / batch)},
    }
    learning: list[tuple[int, float]] = []

    def tell(news: News) -> None:
        learning.append((news["steps"], news["return_mean"]))
        progress(f"{news['steps']:,} real steps, return {news['return_mean']:.0f}", news["steps"] / news["total_steps"])

    last = agent.train(job, tell)
    return Baseline(learning, last["steps"], score(load_policy(policy), env_id, episodes, seed))
