"""MemoryDoor: a lamp that leaves the view, and a door far from it that only the lamp's colour opens.

A corridor of cells, of which four are in view. At the left end hangs a red or a green lamp; at the right end the door
asks for its colour. A world that forgets what it no longer sees shows another lamp when the agent comes back, and pays
for the wrong colour.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from simservice.grounds.drawing import Array, cells_to_frame, frame_to_cells
from simservice.grounds.ground import Ground

VIEW = 4  # cells in view; the agent stands in the second of them
PIXELS = 8
COLOURS = ((255, 0, 0), (0, 255, 0))
START = 1


class MemoryDoor(Ground):
    """Actions: 0 left, 1 right, 2 say red, 3 say green. Speaking at the door ends the episode: +1 if right, else -1.

    Observation: (32, 32, 3) uint8, a view of 4 cells of which the agent stands in the second, in the last row. The
    corridor has `length` cells; elsewhere speaking does nothing. `colour` in the truth: 0 red, 1 green.
    """

    def __init__(self, length: int = 10, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.observation_space = spaces.Box(0, 255, (VIEW * PIXELS, VIEW * PIXELS, 3), np.uint8)
        self.action_space = spaces.Discrete(4)
        self.length = length
        self.place, self.colour = START, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        super().reset(seed=seed)
        self.place, self.colour = START, int(self.np_random.integers(2))
        return self.frame(), {}

    def step(self, action: Any) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        done = self.action(action)
        if done < 2:
            self.place = min(max(self.place + 2 * done - 1, 0), self.length - 1)
            return self.frame(), 0.0, False, False, {}
        ended = self.place == self.length - 1
        reward = 0.0 if not ended else 1.0 if done - 2 == self.colour else -1.0
        return self.frame(), reward, ended, False, {}

    @property
    def truth(self) -> Mapping[str, float]:
        return {"place": self.place, "colour": self.colour}

    def frame(self) -> Array:
        """Rows from the top: lamp or door, wall marks that tell the place, the floor, the agent."""
        grid = np.zeros((VIEW, VIEW, 3), np.uint8)
        for column in range(VIEW):
            cell = self.place + column - 1
            if not 0 <= cell < self.length:
                grid[:, column] = 60  # beyond the walls
                continue
            if cell == 0:
                grid[0, column] = COLOURS[self.colour]
            if cell == self.length - 1:
                grid[0, column] = (0, 0, 255)
            grid[1, column] = (0, 0, 40 + 200 * cell // self.length)
        grid[3, 1] = 255
        return cells_to_frame(grid, PIXELS)


def read(frames: Array) -> dict[str, Array]:
    """The lamp in frames (..., 32, 32, 3): `seen` whether one is in view, `colour` which (0 red, 1 green)."""
    top = frame_to_cells(frames, PIXELS)[..., 0, :, :]
    red, green = (top[..., 0] - top[..., 1]).max(-1), (top[..., 1] - top[..., 0]).max(-1)
    return {"seen": np.maximum(red, green) > 127, "colour": (green > red).astype(np.int64)}
