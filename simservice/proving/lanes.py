"""A world's lanes in this process behind Gymnasium's vector interface: the engine's own tick, without a wire.

So an agent trained here sees, bit for bit, what it would see through the client.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from simservice.engine.arena import Arena
from simservice.engine.batching import span
from simservice.engine.control import Control
from simservice.engine.requests import Copy, Request
from simservice.engine.rounding import prepared_sizes
from simservice.engine.runner import Runner
from simservice.engine.stats import EngineStats
from simservice.engine.tick import Ticker
from simservice.sessions.lanes import Reset, Step
from simservice.types import Array, StepResult, from_leaves, leaves_of, to_leaves
from simservice.worlds.world import BUCKETS, World


class WorldLanes(VectorEnv[Any, Any, Any]):
    """`num_envs` lanes of one world that autoreset in the same step."""

    def __init__(self, world: World, num_envs: int) -> None:
        self.world, self.num_envs = world.eval().requires_grad_(False), num_envs
        self.single_observation_space, self.single_action_space = world.spec.observation_space, world.spec.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
        arena, control = Arena(world, num_envs), Control(num_envs + 1)
        self._lanes = arena.allocate(num_envs)
        control.open(self._lanes, AutoresetMode.SAME_STEP, np.arange(num_envs, dtype=np.int64))
        with torch.inference_mode():
            sizes = prepared_sizes(world, "cpu", BUCKETS)
            runner = Runner(world, arena, control, sizes, EngineStats(capacity=num_envs))
            runner.start(np.array([arena.scratch]))  # a real state, so that padding rows are legal ones
        self._ticker = Ticker(runner, arena, control, world.spec.name)
        self._actions = leaves_of(self.single_action_space, "action")

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """First observations; an int s seeds the lanes s, s + 1, ..."""
        seeds = np.full(self.num_envs, -1, dtype=np.int64)
        if isinstance(seed, int):
            seeds = seed + np.arange(self.num_envs, dtype=np.int64)
        elif seed is not None:
            seeds = np.array([-1 if one is None else one for one in seed], dtype=np.int64)
        result = self._do("reset", Reset(seeds=seeds))
        return from_leaves(self.single_observation_space, result.observation, "observation"), {}

    def step(self, actions: Any) -> tuple[Any, Array, Array, Array, dict[str, Any]]:
        """One step of all lanes; the last observations of ended episodes are in the info "final_obs"."""
        leaves = to_leaves(self.single_action_space, actions, "action")
        typed = {leaf.path: np.asarray(leaves[leaf.path], dtype=leaf.dtype) for leaf in self._actions}
        result: StepResult = self._do("step", Step(typed))
        space, infos = self.single_observation_space, dict[str, Any]()
        if result.final is not None and result.final_observation is not None:
            last = np.full(self.num_envs, None, dtype=object)
            for lane in np.flatnonzero(result.final):
                row = {path: array[lane].copy() for path, array in result.final_observation.items()}
                last[lane] = from_leaves(space, row, "observation")
            infos = {"final_obs": last, "_final_obs": result.final.copy()}
        observation = from_leaves(space, result.observation, "observation")
        return observation, result.reward, result.terminated, result.truncated, infos

    def snapshot(self, lanes: Sequence[int]) -> bytes:
        """Some lanes as bytes, as sessions store them."""
        packed: bytes = self._do("snapshot", None, np.array(lanes))
        return packed

    def restore(self, lanes: Sequence[int], packed: bytes) -> None:
        """Puts a snapshot's lanes back, at these places."""
        self._do("restore", packed, np.array(lanes))

    def fork(self, source: Sequence[int], target: Sequence[int], seeds: Sequence[int] | None = None) -> None:
        """Copies lanes onto others; with luck of their own where seeds are given."""
        luck = None if seeds is None else np.array(seeds, dtype=np.int64)
        self._do("copy", Copy(np.array(source), np.array(target), luck), np.array([*source, *target]))

    def step_some(self, lanes: Sequence[int], actions: Any) -> StepResult:
        """One step of some lanes alone; actions are batched over them."""
        leaves = to_leaves(self.single_action_space, actions, "action")
        typed = {leaf.path: np.asarray(leaves[leaf.path], dtype=leaf.dtype) for leaf in self._actions}
        result: StepResult = self._do("step", Step(typed), np.array(lanes))
        return result

    def _do(self, kind: Any, command: Any, lanes: Array | None = None) -> Any:
        lanes = self._lanes if lanes is None else lanes
        request = Request(kind, lanes, span(lanes), command, None)
        with torch.inference_mode():
            self._ticker.do([request])
        if request.error is not None:
            raise request.error
        return request.result
