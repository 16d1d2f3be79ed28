"""What a proof is made of: which reality, how much of it, which world, which agent, and the bars it must reach."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from simservice.data.collect import RealStepCounter
from simservice.data.episodes import Dataset
from simservice.errors import ConfigError
from simservice.proving.agent import AgentConfig
from simservice.proving.record import Behaviour, record
from simservice.training.loader import split
from simservice.training.trainer import TrainConfig
from simservice.types import Episode
from simservice.worlds.world import World

Figures = dict[str, float]

Across = Literal["median", "min", "max"]
"""How the figures of several seeds become one."""

TEST_SEED = 500_000
"""Fresh episodes that only judge are recorded from here on; none of them is learned from."""


@dataclass(frozen=True, kw_only=True)
class Bar:
    """What a figure must reach: at least, or at most."""

    figure: str
    least: float | None = None
    most: float | None = None
    across: Across = "median"

    def __post_init__(self) -> None:
        if (self.least is None) == (self.most is None):
            raise ConfigError(f"the bar of {self.figure} needs one of least and most", key="bars")

    def seen(self, figures: Sequence[Figures]) -> float | None:
        """The figure over all seeds; None where a seed has none."""
        values = np.array([found.get(self.figure, np.nan) for found in figures])
        if not len(values) or np.isnan(values).any():
            return None
        if self.across == "median":
            return float(np.median(values))
        return float(values.min() if self.across == "min" else values.max())

    def met(self, figures: Sequence[Figures]) -> bool:
        """Whether the bar is reached; a figure that is not there reaches none."""
        value = self.seen(figures)
        if value is None:
            return False
        return bool(value >= self.least if self.least is not None else value <= (self.most or 0.0))

    @property
    def words(self) -> str:
        """>= 475."""
        return f">= {self.least:g}" if self.least is not None else f"<= {self.most:g}"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One line of the table: id, what, bar, what was seen (None: there was nothing to see)."""

    row: str
    what: str
    bar: str
    seen: float | None
    met: bool


@dataclass(frozen=True)
class Trial:
    """One world of a recipe, for measuring: with its data, and fresh reality that only judges."""

    recipe: Recipe
    seed: int
    world: World
    dataset: Dataset
    folder: Path
    device: str = "cpu"  # on which worlds are trained that it takes beside this one

    @cached_property
    def training(self) -> list[Episode]:
        """The episodes that the world learned from."""
        return split(self.dataset.episodes)[0]

    @cached_property
    def held_out(self) -> list[Episode]:
        """The episodes of the dataset that it did not."""
        return split(self.dataset.episodes)[1]

    def fresh(self, steps: int, behaviour: Behaviour | None = None, **env_kwargs: Any) -> list[Episode]:
        """New real episodes, of the recipe's behaviour or another; they are counted apart, and judge only."""
        recipe = self.recipe
        arguments = {**recipe.env_kwargs, **env_kwargs}
        counter = RealStepCounter()
        return record(recipe.env_id, steps, TEST_SEED + self.seed, behaviour or recipe.behaviour, counter, arguments)


Measure = Callable[[Trial], Figures]
"""Figures of a trained world beside the agent's return; names are shared with the recipe's bars."""


def nothing(trial: Trial) -> Figures:
    """No figures."""
    return {}


def as_it_is(world: World) -> None:
    """An untrained world keeps what prepare() gave it: scales, bounds and starts."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A world to prove. Frozen: what is proven is what is written here."""

    name: str
    row: str  # of the acceptance table
    title: str
    env_id: str
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    behaviour: Behaviour = "random"
    real_steps: int  # the budget Z; a step beyond it is refused
    family: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
    patience: int = 6  # evaluations without progress before a phase ends
    agent: AgentConfig | None = None  # None: the row asks for figures of the world alone
    oracle_return: float = -np.inf  # what the same agent must reach in the true environment, or the proof is void
    best_return: float = 0.0  # the most there is: controls stay below random + 15 % of the way to it
    measure: Measure = nothing
    thresholded: bool = False  # also train an agent where ends are decided, not drawn: does the alarm notice?
    untrain: Callable[[World], None] = as_it_is
    bars: tuple[Bar, ...] = ()

    def __post_init__(self) -> None:
        if self.real_steps < 2:
            raise ConfigError("a recipe needs two real steps or more", key="real_steps")

    def training(self, seed: int, device: str, *, resume: bool = False) -> TrainConfig:
        """How its world is trained."""
        return TrainConfig(seed=seed, overrides=self.overrides, patience=self.patience, device=device, resume=resume)
