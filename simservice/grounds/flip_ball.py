"""FlipBall: a ball on a ring of columns that turns back with a probability. Is a world's luck calibrated?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from simservice.errors import InvalidInput
from simservice.grounds.drawing import Array, brightest, cells_to_frame, frame_to_cells
from simservice.grounds.ground import Ground

CELLS = 8
PIXELS = 4
ROW = CELLS // 2


class FlipBall(Ground):
    """Each step the ball turns with probability `flip`, then moves one column in its direction, round the ring.

    Observation: (32, 32, 3) uint8, the ball red while it goes right and green while it goes left; or, as "vector",
    (sin, cos) of its place on the ring and its direction (1 right, -1 left). The two actions change nothing. Reward 1
    in column 0. Nothing terminates.
    """

    def __init__(self, observation: str = "image", flip: float = 0.3, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        image = spaces.Box(0, 255, (CELLS * PIXELS, CELLS * PIXELS, 3), np.uint8)
        offered = {"image": image, "vector": spaces.Box(-1.0, 1.0, (3,), np.float32)}
        if observation not in offered:
            raise InvalidInput("observation", f"{observation!r} is not offered here; there are 'image' and 'vector'")
        self.seen, self.flip = observation, flip
        self.observation_space = offered[observation]
        self.action_space = spaces.Discrete(2)
        self.column, self.direction = 0, 1

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        super().reset(seed=seed)
        self.column = int(self.np_random.integers(CELLS))
        self.direction = 2 * int(self.np_random.integers(2)) - 1
        return self._observation(), {}

    def step(self, action: Any) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        self.action(action)
        if self.np_random.random() < self.flip:
            self.direction = -self.direction
        self.column = (self.column + self.direction) % CELLS
        return self._observation(), float(self.column == 0), False, False, {}

    def _observation(self) -> Array:
        if self.seen == "image":
            return self.frame()
        turn = 2 * np.pi * self.column / CELLS
        return np.array([np.sin(turn), np.cos(turn), self.direction], dtype=np.float32)

    @property
    def truth(self) -> Mapping[str, float]:
        return {"column": self.column, "direction": self.direction}

    def frame(self) -> Array:
        grid = np.zeros((CELLS, CELLS, 3), np.uint8)
        grid[ROW, self.column] = (255, 0, 80) if self.direction > 0 else (0, 255, 80)
        return cells_to_frame(grid, PIXELS)


def read(observations: Array) -> dict[str, Array]:
    """The truth in frames (..., 32, 32, 3) or vectors (..., 3): column, direction; `clean` where one ball is seen."""
    if observations.shape[-1] == 3 and observations.dtype != np.uint8:
        turn = np.arctan2(observations[..., 0], observations[..., 1]) / (2 * np.pi) * CELLS
        direction = np.where(observations[..., 2] > 0, 1, -1)
        return {
            "column": np.rint(turn).astype(np.int64) % CELLS,
            "direction": direction,
            "clean": np.abs(np.abs(observations[..., 2]) - 1) < 0.5,
        }
    cells = frame_to_cells(observations, PIXELS)
    right, left = cells[..., ROW, :, 0], cells[..., ROW, :, 1]
    _, column, clean = brightest(np.maximum(right, left)[..., None, :])
    direction = np.where(right.max(-1) >= left.max(-1), 1, -1)
    return {"column": column, "direction": direction, "clean": clean}
