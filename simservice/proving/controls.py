"""Worlds that must not work, and one that must: what a proof is held against.

C1 the recipe's world untrained, C2 trained on shuffled actions, C3 persistence (nothing changes), C4 ridge regression
(vectors; of pictures, C3 copies the last frame), C5 the true environment behind the same interface.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from simservice.data.environments import close, make_environment
from simservice.data.episodes import Dataset, fingerprint
from simservice.fidelity.pixels import is_picture
from simservice.proving.recipe import Recipe
from simservice.training.loader import split
from simservice.training.trainer import TrainConfig, train
from simservice.types import Episode, Provenance, WorldSpec, leaves_of
from simservice.worlds import checkpoint, registry

SHARE = 0.15
"""C1 to C3 must stay below random play's return plus this share of the way to the best."""


TRAINED = "C2"
"""The one whose world has to be trained."""

Build = Callable[[Recipe, Dataset, TrainConfig, Path, int], Path]
"""Writes a control's world to a folder, which it returns; the settings are those of the recipe's own training. The last
is the number of the world among the control's own."""


@dataclass(frozen=True, kw_only=True)
class Control:
    """One control."""

    name: str  # C1 ...
    words: str
    judged: str  # "near random", "target" or "reported"
    build: Build
    sealed: bool = True  # from reality; the truth alone cannot be
    drawn: bool = False  # worlds differ by chance, so each agent gets one of its own


def names(recipe: Recipe) -> list[str]:
    """Which controls a recipe has."""
    environment = make_environment(recipe.env_id, recipe.env_kwargs)
    try:
        leaves = leaves_of(environment.observation_space, "observation")
    finally:
        close(environment)
    pictures = any(is_picture(np.empty(leaf.shape, leaf.dtype), 0) for leaf in leaves)
    return [control.name for control in _ALL if not (pictures and control.name == "C4")]


def find(name: str) -> Control:
    """The control of this name."""
    return next(control for control in _ALL if control.name == name)


def ceiling(recipe: Recipe, chance: float) -> float:
    """The most that C1 to C3 may reach, from random play's return."""
    return chance + SHARE * (recipe.best_return - chance)


def shuffled(episodes: Sequence[Episode], deal: int = 0) -> tuple[Episode, ...]:
    """The episodes with all actions dealt out anew: what follows has nothing to do with them. `deal` seeds it."""
    chance = np.random.default_rng(deal)
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


def _untrained(recipe: Recipe, dataset: Dataset, config: TrainConfig, out: Path, number: int) -> Path:
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


def _shuffled(recipe: Recipe, dataset: Dataset, config: TrainConfig, out: Path, number: int) -> Path:
    episodes = shuffled(dataset.episodes, number)
    train(replace(dataset, episodes=episodes, hash=fingerprint(episodes)), recipe.family, out, config=config)
    return out


def _persistence(recipe: Recipe, dataset: Dataset, config: TrainConfig, out: Path, number: int) -> Path:
    train(dataset, "persistence", out)
    return out


def _linear(recipe: Recipe, dataset: Dataset, config: TrainConfig, out: Path, number: int) -> Path:
    train(dataset, "linear", out)
    return out


def _truth(recipe: Recipe, dataset: Dataset, config: TrainConfig, out: Path, number: int) -> Path:
    limit = dataset.max_episode_steps or max(len(episode) for episode in dataset.episodes)
    train(dataset, "oracle", out, config=TrainConfig(overrides={"history_limit": limit}))
    return out


_ALL = (
    Control(name="C1", words="untrained", judged="near random", build=_untrained),
    Control(name=TRAINED, words="shuffled actions", judged="near random", build=_shuffled, drawn=True),
    Control(name="C3", words="persistence", judged="near random", build=_persistence),
    Control(name="C4", words="ridge regression", judged="reported", build=_linear),
    Control(name="C5", words="the truth", judged="target", build=_truth, sealed=False),
)
