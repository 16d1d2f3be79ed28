"""The real environment behind a world's interface: the same trajectories, and rows from which any process goes on."""

import gymnasium as gym
import numpy as np
import pytest
import torch

from simservice.errors import ConfigError, InvalidInput, UnknownEnvironment
from simservice.types import WorldSpec
from simservice.worlds import registry
from simservice.worlds.noise import lane_draws

ENVS = ["CartPole-v1", "Pendulum-v1", "MountainCar-v0", "Acrobot-v1", "LunarLander-v3"]


def spec_of(env_id, **changes):
    env = gym.make(env_id)
    fields = dict(
        name="real",
        version="",
        family="oracle",
        observation_space=env.observation_space,
        action_space=env.action_space,
        max_episode_steps=env.spec.max_episode_steps,
    )
    return WorldSpec(**{**fields, **changes})


def oracle(env_id, spec=None, **config):
    return registry.create("oracle", spec or spec_of(env_id), {"env_id": env_id, **config})


def begin(world, lanes=4, first=0):
    seeds = torch.arange(first, first + lanes)
    return world.init(lane_draws(world.draws["init"], seeds, torch.zeros_like(seeds), "init"))


def acts(world, count, lanes=4, seed=0):
    world.spec.action_space.seed(seed)
    sample = world.spec.action_space.sample
    return [{"action": torch.from_numpy(np.stack([np.asarray(sample()) for _ in range(lanes)]))} for _ in range(count)]


def same(left, right):
    return all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("env_id", ENVS)
def test_a_lane_lives_through_exactly_what_the_environment_gives(env_id):
    world = oracle(env_id)
    state = begin(world)
    real = gym.make(env_id)
    observation, _ = real.reset(seed=int(state["seed"][2]))
    assert np.array_equal(world.emit(state)["observation"][2].numpy(), observation)
    for action in acts(world, 60):
        state, out = world.step(state, action, {})
        observation, reward, terminated, truncated, _ = real.step(action["action"][2].numpy()[()])
        assert np.array_equal(world.emit(state)["observation"][2].numpy(), observation)
        assert out.reward[2].item() == reward and bool(out.terminated[2]) == terminated
        if terminated or truncated:
            break


@pytest.mark.parametrize("env_id", ENVS)
def test_rows_go_on_where_no_live_environment_is_left(env_id):
    world, elsewhere = oracle(env_id), oracle(env_id)
    state = begin(world)
    for action in acts(world, 15):
        state, _ = world.step(state, action, {})
    for action in acts(world, 10, seed=1):
        here, out = world.step(state, action, {})
        there, found = elsewhere.step(state, action, {})
        assert same(here, there) and torch.equal(out.reward, found.reward)
        state = here


def test_forks_of_one_row_each_go_their_own_way():
    world = oracle("CartPole-v1")
    state = begin(world, 16)
    for action in acts(world, 5, 16):
        state, _ = world.step(state, action, {})
    children = {name: value[[3] * 16] for name, value in state.items()}
    action = {"action": torch.arange(16) % 2}
    forked, _ = world.step(children, action, {})
    for lane in range(16):
        alone = {name: value[[3]] for name, value in state.items()}
        expected, _ = oracle("CartPole-v1").step(alone, {"action": torch.tensor([lane % 2])}, {})
        assert all(torch.equal(forked[name][[lane]], expected[name]) for name in expected)
    assert not torch.equal(forked["observation"][0], forked["observation"][1])


def test_few_live_environments_cost_time_and_change_nothing():
    plenty, scarce = oracle("CartPole-v1"), oracle("CartPole-v1", live_environments=2)
    left, right = begin(plenty, 8), begin(scarce, 8)
    for action in acts(plenty, 12, 8):
        left, _ = plenty.step(left, action, {})
        right, _ = scarce.step(right, action, {})
        assert same(left, right)
    assert scarce._live._count <= 3


def test_after_its_end_a_lane_stands_still():
    world = oracle("CartPole-v1")
    state = begin(world)
    right = {"action": torch.ones(4, dtype=torch.int64)}
    for _ in range(30):
        state, out = world.step(state, right, {})
    assert out.terminated.all()
    after, out = world.step(state, right, {})
    assert same(after, state) and out.terminated.all() and (out.reward == 0).all()


