"""A7e: a world's own starts. Nobody can tell them from real resets, and they are not replays of recorded ones."""

from __future__ import annotations

import numpy as np
import torch

from simservice.data.environments import close, make_environment
from simservice.fidelity.pixels import is_picture
from simservice.proving.recipe import TEST_SEED, Check
from simservice.proving.rows.ground import Subject, check, distances, features, told_apart
from simservice.types import Leaves, to_leaves
from simservice.worlds.noise import lane_draws

COUNT = 1_000


def starts(subject: Subject) -> list[Check]:
    """Drawn starts against fresh real resets: the area under a classifier's curve, and exact repetitions."""
    seeds = torch.arange(COUNT)
    world = subject.world
    with torch.inference_mode():
        state = world.init(lane_draws(world.draws["init"], seeds, torch.zeros_like(seeds), "init"))
        drawn = {path: tensor.numpy() for path, tensor in world.emit(state).items()}
    real = _resets(subject)
    found = [check("A7e", "starts told from real resets, AUC", told_apart(features(drawn), features(real)), most=0.6)]
    if any(is_picture(array, 1) for array in drawn.values()):
        return found  # of pictures with few states a start is one that was seen
    recorded = world.starts().get("rows")
    if recorded is not None and recorded.shape[1] == features(drawn).shape[1]:
        own = features(drawn)
        new = float((distances(own, recorded.double().numpy()).min(axis=1) > 0).mean())
        found.append(check("A7e", "starts that were never recorded, share", new, least=0.9))
    return found


def _resets(subject: Subject) -> Leaves:
    environment = make_environment(subject.env_id, subject.env_kwargs)
    try:
        seen = [environment.reset(seed=TEST_SEED + 10_000 + number)[0] for number in range(COUNT)]
        subject.counter.resets += COUNT
        leaves = [to_leaves(environment.observation_space, value, "observation") for value in seen]
        return {path: np.stack([each[path] for each in leaves]) for path in leaves[0]}
    finally:
        close(environment)
