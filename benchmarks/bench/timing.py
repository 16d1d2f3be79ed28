"""Short rounds that go round all contestants, so that what else the machine does meets all of them alike.

What is told is the median over rounds and its range; ratios are of figures of the same round.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

Figure = Literal["p50", "p99", "rate"]
FEWEST_STEPS = 3  # of a round, however slow a contestant is


@dataclass(frozen=True)
class Round:
    """What one contestant did in one round."""

    p50: float  # seconds a step
    p99: float  # seconds a step
    rate: float  # lane steps a second
    steps: int


@dataclass(frozen=True)
class Spread:
    """The median of some rounds and how far they went."""

    median: float
    low: float
    high: float


class Contestant(Protocol):
    """Somebody who steps lanes."""

    def play(self, seconds: float) -> Round:
        """Steps for about so long."""


def spread(values: Sequence[float]) -> Spread:
    """Median and range."""
    return Spread(float(np.median(values)), float(min(values)), float(max(values)))


def timed(step: Callable[[], object], lanes: int, seconds: float, after: Callable[[], object] | None = None) -> Round:
    """Calls `step` for so long; `after` is what a loop does between two steps without being counted."""
    times: list[float] = []
    until = time.perf_counter() + seconds
    while True:
        began = time.perf_counter()
        step()
        ended = time.perf_counter()
        times.append(ended - began)
        if ended >= until and len(times) >= FEWEST_STEPS:
            return of_times(times, lanes)
        if after is not None:
            after()


def of_times(times: Sequence[float], lanes: int) -> Round:
    """A round of steps that took these seconds."""
    p50, p99 = np.percentile(times, [50, 99])
    return Round(float(p50), float(p99), lanes * len(times) / float(sum(times)), len(times))


@dataclass(frozen=True)
class Series:
    """All rounds of all contestants, by name."""

    rounds: Mapping[str, Sequence[Round]]

    def figure(self, name: str, figure: Figure) -> Spread:
        """Of one contestant."""
        return spread([getattr(played, figure) for played in self.rounds[name]])

    def ratio(self, name: str, other: str, figure: Figure) -> Spread:
        """One contestant's figure over another's of the same round."""
        pairs = zip(self.rounds[name], self.rounds[other], strict=True)
        return spread([getattr(one, figure) / getattr(two, figure) for one, two in pairs])


def compete(contestants: Mapping[str, Contestant], rounds: int, seconds: float) -> Series:
    """So many rounds after one to warm up; every second one goes round backwards."""
    found: dict[str, list[Round]] = {name: [] for name in contestants}
    for contestant in contestants.values():
        contestant.play(seconds / 2)
    for number in range(rounds):
        for name in list(contestants)[:: -1 if number % 2 else 1]:
            found[name].append(contestants[name].play(seconds))
    return Series(found)
