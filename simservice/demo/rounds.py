"""The rules of the demo's rounds: what a round spends in reality, when to stop, whose policy is kept. Only numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Everything that is decided from counted real steps, and from nothing else."""

    budget: int = 3_000  # real steps of all rounds together: training, held-out, checks
    first_steps: int = 1_000  # recorded before the first world is trained
    round_steps: int = 500  # recorded with each round's policy, at least: they check it, and train the next world
    min_rounds: int = 2  # a second world has seen a trained policy's states, which makes it far more reliable
    max_rounds: int = 6
    solved_at: float = 475.0
    solved_episodes: int = 2  # finished in a row by one policy, all with a return of solved_at or more


@dataclass(frozen=True, kw_only=True)
class Check:
    """What the real steps after one round's training showed."""

    finished: tuple[float, ...] = ()  # returns of the episodes that came to their end
    steps: int = 0

    def solved(self, rules: Rules) -> bool:
        """Enough episodes, and all of them good."""
        return len(self.finished) >= rules.solved_episodes and min(self.finished) >= rules.solved_at

    def promising(self, rules: Rules) -> bool:
        """No episode has failed yet: another one may settle it."""
        return all(value >= rules.solved_at for value in self.finished)

    @property
    def mean(self) -> float:
        """Of the finished episodes; -inf without one."""
        return sum(self.finished) / len(self.finished) if self.finished else float("-inf")


def wants_more(check: Check, number: int, left: int, rules: Rules) -> bool:
    """Whether the check of round `number` (from 1) plays another episode, with `left` real steps in the budget.

    Short episodes go on until round_steps are spent. Beyond that only a policy that has not failed plays on, and
    only where its success would end the rounds.
    """
    if left < 1 or check.solved(rules):
        return False
    if check.steps < rules.round_steps:
        return True
    return check.promising(rules) and number >= rules.min_rounds


def episode_limit(check: Check, left: int, rules: Rules) -> int:
    """The most steps the check's next episode may take, with `left` real steps in the budget.

    A policy that has failed already is cut where the round's share ends: its data is wanted, its score is known.
    """
    return left if check.promising(rules) else min(left, rules.round_steps - check.steps)


def next_move(checks: Sequence[Check], rules: Rules) -> Literal["stop", "go on"]:
    """After the last of `checks`: another round, or the end.

    The rounds end when a policy has solved it (not before min_rounds), when nothing new was learned because the
    budget was spent before the last round's training, or after max_rounds.
    """
    last = checks[-1]
    if last.solved(rules) and len(checks) >= rules.min_rounds:
        return "stop"
    if last.steps == 0 or len(checks) >= rules.max_rounds:
        return "stop"
    return "go on"


def kept(checks: Sequence[Check], rules: Rules) -> int:
    """Which round's policy is kept: the last that solved it, else the last.

    Later worlds know more, so a later policy that could not be checked is preferred to an earlier one that failed.
    """
    solving = [index for index, check in enumerate(checks) if check.solved(rules)]
    return solving[-1] if solving else len(checks) - 1
