"""The registry of metrics: one function from real and imagined traces to a score, by name.

Every metric says on which rung of the evidence ladder it stands (L0 to L3 describe artefacts, L4 tests interventions,
L5 to L7 decisions), what its independent unit of evidence is, and by which convention it is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from simservice.fidelity.traces import Traces

Evidence = Literal["windows", "steps", "returns"]
"""Open-loop windows of many steps; single steps, those before real ends among them; whole closed-loop episodes."""

Level = Literal["L0", "L1", "L2", "L3", "L4", "L5", "L6", "L7"]


@dataclass(frozen=True)
class Score:
    """A metric's number with its 95 % interval; NaN means unknown, and is never to be shown as good."""

    value: float
    lower: float
    upper: float
    units: int  # independent units of evidence behind it


UNKNOWN = Score(float("nan"), float("nan"), float("nan"), 0)

Measure = Callable[[Traces, Traces], Score]


Floor = Literal["halves", "climatology"]
"""What no world can be better than. Two halves of reality, compared as if one were imagined; or, where real windows
would have to be played twice from one start, the spread of reality, by which such a metric is divided."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A registered metric and what must be known to read its number."""

    name: str
    level: Level
    evidence: Evidence  # which traces it wants to see
    unit: str  # of evidence: what was resampled for the interval
    perfect: float  # of a world that is reality (the full horizon where infinite; NaN where noise decides)
    floor: Floor
    convention: str
    measure: Measure


_METRICS: dict[str, Metric] = {}


def metric(
    name: str,
    *,
    level: Level,
    evidence: Evidence,
    unit: str,
    perfect: float,
    convention: str,
    floor: Floor = "climatology",
) -> Callable[[Measure], Measure]:
    """Registers the decorated function under `name`."""

    def register(measure: Measure) -> Measure:
        assert name not in _METRICS, f"two metrics are called {name}"
        _METRICS[name] = Metric(
            name=name,
            level=level,
            evidence=evidence,
            unit=unit,
            perfect=perfect,
            floor=floor,
            convention=convention,
            measure=measure,
        )
        return measure

    return register


def metrics() -> Mapping[str, Metric]:
    """All registered metrics by name."""
    return dict(_METRICS)
