"""What a row looks at: one trained world and the reality it was learned from. Fresh real steps only judge."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from simservice.data.collect import RealStepCounter
from simservice.errors import InvalidInput
from simservice.fidelity.pixels import seen
from simservice.proving.lanes import WorldLanes
from simservice.proving.recipe import TEST_SEED, Check
from simservice.proving.record import Behaviour, record
from simservice.types import Array, Episode, Leaves
from simservice.worlds.checkpoint import load
from simservice.worlds.world import World

RIGHT = 1e-4  # of the spread: what is no further off is as it should be, but for rounding


@dataclass(frozen=True)
class Subject:
    """A world folder opened, and how to play its reality."""

    folder: Path
    world: World
    env_id: str
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    behaviour: Behaviour = "random"
    counter: RealStepCounter = field(default_factory=RealStepCounter)

    @classmethod
    def open(cls, folder: Path, behaviour: Behaviour = "random", counter: RealStepCounter | None = None) -> Subject:
        """The world and the environment that its provenance names."""
        loaded = load(folder)
        if loaded.provenance.env_id is None:
            raise InvalidInput("world", f"{folder} does not say which environment it was learned from")
        origin = loaded.provenance
        return cls(
            folder, loaded.world, loaded.provenance.env_id, origin.env_kwargs, behaviour, counter or RealStepCounter()
        )

    def fresh(self, steps: int, behaviour: Behaviour | None = None, **env_kwargs: Any) -> list[Episode]:
        """New real episodes."""
        arguments = {**self.env_kwargs, **env_kwargs}
        return record(self.env_id, steps, TEST_SEED + 77, behaviour or self.behaviour, self.counter, arguments)

    def lanes(self, count: int, *, limitless: bool = False) -> WorldLanes:
        """Lanes of the world; limitless: no time limit, only ends of the world's own."""
        world = load(self.folder).world if limitless else self.world
        if limitless:
            world.spec = replace(world.spec, max_episode_steps=None)
        return WorldLanes(world, count)


Row = Callable[[Subject], list[Check]]


def check(row: str, what: str, value: float, *, least: float | None = None, most: float | None = None) -> Check:
    """A line; without a bar it is reported. NaN reaches no bar."""
    seen = None if np.isnan(value) else float(value)
    if least is not None:
        return Check(row=row, what=what, bar=f">= {least:g}", seen=seen, met=bool(value >= least))
    if most is not None:
        return Check(row=row, what=what, bar=f"<= {most:g}", seen=seen, met=bool(value <= most))
    return Check(row=row, what=what, bar="reported", seen=seen, met=True)


def remark(row: str, words: str) -> Check:
    """A line of a row that has nothing to see or to judge here, and why."""
    return Check(row=row, what=words, bar="reported", seen=None, met=True)


def auroc(score: Array, positive: Array) -> float:
    """Area under the curve of a score for a class; NaN where one side is missing."""
    ahead, behind = score[positive], score[~positive]
    if not len(ahead) or not len(behind):
        return float("nan")
    wins = stats.mannwhitneyu(ahead, behind).statistic
    return float(wins / (len(ahead) * len(behind)))


def told_apart(left: Array, right: Array, neighbours: int = 15) -> float:
    """Area under the curve of a nearest-neighbour classifier between two samples (n, D), on the half it was not given.

    One half: nobody can tell them apart.
    """
    spread = right.std(axis=0)
    rows = np.concatenate([left, right]) / np.where(spread > 1e-9, spread, 1.0)
    labels = np.repeat([0, 1], [len(left), len(right)])
    order = np.random.default_rng(2).permutation(len(rows))
    rows, labels, half = rows[order], labels[order], len(rows) // 2
    near = np.argsort(distances(rows[half:], rows[:half]), axis=1, kind="stable")[:, :neighbours]
    return auroc(labels[:half][near].mean(axis=1), labels[half:] == 1)


def distances(rows: Array, others: Array) -> Array:
    """(n, m) Euclidean distances, block by block; without products, whose rounding makes neighbours equal."""
    found = np.empty((len(rows), len(others)))
    size = max(1, 2**24 // max(1, others.size))
    for first in range(0, len(rows), size):
        block = rows[first : first + size, None, :] - others[None]
        found[first : first + size] = np.sqrt((block**2).sum(-1))
    return found


def features(leaves: Leaves) -> Array:
    """Rows of observations (n, ...) as numbers (n, D), pictures pooled."""
    return seen(leaves, 1)
