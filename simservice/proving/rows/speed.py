"""A16: environment steps a second in this process, on one thread, at 16 lanes: the world, its pictures, the engine."""

from __future__ import annotations

import time

import torch

from simservice.proving.recipe import Check
from simservice.proving.rows.ground import Subject, check

LANES = 16
SECONDS = 2.0


def steps_a_second(subject: Subject) -> list[Check]:
    """Random actions, autoreset on; reported, since the floor depends on the family (see its recipe's row)."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        envs = subject.lanes(LANES)
        envs.action_space.seed(0)
        actions = [envs.action_space.sample() for _ in range(64)]
        envs.reset(seed=0)
        for action in actions[:4]:
            envs.step(action)
        began, steps = time.thread_time(), 0  # processor time: what others on the machine do is left out
        while (spent := time.thread_time() - began) < SECONDS:
            envs.step(actions[steps % len(actions)])
            steps += 1
    finally:
        torch.set_num_threads(threads)
    return [check("A16", f"steps a second at {LANES} lanes, one thread", steps * LANES / spent)]
