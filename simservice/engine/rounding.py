"""Finds out which batch sizes round alike on this device, so that a lane's numbers do not depend on its company."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch
from gymnasium.vector.utils import batch_space

from simservice.engine.batching import alike
from simservice.types import Leaves, to_leaves
from simservice.worlds.noise import lane_draws
from simservice.worlds.world import Call, Tensors, World

LARGE = (4096, 16_384)  # batch sizes beyond the buckets of all, where graphs are
BETWEEN = (*range(24, 256, 8), *range(288, 513, 32), *range(640, 1024, 128))
"""Between the buckets, where there are none: a padded row costs there what a real one does."""

STEPS = 4  # enough for a difference of one bit to reach the observation
PATIENCE_S = 0.5
"""On the CPU no size beyond one that took this long is tried or used: such batches gain nothing there."""


def sizes_to_try(buckets: Sequence[int], capacity: int, graphed: bool) -> list[int]:
    """Ascending, the last the only one in which all lanes find room; a graph each is for few sizes, but large ones."""
    between = [size for size in BETWEEN if min(buckets) < size < max(buckets)]
    sizes = sorted({*buckets, *(LARGE if graphed else between)})
    return [size for size in sizes if size < capacity] + [size for size in sizes if size >= capacity][:1]


def prepared_sizes(world: World, device: str, sizes: Sequence[int]) -> tuple[int, ...]:
    """The batch sizes to use: of those that give the first rows bit for bit the same, the largest group.

    Also the warm-up: every size that will be used has been run when this returns.
    """
    ordered = sorted(sizes)
    action = _actions(world, ordered[-1])
    groups: list[tuple[list[torch.Tensor], list[int]]] = []
    for size in ordered:
        began = time.perf_counter()
        rows = _play(world, device, size, ordered[0], action)
        for known, members in groups:
            if all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(known, rows, strict=True)):
                members.append(size)
                break
        else:
            groups.append((rows, [size]))
        if device == "cpu" and time.perf_counter() - began > PATIENCE_S:
            break
    return alike([members for _, members in groups])


def _actions(world: World, size: int) -> Leaves:
    space = batch_space(world.spec.action_space, size)
    space.seed(0)
    return to_leaves(world.spec.action_space, space.sample(), "action")


def _play(world: World, device: str, size: int, compared: int, action: Leaves) -> list[torch.Tensor]:
    """Everything that a batch of `size` says about its first rows in a few steps from seeded starts."""
    seed = torch.arange(size, dtype=torch.int64, device=device)
    acts = {path: torch.from_numpy(np.ascontiguousarray(array[:size])).to(device) for path, array in action.items()}

    def draws(call: Call, step: int) -> Tensors:
        return lane_draws(world.draws[call], seed, torch.full_like(seed, step), call) if world.draws[call] else {}

    state = world.init(draws("init", 0))
    said = list(world.emit(state).values())
    for step in range(1, STEPS + 1):
        state, out = world.step(state, acts, draws("step", step))
        said += [*state.values(), *world.emit(state).values(), out.reward, out.terminated, out.uncertainty]
    return [tensor[:compared].clone() for tensor in said]
