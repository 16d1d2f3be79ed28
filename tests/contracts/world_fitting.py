"""Small fitted worlds of every family from a few hundred real steps, for the tests of the contract."""

from __future__ import annotations

from functools import cache

import gymnasium as gym
import numpy as np
import torch

import simservice.grounds  # noqa: F401  so that gymnasium knows them
from simservice.data.collect import collect
from simservice.data.environments import make_environment
from simservice.data.episodes import Dataset, fingerprint
from simservice.training.trainer import TrainConfig, train
from simservice.types import WorldSpec
from simservice.worlds import registry
from simservice.worlds.noise import lane_draws
from simservice.worlds.world import Batch

CART_POLE, PENDULUM = "CartPole-v1", "Pendulum-v1"
CATCH, POINT_MASS = "simservice/Catch-v0", "simservice/PointMass-v0"

OF_PICTURES = frozenset({"diffusion", "tokens"})
"""Families that take pictures alone."""

SMALLER = {
    "diffusion": {
        **{"patch": 4, "channels": [16], "condition": 32, "outcome_channels": 16, "outcome_hidden": 32},
        **{"batch_size": 4, "steps": 2, "memory": 16, "memory_steps": 3},
    },
    "rssm": {"batch_size": 16},
    "tokens": {
        **{"width": 32, "heads": 2, "layers": 2, "decoder_layers": 1, "window": 2, "tokenizer_hidden": 64},
        **{"batch": 8, "segment": 2, "tokenizer_learning_rate": 5e-3},
    },
}
"""What families that learn slowly are told, so that 40 updates cost a second."""


UPDATES_TO_KNOW_PHYSICS = {"rssm": 150}
"""For families that learn all of a step from examples; others, with a closed-form part, need 60."""


def environments(family):
    """What a family is tried on: discrete actions, then continuous ones."""
    return (CATCH, POINT_MASS) if family in OF_PICTURES else (CART_POLE, PENDULUM)


@cache
def episodes(env_id, steps=600, seed=0, gravity=None):
    attributes = {} if gravity is None else {"gravity": gravity}
    return tuple(collect(env_id, steps=steps, seed=seed, attributes=attributes, num_envs=3))


def spec(family, env_id):
    env = gym.make(env_id)
    return WorldSpec(
        name=env_id.split("/")[-1].split("-")[0].lower(),
        version="",
        family=family,
        observation_space=env.observation_space,
        action_space=env.action_space,
        max_episode_steps=60,
    )


def fitted(family, env_id, data, updates=40, overrides=None):
    """A world of the family after prepare() and `updates` gradient steps of each of its phases."""
    torch.manual_seed(0)
    if overrides is None:
        overrides = {"env_id": env_id} if family == "oracle" else SMALLER.get(family)
    world = registry.create(family, spec(family, env_id), overrides)
    world.prepare(data)
    world.train()
    chance = np.random.default_rng(0)
    for phase in world.phases():
        optimizer = torch.optim.AdamW(world.parameters(), lr=phase.learning_rate, weight_decay=phase.weight_decay)
        for _ in range(updates):
            loss, _ = world.loss(segments(data, phase.batch_size, phase.segment_length, chance), {}, phase.name)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return world.eval().requires_grad_(False)


def trained(family, folder, overrides, **config):
    """The folder of a world of Catch, named after its family, that the trainer made of a few hundred real steps."""
    env, data = make_environment("simservice.grounds:" + CATCH), episodes(CATCH)
    dataset = Dataset(
        episodes=data,
        observation_space=env.observation_space,
        action_space=env.action_space,
        env_id=CATCH,
        hash=fingerprint(data),
        real_steps=600,
    )
    train(dataset, family, folder / family, config=TrainConfig(overrides=overrides, **config))
    return folder / family


def segments(data, count, length, chance):
    """A batch of random windows, padded with their last frame where the episode ends early."""
    rows = []
    for index in chance.choice(len(data), count, p=np.array([len(e) for e in data]) / sum(len(e) for e in data)):
        episode = data[index]
        start = chance.integers(len(episode))
        times = np.arange(start, start + length)
        valid = times < len(episode)
        acted = np.minimum(times, len(episode) - 1)
        seen = np.minimum(np.arange(start, start + length + 1), len(episode))
        rows.append(
            (
                {path: value[seen] for path, value in episode.observation.items()},
                {path: value[acted] for path, value in episode.action.items()},
                (episode.reward[acted] * valid).astype(np.float32),
                (times == len(episode) - 1) & episode.terminated,
                np.arange(length + 1) == 0,
                valid,
            )
        )
    observation, action, reward, terminated, first, valid = zip(*rows, strict=True)
    return Batch(
        {path: torch.from_numpy(np.stack([row[path] for row in observation])) for path in observation[0]},
        {path: torch.from_numpy(np.stack([row[path] for row in action])) for path in action[0]},
        *(torch.from_numpy(np.stack(values)) for values in (reward, terminated, first, valid)),
    )


def actions(world, lanes, seed=0):
    """One action for each lane."""
    space = world.spec.action_space
    space.seed(seed)
    return {"action": torch.from_numpy(np.stack([np.asarray(space.sample()) for _ in range(lanes)]))}


def drawn(world, call, seeds, step):
    seeds = torch.as_tensor(seeds, dtype=torch.int64)
    return lane_draws(world.draws[call], seeds, torch.full_like(seeds, step), call)


def begin(world, seeds):
    return world.init(drawn(world, "init", seeds, 0))


def run(world, state, seeds, acts, first_step=1):
    """Steps `state` through acts, a list of action leaves: the last state and the outs with their observations."""
    trace = []
    for offset, action in enumerate(acts):
        state, out = world.step(state, action, drawn(world, "step", seeds, first_step + offset))
        trace.append({**world.emit(state), **{k: v for k, v in out._asdict().items() if k != "aux"}})
    return state, trace


def same(left, right):
    """Whether two dicts of tensors are bitwise equal, NaN included."""
    if left.keys() != right.keys():
        return False
    return all(
        left[name].dtype == right[name].dtype
        and left[name].shape == right[name].shape
        and left[name].numpy().tobytes() == right[name].numpy().tobytes()
        for name in left
    )


def rows(values, index):
    return {name: value[index].clone() for name, value in values.items()}
