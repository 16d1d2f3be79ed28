"""Agents that learn inside a world, and what they get in reality."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from simservice.data.collect import RealStepCounter
from simservice.fidelity.exploitation import exploitation_gap, is_exploited
from simservice.proving.agent import AgentConfig
from simservice.proving.processes import Errand, served, train_agents
from simservice.proving.recipe import Figures, Recipe
from simservice.proving.scoring import score


@dataclass(frozen=True)
class Inside:
    """How a recipe's agents are trained and judged."""

    recipe: Recipe
    agent: AgentConfig
    recorded: Collection[int | None]  # seeds that no score may be played from
    chance: float  # random play's return
    episodes: int
    judge: RealStepCounter

    def learn_and_score(self, errand: Errand, *, through: bool) -> Figures:
        """The figures of one agent: its returns in the world and in reality, their gap, and the alarm."""
        scratch, env_id = errand.out.parent, self.recipe.env_id
        if through:
            with served(errand.folder, env_id, scratch) as address:
                (found,) = train_agents([replace(errand, address=address)], self.agent, env_id)
        else:
            (found,) = train_agents([errand], self.agent, env_id)
        real = self.score(errand)
        gap = exploitation_gap(np.array(found["world_returns"]), np.array(real), self.recipe.best_return - self.chance)
        mean = float(np.mean(real))
        return {
            "world_return": found["world_return"],
            "real_return": mean,
            "worst_episode": min(real),
            "gap": abs(found["world_return"] - mean) / max(abs(mean), 1e-9),
            "exploited": float(is_exploited(gap)),  # the alarm: 1 where the agent wins in the dream only
            "imagined_steps": float(found["steps"]),
            "agent_s": found["seconds"],
        }

    def score(self, errand: Errand) -> list[float]:
        """Returns of the trained agent in reality."""
        weights, recipe = Path(f"{errand.out}.safetensors"), self.recipe
        return score(recipe.env_id, recipe.env_kwargs, weights, errand.seed, self.judge, self.recorded, self.episodes)
