"""One number of a front page against its bar, and how people read it. Knows no metric."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from simservice.fidelity.metric import Score
from simservice.fidelity.noise import NoiseFloor

Mark = Literal["good", "close", "bad", "unknown"]
Kind = Literal["number", "steps", "share", "log10"]

NO_FLOOR = NoiseFloor(math.nan, math.nan, math.nan, 0)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One number with all that is needed to read it."""

    name: str  # in words
    metric: str  # as registered
    score: Score
    bar: float
    at_most: bool = True
    kind: Kind = "number"
    size: bool = False  # the number counts without its sign
    bound: bool = False  # the number is a bound itself, and decides without its interval
    decides: bool = True  # beyond its bar a world is untrustworthy; else it asks for care
    silent: bool = False  # another reading tells the same in its sentence
    floor: NoiseFloor = NO_FLOOR
    level: str = ""
    unit: str = ""
    convention: str = ""
    sentence: str = ""  # of what is wrong, where something is
    why_unknown: str = ""

    @property
    def mark(self) -> Mark:
        """Against the bar."""
        value, low, high = self.score.value, self.score.lower, self.score.upper
        if math.isnan(value):
            return "unknown"
        if self.size and value < 0:
            value, low, high = -value, -high, -low
        if value <= self.bar if self.at_most else value >= self.bar:
            return "good"
        nearest = low if self.at_most else high
        spans = not self.bound and (nearest <= self.bar if self.at_most else nearest >= self.bar)
        return "close" if spans else "bad"


def shown(value: float, kind: Kind = "number") -> str:
    """A number as people read it; unknown where there is none."""
    if math.isnan(value):
        return "unknown"
    if kind == "steps":
        return f"{value:.0f}" if math.isfinite(value) else "all"
    if kind == "share":
        return f"{100 * value:.1f} %"
    if kind == "log10":
        return f"{value:.1f}"
    return _number(value)


def _number(value: float) -> str:
    if abs(value) < 1e-9 or 1e-3 <= abs(value) < 1e4:
        return f"{value:.3f}"
    return f"{value:.1e}"


def interval_shown(score: Score, kind: Kind = "number") -> str:
    """Its 95 % interval; empty where there is none to tell."""
    if math.isnan(score.lower) or score.lower == score.upper:
        return ""
    return f"{shown(score.lower, kind)} to {shown(score.upper, kind)}"
