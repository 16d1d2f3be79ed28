"""When the next real probe is due: by a clock, faster on suspicion, never beyond a budget of real steps. Only numbers.

The budget is a bucket: it fills at so many steps an hour, holds what an hour brings, and a probe waits until it is
covered. So a budget slows the probes down and stops nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

SPEED_UP = 8  # on suspicion
BURST = 64  # probes at that speed after a new version of the world


@dataclass(frozen=True, kw_only=True)
class PaceConfig:
    """How often reality is asked."""

    every_s: float = 60.0
    steps_per_hour: float | None = None  # None: no budget


@dataclass
class Pace:
    """One world's bucket; its two numbers are kept over restarts."""

    config: PaceConfig
    level: float | None = None  # steps in the bucket; None: full
    at: float = 0.0  # when that was so
    burst: int = 0  # probes left of a burst

    def left(self, now: float) -> float | None:
        """Steps that may be spent now; None without a budget. Time that goes backwards brings nothing."""
        hourly = self.config.steps_per_hour
        if hourly is None:
            return None
        if self.level is None:
            return hourly
        return min(hourly, self.level + max(0.0, now - self.at) * hourly / 3600.0)

    def spend(self, steps: int, now: float) -> None:
        """Takes steps out; may leave a debt, for an episode's length is not known beforehand."""
        left = self.left(now)
        if left is not None:
            self.level, self.at = left - steps, now

    def wait_s(self, steps: int, now: float) -> float:
        """Seconds until the bucket covers so many steps."""
        left, hourly = self.left(now), self.config.steps_per_hour
        if left is None or hourly is None:
            return 0.0
        return max(0.0, (min(float(steps), hourly) - left) * 3600.0 / hourly)

    def interval_s(self, steps: int, suspicious: bool) -> float:
        """Seconds from one probe of so many steps to the next, in the long run."""
        every = self.config.every_s / (SPEED_UP if suspicious or self.burst else 1)
        hourly = self.config.steps_per_hour
        return every if hourly is None else max(every, steps * 3600.0 / hourly)

    def next_in_s(self, steps: int, suspicious: bool, since_s: float, now: float) -> float:
        """Seconds until the next probe is due, `since_s` after the last one began."""
        every = self.config.every_s / (SPEED_UP if suspicious or self.burst else 1)
        return max(every - since_s, self.wait_s(steps, now))


def probes_share(pace: PaceConfig, fidelity_every_s: float | None) -> PaceConfig:
    """Of a budget the probes get half, and the front page the other, where it is measured."""
    hourly = pace.steps_per_hour
    return pace if hourly is None or fidelity_every_s is None else replace(pace, steps_per_hour=hourly / 2)


def measure_every_s(pace: PaceConfig, fidelity_every_s: float | None, last_cost: int) -> float | None:
    """How often the front page is measured: as asked for, and as its half of the budget allows after what it cost."""
    hourly = pace.steps_per_hour
    if fidelity_every_s is None or hourly is None:
        return fidelity_every_s
    return max(fidelity_every_s, 3600.0 * last_cost / (hourly / 2))
