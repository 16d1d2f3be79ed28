"""Luck of a rollout's lanes, drawn for many steps at once: the very numbers that drawing step by step gives.

A lane's numbers depend on its seed and its counter alone, and who plays a rollout knows how counters go on. Numpy's
calls cost more than their arithmetic at these sizes, so a draw for sixteen steps costs hardly more than one for a step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch

from simservice.engine.batching import Span, all_true
from simservice.engine.control import Control
from simservice.types import Array
from simservice.worlds.noise import Stream, lane_draws
from simservice.worlds.world import Call, Draw, World

NUMBERS = 2**14
"""Drawn at once, about: what is made on the way still fits the processor's cache."""


FEW_NUMBERS = 2**12
"""Starts are for some lanes, and drawn ahead for all: only where that is so little."""


def luck_ahead(control: Control, world: World, steps: int) -> dict[Call, LuckAhead]:
    """For a rollout of so many steps, in which the world's starts follow on ends."""
    calls: dict[Call, LuckAhead] = {"step": LuckAhead(control, world.draws["step"], "step", steps)}
    if _numbers(control, world.draws["init"]) <= FEW_NUMBERS:
        calls["init"] = LuckAhead(control, world.draws["init"], "init", steps)
    return calls


class LuckAhead:
    """The draws of one call for all lanes of a control, whose seeds stay as they are and whose counters never fall."""

    def __init__(self, control: Control, draws: Mapping[str, Draw], stream: Stream, steps: int) -> None:
        self._control = control
        self._draws = draws
        self._stream = stream
        turns = math.ceil(steps / max(1, NUMBERS // max(1, _numbers(control, draws))))
        self._steps = math.ceil(steps / max(1, turns))  # drawn at once, the last time as many as before
        self._base = control.counter - self._steps  # (lanes,) the counters of the table's first step; there is none yet
        self._table: dict[str, Array] = {}  # (steps, lanes, ...)

    def take(self, where: Span) -> dict[str, Array]:
        """The numbers of these lanes, (n, ...) float32 by draw, for their counters as they are now; nobody's to write.

        Lanes may have been stepped unequally often since the draw.
        """
        if not self._draws:
            return {}
        ahead = self._ahead(where)
        first = int(ahead[0])
        if all_true(ahead == first):
            if first >= self._steps:
                first = self._draw()
            return {name: rows[first][where] for name, rows in self._table.items()}
        if int(ahead.max()) >= self._steps:
            self._draw()
            ahead = self._ahead(where)
        lanes = np.arange(where.start, where.stop) if isinstance(where, slice) else where
        return {name: rows[ahead, lanes] for name, rows in self._table.items()}

    def _ahead(self, where: Span) -> Array:
        """(n,) how many steps each of the lanes is beyond the table's first."""
        ahead: Array = self._control.counter[where] - self._base[where]
        return ahead

    def _draw(self) -> int:
        """A table that begins at the counters as they are now; returns the place of the present step in it."""
        self._base = self._control.counter.copy()
        counters = self._base + np.arange(self._steps)[:, None]
        seeds = np.tile(self._control.seed, self._steps)
        drawn = lane_draws(self._draws, torch.from_numpy(seeds), torch.from_numpy(counters.reshape(-1)), self._stream)
        self._table = {name: rows.numpy().reshape(*counters.shape, *rows.shape[1:]) for name, rows in drawn.items()}
        return 0


def _numbers(control: Control, draws: Mapping[str, Draw]) -> int:
    """Of one step of all lanes."""
    return len(control.seed) * sum(math.prod(draw.shape) for draw in draws.values())
