"""What all proving grounds share: a frame of themselves, and the truth in numbers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import gymnasium as gym

from simservice.errors import InvalidInput
from simservice.grounds.drawing import Array


class Ground(gym.Env[Any, Any]):
    """An environment that can say where everything is."""

    metadata = {  # noqa: RUF012  # Gymnasium declares it an instance's
        "render_modes": ["rgb_array"],
        "render_fps": 10,
    }

    def __init__(self, render_mode: str | None = None) -> None:
        if render_mode not in (None, "rgb_array"):
            raise InvalidInput("render_mode", f"{render_mode!r} is not offered here; there is 'rgb_array'")
        self.render_mode = render_mode

    @property
    @abstractmethod
    def truth(self) -> Mapping[str, float]:
        """The state now, name by name."""

    @abstractmethod
    def frame(self) -> Array:
        """The picture now, (height, width, 3) uint8."""

    def render(self) -> Array | None:  # type: ignore[override]
        return self.frame() if self.render_mode == "rgb_array" else None

    def action(self, action: Any) -> int:
        """A discrete action as an integer; raises InvalidInput for what is none."""
        if not self.action_space.contains(action):
            raise InvalidInput("action", f"{action!r} is not in {self.action_space}")
        return int(action)
