"""The engine's counters, as plain numbers. Knows nobody who publishes them."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

TICK_SECONDS: tuple[float, ...] = (0.001, 0.01)  # as few as the published names.TICK_BUCKETS_S
TICK_LANES: tuple[int, ...] = (16, 256)


@dataclass
class Histogram:
    """How many values fell at or below each upper bound (not cumulative; the last count is of larger ones)."""

    bounds: tuple[float, ...]
    counts: list[int] = field(default_factory=list)
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.bounds) + 1)

    def add(self, value: float) -> None:
        """Counts one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def copy(self) -> Histogram:
        """The histogram as it is now."""
        return Histogram(self.bounds, list(self.counts), self.total)


@dataclass
class EngineStats:
    """Counted since the engine was made, but for the last three fields, which tell the moment."""

    ticks: int = 0
    lane_steps: int = 0  # steps that worlds took for lanes; autoresets are not steps
    episodes_begun: int = 0
    episodes_terminated: int = 0
    episodes_truncated: int = 0
    beyond_support: int = 0  # of the lane steps: less sure than nearly all real steps that the world was held against
    world_errors: int = 0  # steps or starts whose result was not finite
    dropped: int = 0  # requests whose sender had gone, or waited no longer, before they began
    failures: int = 0  # requests that ended in InternalError
    padded_rows: int = 0  # rows computed for nobody
    batches: dict[int, int] = field(default_factory=dict)  # calls of the world by padded batch size
    tick_seconds: Histogram = field(default_factory=lambda: Histogram(TICK_SECONDS))
    tick_lanes: Histogram = field(default_factory=lambda: Histogram(TICK_LANES))  # lanes that one tick stepped
    lanes_in_use: int = 0
    capacity: int = 0
    waiting: int = 0  # requests handed in and not answered
