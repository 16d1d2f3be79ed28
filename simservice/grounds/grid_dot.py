"""GridDot-32: a white dot that obeys five actions, on 8 x 8 cells of 4 pixels; a red ball may wander about, unasked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from simservice.grounds.drawing import Array, brightest, cells_to_frame, frame_to_cells
from simservice.grounds.ground import Ground

CELLS = 8
PIXELS = 4
MOVES = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))  # rows, columns: stay, up, down, left, right


class GridDot(Ground):
    """Observation: (32, 32, 3) uint8. With a target cell, reaching it gives +1 and terminates; else no reward, no end.

    `distractor` adds a ball that bounces off the walls diagonally, whatever is done. The target is not drawn.
    """

    def __init__(
        self, distractor: bool = False, target: tuple[int, int] | None = None, render_mode: str | None = None
    ) -> None:
        super().__init__(render_mode)
        self.observation_space = spaces.Box(0, 255, (CELLS * PIXELS, CELLS * PIXELS, 3), np.uint8)
        self.action_space = spaces.Discrete(len(MOVES))
        self.distractor, self.target = distractor, tuple(target) if target is not None else None
        self.dot = (0, 0)  # row, column
        self.ball = (0, 0)
        self.heading = (1, 1)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        super().reset(seed=seed)
        row, column, ball_row, ball_column = self.np_random.integers(CELLS, size=4).tolist()
        if (row, column) == self.target:
            column = (column + CELLS // 2) % CELLS
        self.dot, self.ball = (row, column), (ball_row, ball_column)
        down, right = self.np_random.integers(2, size=2).tolist()
        self.heading = (2 * down - 1, 2 * right - 1)
        return self.frame(), {}

    def step(self, action: Any) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        down, right = MOVES[self.action(action)]
        self.dot = (_inside(self.dot[0] + down), _inside(self.dot[1] + right))
        rows, columns = _bounce(self.ball[0], self.heading[0]), _bounce(self.ball[1], self.heading[1])
        self.ball, self.heading = (rows[0], columns[0]), (rows[1], columns[1])
        reached = self.dot == self.target
        return self.frame(), float(reached), reached, False, {}

    @property
    def truth(self) -> Mapping[str, float]:
        return {
            "dot_row": self.dot[0],
            "dot_column": self.dot[1],
            "ball_row": self.ball[0],
            "ball_column": self.ball[1],
        }

    def frame(self) -> Array:
        grid = np.zeros((CELLS, CELLS, 3), np.uint8)
        if self.distractor:
            grid[self.ball] = (255, 0, 0)
        grid[self.dot] = 255  # the dot is in front
        return cells_to_frame(grid, PIXELS)


def read(frames: Array) -> dict[str, Array]:
    """The truth in frames (..., 32, 32, 3): dot_row, dot_column; `clean` where exactly one dot is seen."""
    row, column, clean = brightest(frame_to_cells(frames, PIXELS)[..., 2])  # only the dot has blue
    return {"dot_row": row, "dot_column": column, "clean": clean}


def _inside(place: int) -> int:
    return min(max(place, 0), CELLS - 1)


def _bounce(place: int, heading: int) -> tuple[int, int]:
    """(place, heading) after one step between the walls."""
    if not 0 <= place + heading < CELLS:
        heading = -heading
    return place + heading, heading
