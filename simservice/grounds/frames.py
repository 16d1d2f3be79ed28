"""Any Gymnasium environment that can draw itself, seen as pictures only: its rendered frame is the observation."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from simservice.errors import InvalidInput
from simservice.grounds.drawing import Array, shrinking
from simservice.types import qualified


class Frames(gym.Env[Any, Any]):
    """Observation: (size, size, 3 x stack) uint8, the frame shrunk by area, newest last. All else is the environment's.

    The environment's own time limit is kept. Raises InvalidInput for one that has no render mode rgb_array.
    """

    metadata = {  # noqa: RUF012  # Gymnasium declares it an instance's
        "render_modes": ["rgb_array"],
        "render_fps": 30,
    }

    def __init__(
        self,
        env_id: str,
        size: int = 64,
        stack: int = 1,
        env_kwargs: Mapping[str, Any] | None = None,
        render_mode: str | None = None,
    ) -> None:
        if size < 8 or stack < 1:
            raise InvalidInput("size, stack", f"are {size} and {stack}; at least 8 pixels and 1 frame are needed")
        for name in ("SDL_VIDEODRIVER", "SDL_AUDIODRIVER"):
            os.environ.setdefault(name, "dummy")  # pygame draws into memory; without a screen it would complain
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*does not support render|.*is out of date.*")
            warnings.filterwarnings("ignore", category=DeprecationWarning)  # of Box2D's and pygame's own modules
            self.env: gym.Env[Any, Any] = gym.make(qualified(env_id), render_mode="rgb_array", **dict(env_kwargs or {}))
        if "rgb_array" not in self.env.metadata.get("render_modes", ()):
            raise InvalidInput("env_id", f"{env_id} has no render mode rgb_array, so there are no frames to record")
        self.render_mode = render_mode
        self.size, self.stack = size, stack
        self.observation_space = spaces.Box(0, 255, (size, size, 3 * stack), np.uint8)
        self.action_space = self.env.action_space
        self._weights: tuple[Array, Array] | None = None
        self._seen: list[Array] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        super().reset(seed=seed)
        _, info = self.env.reset(seed=seed, options=options)
        self._seen = [self._frame()] * self.stack
        return np.concatenate(self._seen, axis=-1), info

    def step(self, action: Any) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        _, reward, terminated, truncated, info = self.env.step(action)
        self._seen = [*self._seen[1:], self._frame()]
        return np.concatenate(self._seen, axis=-1), float(reward), bool(terminated), bool(truncated), info

    def render(self) -> Any:
        return self.env.render() if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        self.env.close()  # type: ignore[no-untyped-call]

    def _frame(self) -> Array:
        picture = np.asarray(self.env.render(), dtype=np.float32)
        if self._weights is None:
            self._weights = shrinking(picture.shape[0], self.size), shrinking(picture.shape[1], self.size)
        rows, columns = self._weights
        narrow = (rows @ picture.reshape(picture.shape[0], -1)).reshape(self.size, -1, 3)  # (size, width, 3)
        small = narrow.transpose(0, 2, 1).reshape(-1, picture.shape[1]) @ columns.T  # (size x 3, size): one product
        return np.asarray(np.rint(small.reshape(self.size, 3, self.size).transpose(0, 2, 1)), dtype=np.uint8)
