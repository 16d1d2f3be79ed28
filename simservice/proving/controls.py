"""Worlds that must not work, and one that must: what a proof is held against.

C1 the recipe's world untrained, C2 trained on shuffled actions, C3 persistence (nothing changes), C4 ridge regression
(vectors; of pictures, C3 copies the last frame), C5 the true environment behind the same interface.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from simservice.data.episodes import Dataset, fingerprint
from simservice.proving.recipe import Recipe
from simservice.training.loader import split
from simservice.training.trainer import TrainConfig, train
from simservice.training.windows import has_pictures
from simservice.types import Episode, Provenance, WorldSpec, leaves_of
from simservice.worlds import checkpoint, registry

SHARE = 0.15
"""C1 to C3 must stay below random play's return plus this share of the way to the best."""


@dataclass(frozen=True, kw_only=True)
class Control:
    """One control, its world written."""

    name: str  # C1 ...
    words: str
    folder: Path
    judged: str  # "near random", "target" or "reported"


def build(recipe: Recipe, dataset: Dataset, seed: int, folder: Path) -> list[Control]:
    """Writes the worlds of all controls."""
    made = [
        Control(name="C1", words="untrained", folder=_untrained(recipe, dataset, folder / "c1"), judged="near random"),
        Control(
            name="C2", words="shuffled actions", folder=_shuffled(recipe, dataset, seed, folder / "c2"),
            judged="near random",
        ),
        Control(name="C3", words="persistence", folder=_family(dataset, "persistence", folder / "c3"),
                judged="near random"),
    ]  # fmt: skip
    if not has_pictures(dataset.episodes):
        linear = _family(dataset, "linear", folder / "c4")
        made.append(Control(name="C4", words="ridge regression", folder=linear, judged="reported"))
    limit = dataset.max_episode_steps or max(len(episode) for episode in dataset.episodes)
    oracle = _family(dataset, "oracle", folder / "c5", history_limit=limit)
    return [*made, Control(name="C5", words="the truth", folder=oracle, judged="target")]


def ceiling(recipe: Recipe, chance: float) -> float:
    """The most that C1 to C3 may reach, from random play's return."""
    return chance + SHARE * (recipe.best_return - chance)


def shuffled(episodes: Sequence[Episode]) -> tuple[Episode, ...]:
    """The episodes with all actions dealt out anew: what follows has nothing to do with them."""
    chance = np.random.default_rng(0)
    order = chance.permutation(sum(len(episode) for episode in episodes))
    ends = np.cumsum([len(episode) for episode in episodes])[:-1]
    dealt = {
        path: np.split(np.concatenate([episode.action[path] for episode in episodes])[order], ends)
        for path in episodes[0].action
    }
    return tuple(
        replace(episode, action={path: parts[place] for path, parts in dealt.items()})
        for place, episode in enumerate(episodes)
    )


def _untrained(recipe: Recipe, dataset: Dataset, out: Path) -> Path:
    spec = WorldSpec(
        name=out.name,
        version="",
        family=recipe.family,
        observation_space=dataset.observation_space,
        action_space=dataset.action_space,
        max_episode_steps=dataset.max_episode_steps,
    )
    world = registry.create(recipe.family, spec, recipe.overrides)
    world.prepare(split(dataset.episodes)[0])
    recipe.untrain(world)
    checkpoint.save(world, out, provenance=Provenance(env_id=dataset.env_id, dataset_hash=dataset.hash))
    return out


def _shuffled(recipe: Recipe, dataset: Dataset, seed: int, out: Path) -> Path:
    episodes = shuffled(dataset.episodes)
    dealt = replace(dataset, episodes=episodes, hash=fingerprint(episodes))
    config = TrainConfig(seed=seed, overrides=recipe.overrides, patience=recipe.patience)
    train(dealt, recipe.family, out, config=config)
    return out


def _family(dataset: Dataset, family: str, out: Path, **overrides: Any) -> Path:
    leaves_of(dataset.observation_space, "observation")
    train(dataset, family, out, config=TrainConfig(overrides=overrides))
    return out
