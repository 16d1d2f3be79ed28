"""A served lane is a Gymnasium environment like any other."""

import math

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_env_for_sb3

import simservice.client  # noqa: F401  (registers the environment)
from simservice.client.capacity import get_capacity
from simservice.client.worlds import get_world
from simservice.errors import InvalidInput, NeedsReset, SessionClosed, UnknownWorld


@pytest.fixture
def make(worlds):
    made = []

    def make(world="steady", **arguments):
        made.append(gym.make("simservice/World-v0", address=worlds, world=world, **arguments))
        return made[-1]

    yield make
    for env in made:
        env.close()


def test_gymnasiums_own_checker_has_nothing_to_say(make):
    check_env(make(render_mode="rgb_array").unwrapped)


@pytest.mark.filterwarnings("ignore:.*For Box action spaces, we recommend.*")
def test_gymnasiums_own_checker_has_nothing_to_say_about_box_actions(make):
    check_env(make("push").unwrapped, skip_render_check=True)


@pytest.mark.filterwarnings("ignore:.*we recommend you to use a symmetric and normalized.*")
@pytest.mark.parametrize("world", ["steady", "push"])
def test_stable_baselines_checker_has_nothing_to_say(make, world):
    check_env_for_sb3(make(world))


def test_the_contract_is_on_the_environment(make):
    env = make()
    assert env.observation_space == Box(-10, 10, (4,), np.float32)
    assert env.action_space == Discrete(3)
    assert env.metadata == {"render_fps": 25, "render_modes": ["rgb_array"]}
    assert env.unwrapped.contract.spec.max_episode_steps == 200
    assert env.spec.id == "simservice/World-v0"


def test_a_step_gives_what_gymnasium_promises(make):
    env = make()
    first, info = env.reset(seed=3)
    assert first in env.observation_space and info == {}
    observation, reward, terminated, truncated, info = env.step(2)
    assert np.allclose(observation, 1.05 * first + 0.1, atol=1e-6)
    assert type(reward) is float and math.isclose(reward, observation.sum(dtype=np.float64), abs_tol=1e-5)
    assert (terminated, truncated) == (False, False)
    assert info == {"uncertainty": 0.0} and info["uncertainty"].shape == ()


def test_the_same_seed_and_actions_give_the_same_episode_in_two_environments(make):
    one, other = make("lucky"), make("lucky")
    assert np.array_equal(one.reset(seed=5)[0], other.reset(seed=5)[0])
    for action in (0, 2, 1, 1, 2):
        assert np.array_equal(one.step(action)[0], other.step(action)[0])
    assert np.array_equal(one.reset()[0], other.reset()[0])
    assert not np.array_equal(one.reset(seed=6)[0], other.reset(seed=7)[0])


def test_episodes_without_a_seed_differ_between_environments(make):
    assert not np.array_equal(make().reset()[0], make().reset()[0])


def test_the_time_limit_truncates_once_and_terminates_nothing(make):
    env = make("brief")
    env.reset(seed=0)
    ends = [env.step(1)[2:4] for _ in range(12)]
    assert ends == [(False, False)] * 11 + [(False, True)]


def test_a_step_before_a_reset_and_after_an_end_asks_for_a_reset(make):
    env = make("brief")
    with pytest.raises(NeedsReset, match="reset"):
        env.step(1)
    env.reset(seed=0)
    for _ in range(12):
        env.step(1)
    with pytest.raises(NeedsReset):
        env.step(1)
    env.reset()
    env.step(1)


@pytest.mark.parametrize(
    ("world", "action", "words"),
    [
        ("steady", 3, "action: 3 .*lies outside Discrete"),
        ("steady", -1, "lies outside"),
        ("steady", 1.0, "dtype float64 was given, int64 is expected"),
        ("steady", [0, 1], r"shape \(2,\) was given, \(\) is expected"),
        ("steady", None, "dtype object"),
        ("push", [0.5], r"shape \(1,\) was given, \(2,\) is expected"),
        ("push", [0.5, math.nan], "action: holds nan"),
        ("push", [0.5, math.inf], "action: holds inf"),
        ("push", [0.5, 1.5], "lies outside Box"),
        ("push", ["a", "b"], "dtype <U1"),
    ],
)
def test_what_is_no_action_is_refused_in_words_and_nothing_is_stepped(make, world, action, words):
    env, twin = make(world), make(world)
    good = twin.action_space.sample()
    env.reset(seed=1)
    twin.reset(seed=1)
    with pytest.raises(InvalidInput, match=words):
        env.step(action)
    assert np.array_equal(env.step(good)[0], twin.step(good)[0])


def test_an_episode_may_start_in_a_real_observation(make):
    env = make()
    real = np.array([[0.1, 0.2, 0.3, 0.4]], np.float32)
    observation, _ = env.reset(seed=1, options={"context": {"observation": real}})
    assert np.array_equal(observation, real[0])
    frames = np.stack([real[0], real[0] + 1])
    observation, _ = env.reset(options={"context": {"observation": frames, "action": [2]}})
    assert np.array_equal(observation, frames[1])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"context": 5}, "context: a mapping"),
        ({"context": {"observation": np.zeros(4)}}, "observation: frames need one axis"),
        ({"context": {"observation": np.zeros((2, 4))}}, "action: .* expected"),
        ({"context": {"observation": np.full((1, 4), np.nan)}}, "observation: holds nan"),
        ({"context": {"observation": np.zeros((1, 4)), "actoin": []}}, "context: a mapping"),
        ({"wind": 3}, "wind"),
        ({"wind": object()}, "object is no JSON value"),
    ],
)
def test_options_that_mean_nothing_are_refused(make, options, words):
    with pytest.raises(InvalidInput, match=words):
        make().reset(options=options)


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_a_seed_that_is_none_is_refused(make, seed):
    with pytest.raises((InvalidInput, gym.error.Error), match=r"[sS]eed"):
        make().reset(seed=seed)


def test_a_picture_where_the_world_has_one(make):
    env = make(render_mode="rgb_array")
    env.reset(seed=0)
    frame = env.render()
    assert (frame.shape, frame.dtype) == ((2, 2, 3), np.uint8)


def test_no_picture_is_promised_where_there_is_none(make):
    with pytest.raises(InvalidInput, match="render_mode: 'rgb_array' was asked for; world brief has no pictures"):
        make("brief", render_mode="rgb_array")


def test_an_unknown_world_is_told_with_the_ones_there_are(make):
    with pytest.raises(UnknownWorld, match="no world 'stedy' is served here; did you mean 'steady'"):
        make("stedy")


def test_closing_twice_is_fine_and_a_closed_environment_says_so(make):
    env = make()
    env.close()
    env.close()
    with pytest.raises(SessionClosed, match="make the environment again"):
        env.reset()


def test_wrappers_of_gymnasium_work(make):
    env = gym.wrappers.RecordEpisodeStatistics(make("brief"))
    env.reset(seed=0)
    for _ in range(12):
        *_, info = env.step(1)
    assert info["episode"]["l"] == 12


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), 1e12, "5", True])
def test_a_question_with_no_time_to_wait_is_refused_before_it_is_asked(seconds):
    for ask in (lambda: get_capacity("127.0.0.1:9", "toy", seconds), lambda: get_world("127.0.0.1:9", "toy", seconds)):
        with pytest.raises(InvalidInput, match="timeout_s"):
            ask()
