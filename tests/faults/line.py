"""An acceptance line: what is tried, and what was seen against which bar. Knows no service."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Seen:
    """One bar and what was held against it."""

    what: str
    bar: str
    seen: str
    held: bool
    value: float | None = None

    def __post_init__(self) -> None:  # figures may come from numpy, which JSON does not know
        object.__setattr__(self, "held", bool(self.held))
        object.__setattr__(self, "value", None if self.value is None else float(self.value))


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a run is made."""

    seed: int = 0
    short: bool = False  # fewer of everything: for trying the lines out; bars stay
    soak_minutes: float = 3.0


Told = Callable[[str, float], None]
"""Takes what goes on and the share of the line that is done."""
Work = Callable[[Any, Options, Told], Iterator[Seen]]


@dataclass(frozen=True)
class Line:
    """One thing the service promises, by the name that picks it."""

    name: str
    title: str
    work: Work


def at_most(what: str, value: float, bar: float, unit: str = "") -> Seen:
    """A figure that must not be larger."""
    return Seen(what, f"<= {figure(bar)}{unit}", f"{figure(value)}{unit}", value <= bar, value)


def at_least(what: str, value: float, bar: float, unit: str = "") -> Seen:
    """A figure that must not be smaller."""
    return Seen(what, f">= {figure(bar)}{unit}", f"{figure(value)}{unit}", value >= bar, value)


def exactly(what: str, value: float, bar: float, details: str = "") -> Seen:
    """A count that must be met."""
    return Seen(what, figure(bar), figure(value) + (f" ({details})" if details else ""), value == bar, value)


def figure(value: float) -> str:
    """Three digits that count, whole numbers whole."""
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:.3g}"