def test_rows_of_zeros_are_inert():
    world = oracle("CartPole-v1")
    zeros = world.allocate(16)
    state, out = world.step(zeros, {"action": torch.ones(16, dtype=torch.int64)}, {})
    assert same(state, zeros) and (out.reward == 0).all() and not out.terminated.any()
    assert world._live._count == 1


def test_the_time_limit_is_not_the_worlds():
    world = oracle("Pendulum-v1")
    state = begin(world, 1)
    for action in acts(world, 200, 1):
        state, out = world.step(state, action, {})
        assert not out.terminated.any()
    assert world.spec.max_episode_steps == 200


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1", "MountainCar-v0", "Acrobot-v1"])
def test_a_lane_grounded_in_an_observation_goes_on_as_reality_did(env_id):
    world = oracle(env_id)
    state = begin(world)
    for action in acts(world, 5):
        state, _ = world.step(state, action, {})
    seen = world.emit(state)
    draws = lane_draws(world.draws["observe"], torch.arange(4), torch.zeros(4, dtype=torch.int64), "observe")
    placed = world.observe(world.allocate(4), seen, acts(world, 1)[0], torch.ones(4, dtype=torch.bool), draws)
    assert torch.equal(world.emit(placed)["observation"], seen["observation"])
    elsewhere = oracle(env_id)
    for action in acts(world, 6, seed=2):
        state, _ = world.step(state, action, {})
        placed, _ = world.step(placed, action, {})
        assert torch.allclose(world.emit(placed)["observation"], world.emit(state)["observation"], atol=1e-4)
    again, _ = elsewhere.step(placed, action, {})
    assert same(again, world.step(placed, action, {})[0])


def test_an_environment_that_cannot_be_placed_says_so():
    world = oracle("LunarLander-v3")
    assert "context" not in world.spec.capabilities
    first = torch.ones(4, dtype=torch.bool)
    with pytest.raises(InvalidInput, match="LunarLander-v3 does not follow from an observation"):
        world.observe(world.allocate(4), world.emit(begin(world)), acts(world, 1)[0], first, {})


def test_changed_physics_are_served():
    usual, moon = oracle("CartPole-v1"), oracle("CartPole-v1", attributes={"gravity": 1.6})
    left, right = begin(usual), begin(moon)
    assert same(left, right)
    for action in acts(usual, 10):
        left, _ = usual.step(left, action, {})
        right, _ = moon.step(right, action, {})
    assert not torch.equal(left["observation"], right["observation"])


def test_frames_show_the_rows_and_not_the_live_environments():
    world = oracle("CartPole-v1")
    start = begin(world)
    state = start
    for action in acts(world, 10):
        state, _ = world.step(state, action, {})
    frames = world.render(state)
    assert frames.shape == (4, 400, 600, 3) and frames.dtype == torch.uint8
    assert torch.equal(oracle("CartPole-v1").render(state), frames)
    assert not torch.equal(world.render(start)[0], frames[0])
    kept = {name: value.clone() for name, value in state.items()}
    world.render(state)
    assert same(state, kept)


@pytest.mark.parametrize(
    ("config", "spec", "error", "problem"),
    [
        ({"env_id": ""}, {}, ConfigError, "needs the setting env_id"),
        ({"env_id": "CartPoll-v1"}, {}, UnknownEnvironment, "CartPoll-v1"),
        ({"env_id": "CartPole-v1", "env_kwargs": {"moon": 1}}, {}, ConfigError, "env_kwargs do not fit"),
        ({"env_id": "CartPole-v1", "attributes": {"gravitas": 1}}, {}, ConfigError, "no attribute 'gravitas'"),
        ({"env_id": "CartPole-v1"}, {"max_episode_steps": None}, ConfigError, "needs the setting history_limit"),
        ({"env_id": "Acrobot-v1"}, {}, InvalidInput, "observation_space: Acrobot-v1 has"),
        ({"env_id": "CartPole-v1", "live_environments": 0}, {}, ConfigError, "must be 1 or more"),
    ],
)
def test_a_wrong_setting_says_what_to_do(config, spec, error, problem):
    with pytest.raises(error, match=problem):
        registry.create("oracle", spec_of("CartPole-v1", **spec), config)


def test_a_history_limit_is_the_services_time_limit():
    spec = spec_of("CartPole-v1", max_episode_steps=None)
    assert oracle("CartPole-v1", spec, history_limit=70).spec.max_episode_steps == 70
