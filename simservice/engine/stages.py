"""Where rollouts play: rows of their own, apart from the arena's. Where calls of the world are graphs, with graphs.

A graph belongs to the rows that it was made for, and takes a second to make. So there such rows are used again by the
next rollout of that size, and only a few are kept. Called by rollouts in their turn.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from simservice.engine.arena import Arena
from simservice.engine.control import Control
from simservice.engine.requests import Borrowed
from simservice.engine.runner import Runner
from simservice.worlds.world import Tensors, World

log = logging.getLogger(__name__)

MOST_KEPT = 4
"""Stages that wait for a rollout. Each holds as many rows as its size, and what its graphs need."""

MakeRunner = Callable[[Arena, Control, Sequence[int] | None, bool], Runner]
"""Of an arena and its control, for these batch sizes (None: all) and with observations or not."""


@dataclass(eq=False)
class Stage:
    """The rows of one rollout in lanes 0 to count - 1, and who calls the world on them."""

    runner: Runner
    kept: bool  # its graphs are worth another rollout

    def played(self, count: int) -> Borrowed:
        """What the lanes have become: nobody else writes it."""
        rows: Tensors = self.runner.arena.rows
        if self.kept:
            rows = {name: row[:count].clone() for name, row in rows.items()}
        return Borrowed(rows, self.runner.control)


class Stages:
    """The stages of one engine."""

    def __init__(self, world: World, sizes: Sequence[int], runner: MakeRunner, graphed: bool) -> None:
        self._world = world
        self._sizes = tuple(sizes)
        self._runner = runner
        self._graphed = graphed
        self._waiting: list[Stage] = []

    def enter(self, rows: Tensors, control: Control, emits: bool) -> Stage:
        """A stage with these rows, the scratch lane's last; more than the largest batch are played without graphs."""
        count = len(control.seed) - 1
        device = next(iter(rows.values())).device
        size = next((size for size in self._sizes if size >= count), None)
        if not self._graphed or size is None:
            return Stage(self._runner(Arena.around(rows, device), control, None, emits), kept=False)
        try:
            stage = self._of_size(size, control, device)
        except RuntimeError:  # a device that is full, say; what has graphs already goes on
            log.exception("no graphs of %d rows could be made; rollouts are played without", size)
            self._graphed = False
            return self.enter(rows, control, emits)
        places = np.minimum(np.arange(size + 1), count)  # padding is the scratch lane's
        index = torch.from_numpy(places).to(device)
        for name, row in stage.runner.arena.rows.items():
            row.copy_(rows[name].index_select(0, index))
        stage.runner.control = control.taken(places)
        return stage

    def _of_size(self, size: int, control: Control, device: torch.device) -> Stage:
        for stage in self._waiting:
            if stage.runner.arena.capacity == size:
                self._waiting.remove(stage)
                return stage
        arena = Arena(self._world, size, str(device))
        stage = Stage(self._runner(arena, control, (size,), True), kept=True)
        stage.runner.prepare_graphs()
        return stage

    def leave(self, stage: Stage) -> None:
        """The rollout is over; its stage waits for the next."""
        if stage.kept:
            self._waiting = [*self._waiting, stage][-MOST_KEPT:]
