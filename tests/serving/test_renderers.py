"""Frames of learned worlds, drawn by the real environment's renderer."""

import gymnasium as gym
import numpy as np
import pytest
import torch

import simservice.client  # noqa: F401  registers the remote environment
from simservice.errors import InvalidInput
from simservice.serving.local import LocalConfig, LocalServer
from simservice.serving.renderers import Painter, with_pictures
from simservice.types import Provenance, WorldSpec
from simservice.worlds import registry
from simservice.worlds.checkpoint import save
from simservice.worlds.placing import place

DRAWN = ["CartPole-v1", "Pendulum-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Acrobot-v1"]


def world_of(env_id, family="persistence"):
    env = gym.make(env_id)
    spec = WorldSpec(
        name="w", version="", family=family, observation_space=env.observation_space, action_space=env.action_space
    )
    return registry.create(family, spec)


@pytest.mark.parametrize("env_id", DRAWN)
def test_a_frame_is_what_the_environment_draws_in_that_state(env_id):
    real = gym.make(env_id, render_mode="rgb_array")
    real.action_space.seed(0)
    observation, _ = real.reset(seed=3)
    real.unwrapped.last_u = None
    for _ in range(4):
        observation, *_ = real.step(real.action_space.sample())
    if env_id == "Pendulum-v1":
        real.unwrapped.last_u = None  # the arrow of the last torque is no part of an observation
    frame = Painter(env_id, {}).frames(observation[None])[0]
    assert frame.dtype == np.uint8 and frame.ndim == 3
    assert np.mean(frame != real.render()) < 0.01
    other = Painter(env_id, {}).frames(np.stack([observation, real.reset(seed=9)[0]]))
    assert np.array_equal(other[0], frame) and not np.array_equal(other[1], frame)


@pytest.mark.parametrize("env_id", DRAWN)
def test_an_environment_is_put_where_the_observation_says(env_id):
    real, other = gym.make(env_id), gym.make(env_id)
    real.action_space.seed(0)
    real.reset(seed=3)
    for _ in range(4):
        observation, *_ = real.step(real.action_space.sample())
    other.reset(seed=8)
    place(env_id, other, observation)
    for _ in range(3):
        action = real.action_space.sample()
        assert np.allclose(real.step(action)[0], other.step(action)[0], atol=1e-4)


def test_a_learned_world_is_drawn_and_steps_as_before():
    plain = world_of("CartPole-v1")
    pictured = with_pictures(plain, Provenance(env_id="CartPole-v1"))
    assert pictured.spec.render_modes == ("rgb_array",) and "render" in pictured.spec.capabilities
    assert pictured.family == "persistence" and dict(pictured.slots) == dict(plain.slots)
    observation = torch.tensor([[0.0, 0, 0, 0], [1.5, 0, 0.1, 0]])
    state = pictured.observe(pictured.allocate(2), {"observation": observation}, {}, torch.ones(2), {})
    frames = pictured.render(state)
    assert frames.shape == (2, 400, 600, 3) and frames.dtype == torch.uint8
    assert not torch.equal(frames[0], frames[1])
    after, out = pictured.step(state, {}, {"termination": torch.full((2,), 0.5)})
    assert torch.equal(pictured.emit(after)["observation"], observation) and not out.terminated.any()


def test_worlds_that_draw_or_that_nobody_can_draw_stay_as_they_are():
    world = world_of("CartPole-v1")
    assert with_pictures(world, Provenance()) is world
    assert with_pictures(world, Provenance(env_id="LunarLander-v3")) is world


def test_an_environment_that_cannot_be_made_says_why():
    with pytest.raises(InvalidInput, match="render: Pendulum-v1 cannot draw here"):
        Painter("Pendulum-v1", {"moon": True}).frames(np.zeros((1, 3)))


def test_a_client_gets_frames_of_a_served_learned_world(tmp_path):
    save(world_of("CartPole-v1"), tmp_path / "drawn", provenance=Provenance(env_id="CartPole-v1"))
    with LocalServer([tmp_path / "drawn"], store_url="memory:", config=LocalConfig(grace_s=0.1)) as server:
        env = gym.make("simservice/World-v0", address=server.address, world="w", render_mode="rgb_array")
        env.reset(seed=1)
        env.step(env.action_space.sample())
        frame = env.render()
        env.close()
    assert frame.shape == (400, 600, 3) and frame.dtype == np.uint8 and len(np.unique(frame)) > 2
