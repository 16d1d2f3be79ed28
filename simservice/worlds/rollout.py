"""Imagines many steps at once, open loop: lanes from starts or contexts, under given actions. Knows no service."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from simservice.errors import InvalidInput
from simservice.types import Array, Context, Leaves, leaves_of
from simservice.worlds.codec import torch_dtype
from simservice.worlds.noise import lane_draws
from simservice.worlds.world import BUCKETS, StepOut, Tensors, World


@dataclass(frozen=True)
class Rollout:
    """What a world imagined for B lanes over T steps. A lane goes on after an end: `alive` says what counts."""

    observation: Leaves  # (B, T + 1, ...), the first row is where the lane started
    reward: Array  # (B, T) float64
    terminated: Array  # (B, T) bool, sampled
    termination_probability: Array  # (B, T) float32
    uncertainty: Array  # (B, T) float32

    @property
    def alive(self) -> Array:
        """(B, T) bool: the step was taken before any end; the step that ends a lane is still alive."""
        ended = np.cumsum(self.terminated, axis=1) - self.terminated
        alive: Array = ended == 0
        return alive


def bucket(lanes: int) -> int:
    """The batch size that `lanes` rows are run at: the smallest prepared one that holds them, or the largest."""
    return next((size for size in BUCKETS if size >= lanes), BUCKETS[-1])


def imagine(
    world: World,
    actions: Mapping[str, Array],
    *,
    context: Context | None = None,
    seeds: Array | None = None,
    lanes_at_once: int = 256,
) -> Rollout:
    """Steps every lane through its actions; ends are reported and not obeyed.

    actions[path] is (B, T, ...). A lane starts from its context (B lanes), or where the world's own starts put it.
    seeds (B,) int64 are the lanes' luck, 0 ... B - 1 by default: the same seeds give the same rollout, whatever else
    is imagined beside it. Work is done in padded batches of up to `lanes_at_once`. Raises InvalidInput.
    """
    lanes, steps = _shape(world, actions)
    seeds = np.arange(lanes, dtype=np.int64) if seeds is None else np.asarray(seeds, dtype=np.int64)
    if seeds.shape != (lanes,):
        raise InvalidInput("seeds", f"it has shape {seeds.shape}, expected ({lanes},)")
    if context is not None:
        _check_context(world, context, lanes)
    size = min(bucket(lanes), bucket(lanes_at_once))
    parts = [
        _imagine(world, actions, context, seeds, np.arange(first, min(first + size, lanes)), steps)
        for first in range(0, lanes, size)
    ]
    return Rollout(
        observation={path: np.concatenate([part.observation[path] for part in parts]) for path in parts[0].observation},
        reward=np.concatenate([part.reward for part in parts]),
        terminated=np.concatenate([part.terminated for part in parts]),
        termination_probability=np.concatenate([part.termination_probability for part in parts]),
        uncertainty=np.concatenate([part.uncertainty for part in parts]),
    )


def _shape(world: World, actions: Mapping[str, Array]) -> tuple[int, int]:
    leaves = leaves_of(world.spec.action_space, "action")
    if actions.keys() != {leaf.path for leaf in leaves}:
        raise InvalidInput("actions", f"it has {sorted(actions)}, expected {[leaf.path for leaf in leaves]}")
    lanes, steps = actions[leaves[0].path].shape[:2]
    for leaf in leaves:
        if actions[leaf.path].shape != (lanes, steps, *leaf.shape):
            found, wanted = actions[leaf.path].shape, (lanes, steps, *leaf.shape)
            raise InvalidInput(leaf.path, f"it has shape {found}, expected {wanted}")
    if lanes < 1:
        raise InvalidInput("actions", "there are no lanes")
    return lanes, steps


def _check_context(world: World, context: Context, lanes: int) -> None:
    if "context" not in world.spec.capabilities:
        raise InvalidInput("context", f"a world of family {world.family} cannot be started from observations here")
    frames = context.frames
    for leaf in leaves_of(world.spec.observation_space, "observation"):
        found = context.observation[leaf.path].shape
        if found != (lanes, frames, *leaf.shape):
            raise InvalidInput(leaf.path, f"the context has shape {found}, expected {(lanes, frames, *leaf.shape)}")


def _imagine(
    world: World, actions: Mapping[str, Array], context: Context | None, seeds: Array, rows: Array, steps: int
) -> Rollout:
    """The lanes `rows`, padded by repeating the last of them."""
    device = next((tensor.device for tensor in chain(world.parameters(), world.buffers())), torch.device("cpu"))
    padded = np.concatenate([rows, np.repeat(rows[-1:], bucket(len(rows)) - len(rows))])
    seed = torch.from_numpy(seeds[padded]).to(device)
    dtypes = {leaf.path: leaf.dtype for leaf in leaves_of(world.spec.action_space, "action")}

    def at(values: Mapping[str, Array], time: int) -> Tensors:
        picked = {path: value[padded, time] for path, value in values.items()}
        return {path: torch.from_numpy(np.ascontiguousarray(value)).to(device) for path, value in picked.items()}

    actions = {path: value.astype(dtypes[path], copy=False) for path, value in actions.items()}
    with torch.inference_mode():
        state = _begin(world, context, seed, at)
        seen = [world.emit(state)]
        outs: list[StepOut] = []
        for time in range(steps):
            draws = lane_draws(world.draws["step"], seed, torch.full_like(seed, time), "step")
            state, out = world.step(state, at(actions, time), draws)
            seen.append(world.emit(state))
            outs.append(out)
    count = len(rows)
    return Rollout(
        observation={path: _stacked([frame[path] for frame in seen], count) for path in seen[0]},
        reward=_of(outs, "reward", count, np.float64),
        terminated=_of(outs, "terminated", count, np.bool_),
        termination_probability=_of(outs, "termination_probability", count, np.float32),
        uncertainty=_of(outs, "uncertainty", count, np.float32),
    )


def _begin(world: World, context: Context | None, seed: Tensor, at: Callable[[Leaves, int], Tensors]) -> Tensors:
    """First states: from the world's starts, or grounded frame by frame."""
    if context is None:
        return world.init(lane_draws(world.draws["init"], seed, torch.zeros_like(seed), "init"))
    state = world.allocate(len(seed), seed.device)
    nothing = {
        leaf.path: torch.zeros((len(seed), *leaf.shape), dtype=torch_dtype(leaf.dtype), device=seed.device)
        for leaf in leaves_of(world.spec.action_space, "action")
    }
    for frame in range(context.frames):
        previous = nothing if frame == 0 else at(context.action, frame - 1)
        first = torch.full(seed.shape, frame == 0, device=seed.device)
        draws = lane_draws(world.draws["observe"], seed, torch.full_like(seed, frame), "observe")
        state = world.observe(state, at(context.observation, frame), previous, first, draws)
    return state


def _stacked(values: list[Tensor], count: int) -> Array:
    """Values (batch, ...) over time as (count, time, ...)."""
    return torch.stack(values, dim=1)[:count].cpu().numpy().copy()


def _of(outs: list[StepOut], field: str, count: int, dtype: type[np.generic]) -> Array:
    if not outs:
        return np.zeros((count, 0), dtype)
    return _stacked([getattr(out, field) for out in outs], count).astype(dtype, copy=False)
