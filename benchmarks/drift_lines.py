"""A claim about drift detection, how it is shown, and how much is tried to hold it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

C = 1e6  # at which delays are measured
C_FALSE = 5e4  # at which false alarms are counted: 50 probes, at most 1 in 1000 streams
KINDS = 3


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is tried."""

    null_streams: int = 3000
    null_probes: int = 50
    planted_streams: int = 100
    causes: int = 40  # of each row
    recoveries: int = 40
    recovery_probes: int = 1000
    reference: int = 1080  # probes that a monitor model is fitted to: fewer than 20,000 steps
    calibration: int = 2000  # probes of each policy
    served_calibration: int = 2000  # users' episodes


SHORT = Size(
    null_streams=60,
    planted_streams=12,
    causes=3,
    recoveries=2,
    recovery_probes=40,
    calibration=400,
    served_calibration=400,
)


@dataclass(frozen=True)
class Line:
    """One claim."""

    name: str
    bar: str
    seen: str
    holds: bool
    beside: dict[str, str] = field(default_factory=dict)  # what other detectors do with the same probes, by name

    def row(self, others: Sequence[str]) -> str:
        """As the table shows it."""
        beside = "".join(f"{self.beside.get(name, '-'):<13}" for name in others)
        return f"{self.name:<78} {self.bar:<44} {self.seen:<46} {beside}{'' if self.holds else 'FALLS SHORT'}"
