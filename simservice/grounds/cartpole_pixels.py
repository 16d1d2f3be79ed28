"""CartPole as pictures: Gymnasium's own physics, drawn by a rasteriser of our own that needs no display.

Cart, pole and track have a colour channel each, with smooth edges, so positions below a pixel can be seen and read
back. The cart is at least 2 pixels high and the pole at least 2 wide at every size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.envs.classic_control.cartpole import CartPoleEnv

from simservice.errors import InvalidInput
from simservice.grounds.drawing import Array, centroid, stroke, to_bytes

REACH = 3.0  # the picture shows cart positions from -REACH to REACH; episodes end beyond 2.4
_TRACK = 0.8  # of the height; where the pole is hinged, too
_POLE = 0.55  # of the height


class CartPolePixels(CartPoleEnv):
    """Observation: (size, size, 3 x stack) uint8, newest frame last; with dict=True {"image", "vector"}.

    `vector` is the true state: position, velocity, angle, angular velocity. One frame shows no velocities; stack=2
    does, and right after a reset both frames are the same. Physics are attributes, as in CartPole-v1 (gravity, length).
    """

    metadata = {  # noqa: RUF012  # Gymnasium declares it an instance's
        "render_modes": ["rgb_array"],
        "render_fps": 50,
    }

    def __init__(self, size: int = 32, stack: int = 1, dict: bool = False, render_mode: str | None = None) -> None:
        if size < 16 or stack < 1:
            raise InvalidInput("size, stack", f"are {size} and {stack}; at least 16 pixels and 1 frame are needed")
        if render_mode not in (None, "rgb_array"):
            raise InvalidInput("render_mode", f"{render_mode!r} is not offered here; there is 'rgb_array'")
        super().__init__()
        self.render_mode = render_mode
        self.size, self.stack, self.both = size, stack, dict
        self.frames: list[Array] = []
        image = spaces.Box(0, 255, (size, size, 3 * stack), np.uint8)
        vector = spaces.Box(-np.inf, np.inf, (4,), np.float32)
        self.observation_space = spaces.Dict({"image": image, "vector": vector}) if dict else image  # type: ignore[assignment]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        vector, info = super().reset(seed=seed, options=options)
        self.frames = [self.frame()] * self.stack
        return self._observation(vector), info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        vector, reward, terminated, truncated, info = super().step(action)  # type: ignore[no-untyped-call]
        self.frames = [*self.frames[1:], self.frame()]
        return self._observation(vector), float(reward), bool(terminated), truncated, info

    def _observation(self, vector: Array) -> Any:
        image = np.concatenate(self.frames, axis=-1)
        return {"image": image, "vector": np.asarray(vector, dtype=np.float32)} if self.both else image

    @property
    def truth(self) -> Mapping[str, float]:
        assert self.state is not None
        names = ("position", "velocity", "angle", "angular_velocity")
        return {name: float(value) for name, value in zip(names, self.state, strict=True)}

    def frame(self) -> Array:
        """The picture now, (size, size, 3) uint8."""
        picture: Array = draw(np.array(self.state, dtype=np.float64)[None], self.size)[0]
        return picture

    def render(self) -> Array | None:  # type: ignore[override]
        return self.frame() if self.render_mode == "rgb_array" else None


def draw(states: Array, size: int) -> Array:
    """Pictures (N, size, size, 3) uint8 of states (N, 4): red the cart, green the pole, blue the track."""
    unit = size / (2 * REACH)
    column, row = (states[:, 0] + REACH) * unit, np.full(len(states), _TRACK * size)
    width, height = 0.2 * size, 0.09 * size
    hinge = np.stack([row, column], -1)
    tip = hinge + _POLE * size * np.stack([-np.cos(states[:, 2]), np.sin(states[:, 2])], -1)
    side = np.array([0.0, (width - height) / 2])
    picture = np.zeros((len(states), size, size, 3))
    picture[..., 0] = stroke(hinge - side, hinge + side, height, size)
    picture[..., 1] = stroke(hinge, tip, max(2.0, size / 16), size)
    picture[:, int(_TRACK * size), :, 2] = 0.4
    return to_bytes(picture)


def read(frames: Array) -> dict[str, Array]:
    """position and angle (rad) in the newest of pictures (..., size, size, 3 x stack); NaN where nothing is seen."""
    picture = frames[..., -3:].astype(np.float64)
    size = picture.shape[-2]
    _, cart, cart_mass = centroid(np.maximum(picture[..., 0] - 64.0, 0.0))
    row, column, pole_mass = centroid(np.maximum(picture[..., 1] - 64.0, 0.0))
    position = cart * 2 * REACH / size - REACH
    angle = np.arctan2(column - cart, _TRACK * size - row)
    seen = (cart_mass > 0) & (pole_mass > 0)
    return {"position": np.where(seen, position, np.nan), "angle": np.where(seen, angle, np.nan)}


def objects(frames: Array) -> Array:
    """Where cart or pole are, (..., size, size) bool, in the newest picture: what an error is best measured on."""
    seen: Array = frames[..., -3:-1].max(-1) > 64
    return seen
