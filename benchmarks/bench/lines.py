"""What a row of the table says: what was promised, what was seen, and whether it holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from bench.timing import Figure, Series, Spread


@dataclass(frozen=True)
class Pace:
    """How long each contestant plays, and whether what is seen is judged."""

    rounds: int
    seconds: float
    judged: bool = True


@dataclass(frozen=True)
class Line:
    """One promise."""

    row: str
    words: str
    bar: str
    stretch: str
    seen: str
    verdict: Literal["stretch", "holds", "MISSED", "not judged", "not to be had"]
    figures: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """For summary.json."""
        return asdict(self)


def at_most(row: str, words: str, ratio: Spread, bar: float, stretch: float | None, pace: Pace) -> Line:
    """A promise of a ratio that must not be larger."""
    return _line(row, words, ratio, "≤", bar, stretch, pace)


def at_least(row: str, words: str, ratio: Spread, bar: float, stretch: float | None, pace: Pace) -> Line:
    """A promise of a ratio that must not be smaller."""
    return _line(row, words, ratio, "≥", bar, stretch, pace)


def told(row: str, words: str, ratio: Spread) -> Line:
    """No promise, but what a promise is to be read beside."""
    return Line(row, words, "", "", _spread(ratio), "not judged", {"ratio": asdict(ratio)})


def untested(row: str, words: str, bar: str, why: str) -> Line:
    """A promise whose peer is not there."""
    return Line(row, words, bar, "", why, "not to be had")


def _line(row: str, words: str, ratio: Spread, sign: str, bar: float, stretch: float | None, pace: Pace) -> Line:
    def reached(wanted: float) -> bool:
        return ratio.median <= wanted if sign == "≤" else ratio.median >= wanted

    verdict: Literal["stretch", "holds", "MISSED", "not judged"] = "MISSED"
    if not pace.judged:
        verdict = "not judged"
    elif reached(bar):
        verdict = "stretch" if stretch is not None and reached(stretch) else "holds"
    return Line(
        row,
        words,
        f"{sign} {bar:g} ×",
        "" if stretch is None else f"{sign} {stretch:g} ×",
        _spread(ratio),
        verdict,
        {"ratio": asdict(ratio), "bar": bar, "stretch": stretch},
    )


def _spread(ratio: Spread) -> str:
    return f"{_short(ratio.median)} × ({_short(ratio.low)} to {_short(ratio.high)})"


def _short(number: float) -> str:
    return f"{number:.2f}" if number < 10 else f"{number:,.0f}"


@dataclass(frozen=True)
class Table:
    """What everybody did in one row, for whoever wants to see more than a ratio."""

    row: str
    title: str
    figures: Mapping[str, Mapping[Figure, Spread]]
    missing: Mapping[str, str] = field(default_factory=dict)  # peers that are not there, and why

    def as_json(self) -> dict[str, Any]:
        """For summary.json."""
        return asdict(self)


def table(row: str, title: str, series: Series, missing: Mapping[str, str] | None = None) -> Table:
    """Of all contestants of a series."""
    figures: Sequence[Figure] = ("p50", "p99", "rate")
    shown = {name: {figure: series.figure(name, figure) for figure in figures} for name in series.rounds}
    return Table(row, title, shown, missing or {})


@dataclass(frozen=True)
class Found:
    """All that one row gave."""

    lines: Sequence[Line]
    tables: Sequence[Table]
