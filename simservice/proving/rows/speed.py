"""A16: environment steps a second in this process, on one thread, at 16 lanes: the world, its pictures, the engine.

By processor time, the best of some stretches: what others do on the machine is no part of a world's speed, though they
still share its caches.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from gymnasium import spaces

from simservice.proving.lanes import WorldLanes
from simservice.proving.recipe import Check
from simservice.proving.rows.ground import Subject, check
from simservice.worlds.world import World

LANES = 16
STRETCHES, SECONDS = 6, 0.5


def floor(world: World) -> float | None:
    """What the acceptance table asks of a world of this make; None: nothing.

    It asks of vectors, or of pictures of 32 x 32.
    """
    space, config = world.spec.observation_space, world.config
    if isinstance(space, spaces.Box) and len(space.shape) == 1:
        return {"ensemble": 30_000.0, "rssm": 15_000.0}.get(world.family)
    if isinstance(space, spaces.Box) and space.shape[:2] == (32, 32):
        if world.family == "tokens":
            return 600.0 if config.decoding == "parallel" else 150.0
        if world.family == "diffusion":
            return 400.0 if config.steps == 1 else 130.0
    return None


def steps_a_second(subject: Subject) -> list[Check]:
    """Random actions, autoreset on."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        envs = subject.lanes(LANES)
        envs.action_space.seed(0)
        actions = [envs.action_space.sample() for _ in range(64)]
        envs.reset(seed=0)
        for action in actions[:4]:
            envs.step(action)
        best = max(_stretch(envs, actions) for _ in range(STRETCHES))
    finally:
        torch.set_num_threads(threads)
    return [check("A16", f"steps a second at {LANES} lanes, one thread", best, least=floor(subject.world))]


def _stretch(envs: WorldLanes, actions: Sequence[Any]) -> float:
    """Steps of all lanes in a second of this thread's time."""
    began, steps = time.thread_time(), 0
    while (spent := time.thread_time() - began) < SECONDS:
        envs.step(actions[steps % len(actions)])
        steps += 1
    return steps * LANES / spent
