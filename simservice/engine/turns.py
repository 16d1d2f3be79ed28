"""Whose turn it is to call the world: ticks and rollouts take turns, so that neither waits for more than one call.

While no rollout is under way a tick pays one look at a number. Knows no lanes.
"""

from __future__ import annotations

import threading
from typing import Literal

Side = Literal["tick", "rollout"]


class Turns:
    """One turn at a time; when both sides wait, they alternate."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # taken by itself, it costs a third of what the condition's own `with` does
        self._changed = threading.Condition(self._lock)
        self._busy = False
        self._last: Side = "rollout"
        self._waiting: dict[Side, int] = {"tick": 0, "rollout": 0}

    def begin(self, side: Side) -> None:
        """Returns when it is this side's turn."""
        other: Side = "rollout" if side == "tick" else "tick"
        with self._lock:
            if self._busy or (self._last == side and self._waiting[other]):
                self._waiting[side] += 1
                while self._busy or (self._last == side and self._waiting[other]):
                    self._changed.wait()
                self._waiting[side] -= 1
            self._busy, self._last = True, side

    def give_way(self) -> None:
        """Between two calls of one rollout: others that wait go first."""
        self.end()
        self.begin("rollout")

    def end(self) -> None:
        """The turn is over."""
        with self._lock:
            self._busy = False
            if self._waiting["tick"] or self._waiting["rollout"]:
                self._changed.notify_all()
