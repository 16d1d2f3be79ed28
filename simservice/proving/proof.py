"""A proof as a value: how it is made, what each seed and each control showed, and the checks that follow."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simservice.errors import ConfigError
from simservice.proving.recipe import Check, Figures, Recipe


@dataclass(frozen=True, kw_only=True)
class ProofConfig:
    """How recipes are proven."""

    seeds: tuple[int, ...] = (0, 1, 2)
    out: Path = Path("runs/prove")
    with_controls: bool = True
    with_rows: bool = True  # also hold the first seed's world against what every family must pass
    control_agents: int = 3  # in each control; their median counts, for one agent may be lucky
    score_episodes: int = 100
    processes: int = field(default_factory=lambda: os.cpu_count() or 1)  # parts that are made side by side
    again: bool = False  # make every part anew, whatever earlier proofs left
    device: str = "cpu"  # on which worlds are trained; all else is done on the processor

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) != len(self.seeds) or min(self.seeds) < 0:
            raise ConfigError("seeds must be one or more different numbers of 0 or more", key="seeds")
        if self.control_agents < 1 or self.score_episodes < 1 or self.processes < 1:
            raise ConfigError("control_agents, score_episodes and processes must be 1 or more")


@dataclass(frozen=True, kw_only=True)
class SeedResult:
    """One world, its agent and its figures."""

    seed: int
    dataset_hash: str
    real_steps: int  # every one the world cost
    real_resets: int
    version: str
    folder: Path
    through_client: bool
    figures: Figures


@dataclass(frozen=True, kw_only=True)
class ControlResult:
    """What agents trained in a control get in reality."""

    name: str
    words: str
    judged: str  # "near random": at most `most`; "target": the recipe's oracle_return; else reported
    most: float
    world_return: float
    real_return: float
    real_returns: Sequence[float]  # of each agent; above is their median

    def check(self, recipe: Recipe) -> Check:
        """Its line of the table."""
        bar, met = "reported", True
        if self.judged == "near random":
            bar, met = f"<= {self.most:.3g}", self.real_return <= self.most
        elif self.judged == "target":
            bar, met = f">= {recipe.oracle_return:g}", self.real_return >= recipe.oracle_return
        what = f"real_return, {self.words}"
        if len(self.real_returns) > 1:
            what += f" (median of {', '.join(f'{value:.4g}' for value in self.real_returns)})"
        return Check(row=self.name, what=what, bar=bar, seen=self.real_return, met=met)


@dataclass(frozen=True, kw_only=True)
class Proof:
    """All that a recipe showed."""

    recipe: Recipe
    seeds: Sequence[SeedResult]
    controls: Sequence[ControlResult]
    rows: Sequence[Check]  # that every family must pass, of the first seed's world
    failures: Sequence[str]  # parts that did not come to their end, and why
    chance: float  # random play's return
    judging_steps: int  # real steps of scores and fresh test data, from which nothing was learned
    seconds: float  # of all parts together, whenever they were made

    @property
    def checks(self) -> list[Check]:
        """One line a bar, a control, a row and a failure."""
        # A seed that failed has no figures, so a bar over all seeds is not reached.
        found = [result.figures for result in self.seeds] + [{} for _ in self.failures]
        recipe = self.recipe
        bars = [
            Check(row=recipe.row, what=f"{bar.figure} ({bar.across})", bar=bar.words, seen=bar.seen(found),
                  met=bar.met(found))
            for bar in recipe.bars
        ]  # fmt: skip
        ended = [
            Check(row=recipe.row, what=f"came to its end: {words}", bar="yes", seen=None, met=False)
            for words in self.failures
        ]
        return [*ended, *bars, *(control.check(recipe) for control in self.controls), *self.rows]

    @property
    def met(self) -> bool:
        """Whether every bar is reached and every control behaves."""
        return all(check.met for check in self.checks)


def as_json(proof: Proof) -> dict[str, Any]:
    """The proof as JSON values."""
    recipe = proof.recipe
    return {
        "name": recipe.name,
        "row": recipe.row,
        "met": proof.met,
        "family": recipe.family,
        "env_id": recipe.env_id,
        "real_steps": recipe.real_steps,
        "random_return": proof.chance,
        "judging_steps": proof.judging_steps,
        "seconds": round(proof.seconds, 1),
        "failures": list(proof.failures),
        "checks": [vars(check) for check in proof.checks],
        "seeds": [{**vars(result), "folder": result.folder.name} for result in proof.seeds],
        "controls": [vars(control) for control in proof.controls],
    }
