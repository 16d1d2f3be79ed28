"""PointMass-32 and TwoRoom-32: a point that goes where a 2-d action pushes it; in the second, a wall with a door."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces

from simservice.errors import InvalidInput
from simservice.grounds.drawing import Array, centroid, disc, to_bytes
from simservice.grounds.ground import Ground

SIZE = 32  # pixels
STRIDE = 0.1  # the farthest a step moves along an axis; the room is the unit square
_RADIUS = 2.5  # pixels
_MARGIN = 0.06  # of the room, so that the whole point is always in the picture


class PointMass(Ground):
    """Action: (2,) in [-1, 1], moves (x, y) by STRIDE times it. Observation: (32, 32, 3) uint8, or (2,) as "vector".

    The reward is minus the distance to `goal`, which is not drawn. Nothing terminates. reset(options={"position":
    (x, y)}) starts there.
    """

    wall: ClassVar[bool] = False

    def __init__(
        self, observation: str = "image", goal: tuple[float, float] = (0.8, 0.8), render_mode: str | None = None
    ) -> None:
        super().__init__(render_mode)
        image = spaces.Box(0, 255, (SIZE, SIZE, 3), np.uint8)
        offered = {"image": image, "vector": spaces.Box(0.0, 1.0, (2,), np.float32)}
        if observation not in offered:
            raise InvalidInput("observation", f"{observation!r} is not offered here; there are 'image' and 'vector'")
        self.seen = observation
        self.observation_space = offered[observation]
        self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.goal = np.array(goal, dtype=np.float64)
        self.position = np.full(2, 0.5)  # x to the right, y down

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        super().reset(seed=seed)
        self.position = self.np_random.uniform(_MARGIN, 1 - _MARGIN, size=2)
        while self.wall and _in_wall(self.position):
            self.position = self.np_random.uniform(_MARGIN, 1 - _MARGIN, size=2)
        if options and "position" in options:
            self.position = np.clip(np.asarray(options["position"], dtype=np.float64), _MARGIN, 1 - _MARGIN)
        return self._observation(), {}

    def step(self, action: Any) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        push = np.clip(np.asarray(action, dtype=np.float64), -1.0, 1.0)
        wanted = np.clip(self.position + STRIDE * push, _MARGIN, 1 - _MARGIN)
        self.position = _stopped(self.position, wanted) if self.wall else wanted
        return self._observation(), -float(np.linalg.norm(self.position - self.goal)), False, False, {}

    def _observation(self) -> Array:
        return self.position.astype(np.float32) if self.seen == "vector" else self.frame()

    @property
    def truth(self) -> Mapping[str, float]:
        return {"x": float(self.position[0]), "y": float(self.position[1])}

    def frame(self) -> Array:
        picture = np.zeros((SIZE, SIZE, 3))
        if self.wall:
            axis = (np.arange(SIZE) + 0.5) / SIZE
            solid = (np.abs(axis - 0.5) < WALL)[None, :] & (np.abs(axis - 0.5) > DOOR)[:, None]
            picture[solid] = (0.0, 0.0, 0.6)
        point = disc(self.position[None, ::-1] * SIZE, _RADIUS, SIZE)[0]
        picture[..., 0], picture[..., 1] = point, point
        return to_bytes(picture)


WALL = 0.05  # half the wall's thickness; it stands across x = 0.5
DOOR = 0.14  # half the door's width, around y = 0.5


class TwoRoom(PointMass):
    """The point stops at the wall unless it passes where the door is."""

    wall = True


def read(frames: Array) -> dict[str, Array]:
    """The truth in frames (..., 32, 32, 3): x, y in [0, 1]; NaN where no point is seen."""
    row, column, _ = centroid(np.maximum(frames[..., 0].astype(np.float64) - 64.0, 0.0))
    return {"x": column / SIZE, "y": row / SIZE}


def _in_wall(position: Array) -> bool:
    return bool(abs(position[0] - 0.5) < WALL and abs(position[1] - 0.5) > DOOR)


def _stopped(begin: Array, end: Array) -> Array:
    """How far the point gets from begin to end before it touches the wall."""
    for share in np.linspace(1.0, 0.0, 21):
        way = begin + np.linspace(0.0, share, 11)[:, None] * (end - begin)
        if not any(_in_wall(point) for point in way):
            return np.asarray(way[-1])
    return begin
