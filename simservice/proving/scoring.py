"""Scores an agent in reality, after all training: greedy, over fresh episodes, whose steps are counted apart."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file

from simservice.data.collect import RealStepCounter, collect_episodes
from simservice.data.environments import close, make_environment
from simservice.errors import InvalidInput
from simservice.proving.agent import policy_of
from simservice.proving.agent_networks import Agent

EPISODES = 100
SCORE_SEED = 1_000_000
"""Scores are played from seeds drawn from here on."""


def score(
    env_id: str,
    env_kwargs: Mapping[str, Any],
    weights: Path | None,
    seed: int,
    counter: RealStepCounter,
    recorded: Collection[int | None],
    episodes: int = EPISODES,
) -> list[float]:
    """Undiscounted returns of the agent (None: random play). Raises InvalidInput if a seed was recorded from."""
    environment = make_environment(env_id, env_kwargs)
    spaces = environment.observation_space, environment.action_space
    close(environment)
    policy: Any = "random"
    if weights is not None:
        agent = Agent(*spaces)
        agent.load_state_dict(load_file(weights))
        policy = policy_of(agent, spaces[0])
    played = collect_episodes(
        env_id,
        episodes=episodes,
        seed=SCORE_SEED + seed,
        policy=policy,
        policy_name="score",
        env_kwargs=env_kwargs,
        budget=counter,
    )
    if any(episode.seed in recorded for episode in played):
        raise InvalidInput("seed", f"{seed} scores in an episode that was recorded; choose another")
    return [float(np.sum(episode.reward)) for episode in played]
