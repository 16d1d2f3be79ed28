"""What each tenant may use of something, so much a second: a bucket that fills steadily, and may owe."""

from __future__ import annotations

import time
from collections.abc import Callable


class Budget:
    """Of any number of tenants, each with a bucket of its own, full at first. One may take more than there is."""

    def __init__(self, per_s: float, burst: float, most_owed: float, now: Callable[[], float] = time.monotonic) -> None:
        self._per_s, self._burst, self._most_owed = per_s, burst, most_owed
        self._now = now
        self._levels: dict[str, tuple[float, float]] = {}  # level, and when it was that

    def owed_s(self, tenant: str) -> float:
        """Seconds until the tenant owes nothing; 0.0 if that is now."""
        return max(0.0, -self._level(tenant) / self._per_s)

    def take(self, tenant: str, amount: float) -> None:
        """Takes it whether or not it is there; what is owed never grows beyond the most."""
        self._levels[tenant] = max(self._level(tenant) - amount, -self._most_owed), self._now()

    def _level(self, tenant: str) -> float:
        now = self._now()
        level, then = self._levels.get(tenant, (self._burst, now))
        return min(self._burst, level + (now - then) * self._per_s)
