"""Catch-32: a ball falls one row a step, a paddle at the bottom moves under it. The reward comes with the last step.

8 x 8 cells of 4 pixels. The red ball falls straight from a random column of the top row; the blue paddle starts in a
random column of the bottom row. After 7 steps the ball is in the bottom row and the episode terminates with +1 if the
paddle is there, else with -1. Whoever acts at random gets -0.75; +1 can always be reached.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from simservice.grounds.drawing import Array, brightest, cells_to_frame, frame_to_cells
from simservice.grounds.ground import Ground

CELLS = 8
PIXELS = 4
STEPS = CELLS - 1
BALL = (255, 180, 0)
PADDLE = (0, 0, 255)


class Catch(Ground):
    """Actions: 0 left, 1 stay, 2 right. Observation: the frame, (32, 32, 3) uint8."""

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.observation_space = spaces.Box(0, 255, (CELLS * PIXELS, CELLS * PIXELS, 3), np.uint8)
        self.action_space = spaces.Discrete(3)
        self.ball = (0, 0)  # row, column
        self.paddle = 0  # column

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        super().reset(seed=seed)
        self.ball = (0, int(self.np_random.integers(CELLS)))
        self.paddle = int(self.np_random.integers(CELLS))
        return self.frame(), {}

    def step(self, action: Any) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        self.paddle = min(max(self.paddle + self.action(action) - 1, 0), CELLS - 1)
        self.ball = (min(self.ball[0] + 1, CELLS - 1), self.ball[1])
        ended = self.ball[0] == CELLS - 1
        reward = 0.0 if not ended else 1.0 if self.ball[1] == self.paddle else -1.0
        return self.frame(), reward, ended, False, {}

    @property
    def truth(self) -> Mapping[str, float]:
        return {"ball_row": self.ball[0], "ball_column": self.ball[1], "paddle": self.paddle}

    def frame(self) -> Array:
        return draw(self.ball, self.paddle)


def draw(ball: tuple[int, int], paddle: int) -> Array:
    """The frame of a state; a caught ball and the paddle share a cell and add their colours."""
    grid = np.zeros((CELLS, CELLS, 3), np.uint8)
    grid[ball] += np.array(BALL, np.uint8)
    grid[CELLS - 1, paddle] += np.array(PADDLE, np.uint8)
    return cells_to_frame(grid, PIXELS)


def read(frames: Array) -> dict[str, Array]:
    """The truth in frames (..., 32, 32, 3): ball_row, ball_column, paddle; `clean` where there is one of each."""
    cells = frame_to_cells(frames, PIXELS)
    row, column, one_ball = brightest(cells[..., 0])
    _, paddle, one_paddle = brightest(cells[..., -1:, :, 2])
    return {"ball_row": row, "ball_column": column, "paddle": paddle, "clean": one_ball & one_paddle}
