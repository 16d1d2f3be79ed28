"""The host's columns beside the rows: each lane's luck, age and phase. Knows no tensors."""

from __future__ import annotations

import numpy as np
from gymnasium.vector import AutoresetMode

from simservice.engine.batching import Span, all_true, any_true
from simservice.engine.trust import Trust
from simservice.types import Array

MODES: tuple[AutoresetMode, ...] = (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP, AutoresetMode.DISABLED)
NEXT_STEP, SAME_STEP, DISABLED = range(3)

STORED: tuple[str, ...] = ("seed", "counter", "elapsed", "ended", "ready")
"""The columns that belong to a lane's future and so to its snapshot; the mode belongs to the session."""


class Control:
    """One entry a lane, the scratch lane's last."""

    def __init__(self, size: int) -> None:
        self.seed = np.zeros(size, dtype=np.int64)
        self.counter = np.zeros(size, dtype=np.int64)  # calls that drew luck since the seed was set
        self.elapsed = np.zeros(size, dtype=np.int64)  # steps of the running episode
        self.ended = np.zeros(size, dtype=np.bool_)  # the episode is over and no new one has begun
        self.ready = np.zeros(size, dtype=np.bool_)  # was ever reset
        self.mode = np.zeros(size, dtype=np.int8)
        self.trust = Trust(size)

    @property
    def stored_bytes(self) -> int:
        """Of all stored columns."""
        return sum(getattr(self, name).nbytes for name in STORED)

    def open(self, lanes: Array, mode: AutoresetMode, seeds: Array) -> None:
        """Makes lanes new: seeded, never reset."""
        self.seed[lanes] = seeds
        self.counter[lanes] = 0
        self.elapsed[lanes] = 0
        self.ended[lanes] = False
        self.ready[lanes] = False
        self.mode[lanes] = MODES.index(mode)

    def steppable(self, where: Span) -> bool:
        """Whether all lanes are in the middle of an episode: the usual case, told with the least work."""
        return all_true(self.ready[where]) and not any_true(self.ended[where])

    def blocked(self, where: Span) -> Array:
        """Positions of lanes that may not be stepped: never reset, or ended under DISABLED."""
        if self.steppable(where):
            return np.empty(0, dtype=np.int64)
        return np.flatnonzero(~self.ready[where] | (self.ended[where] & (self.mode[where] == DISABLED)))

    def reseed(self, lanes: Array, seeds: Array) -> None:
        """Sets the luck of lanes whose seed is not negative; the others go on with theirs."""
        seeded = seeds >= 0
        self.seed[lanes[seeded]] = seeds[seeded]
        self.counter[lanes[seeded]] = 0

    def begin(self, lanes: Array) -> None:
        """An episode begins."""
        self.elapsed[lanes] = 0
        self.ended[lanes] = False
        self.ready[lanes] = True

    def columns(self, lanes: Array) -> dict[str, Array]:
        """Copies of the stored columns of some lanes."""
        return {name: getattr(self, name)[lanes] for name in STORED}

    def taken(self, lanes: Array) -> Control:
        """Copies of some lanes' columns, mode and caution among them; a lane may be named twice."""
        taken = Control(0)
        for name in (*STORED, "mode"):
            setattr(taken, name, getattr(self, name)[lanes])
        taken.trust = self.trust.taken(lanes)
        return taken

    def write(self, lanes: Array, columns: dict[str, Array]) -> None:
        """Puts stored columns back."""
        for name in STORED:
            getattr(self, name)[lanes] = columns[name]
