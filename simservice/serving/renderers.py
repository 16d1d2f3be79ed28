"""Pictures of worlds that have none of their own, drawn by their real environment put where the observation says.

Only for environments whose state follows from one observation; nothing of the environment is made before somebody
asks for a frame, and nothing but its drawing is used.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from simservice.errors import InvalidInput
from simservice.types import Array, Provenance
from simservice.worlds.placing import can_place, place
from simservice.worlds.world import Tensors, World
from simservice.worlds.wrapped import WrappedWorld

_FRAMES_PER_SECOND = 30


class Painter:
    """Draws observations of one environment."""

    def __init__(self, env_id: str, env_kwargs: Mapping[str, Any]) -> None:
        self.env_id = env_id
        self._env_kwargs = {key: value for key, value in env_kwargs.items() if key != "render_mode"}
        self._environment: gym.Env[Any, Any] | None = None

    def frames(self, observations: Array) -> Array:
        """(lanes, height, width, 3) uint8 of observations (lanes, ...). Raises InvalidInput where it cannot draw."""
        environment = self._opened()
        frames = []
        for observation in observations:
            place(self.env_id, environment, observation)
            frames.append(np.asarray(environment.render(), dtype=np.uint8))
        return np.stack(frames)

    def _opened(self) -> gym.Env[Any, Any]:
        if self._environment is None:
            for name in ("SDL_VIDEODRIVER", "SDL_AUDIODRIVER"):
                os.environ.setdefault(name, "dummy")  # pygame draws into memory; without a screen it would complain
            try:
                environment = gym.make(
                    self.env_id, render_mode="rgb_array", disable_env_checker=True, **self._env_kwargs
                )
            except (gym.error.Error, ImportError, TypeError) as error:
                raise InvalidInput("render", f"{self.env_id} cannot draw here: {error}") from error
            environment.reset(seed=0)
            self._environment = environment
        return self._environment


class PicturedWorld(WrappedWorld):
    """A world that does all as the one it is given, and draws frames by a painter."""

    def __init__(self, world: World, painter: Painter) -> None:
        spec = replace(
            world.spec,
            render_modes=("rgb_array",),
            metadata={"render_fps": _FRAMES_PER_SECOND, **world.spec.metadata},
            capabilities=world.spec.capabilities | {"render"},
        )
        super().__init__(world, spec)
        self.family, self.device_types = world.family, world.device_types  # type: ignore[misc]  # as the world's own
        self._painter = painter

    def render(self, state: Tensors) -> Tensor:
        observation = next(iter(self.world.emit(state).values()))
        return torch.from_numpy(self._painter.frames(observation.cpu().numpy()))


def with_pictures(world: World, provenance: Provenance) -> World:
    """The world itself where it draws or nothing can draw it, else one that its real environment draws."""
    if world.spec.render_modes or provenance.env_id is None or not can_place(provenance.env_id):
        return world
    return PicturedWorld(world, Painter(provenance.env_id, provenance.env_kwargs))
