"""Recording real episodes: every step is counted, and nothing is recorded that was not a transition."""

from __future__ import annotations

from collections import Counter

import gymnasium as gym
import numpy as np
import pytest

from simservice.data.collect import RealStepCounter, collect, collect_episodes
from simservice.data.environments import make_environment, parse_settings
from simservice.data.episodes import coverage, fingerprint
from simservice.errors import InvalidInput, RealStepBudgetExceeded, UnknownEnvironment, UnsupportedSpace
from simservice.types import Episode

CALLS: Counter[str] = Counter()


class Chain(gym.Env):
    """Counts its own calls; ends after `length` steps and says in its observation where in the episode it is."""

    def __init__(self, length: int = 5, both: bool = False) -> None:
        self.observation_space = gym.spaces.Dict(
            {"place": gym.spaces.Box(-1.0, 1000.0, (1,), np.float32), "even": gym.spaces.Discrete(2)}
        )
        self.action_space = gym.spaces.Tuple((gym.spaces.Discrete(3, start=-1), gym.spaces.Box(-1, 1, (2,))))
        self.length, self.both = length, both

    def _look(self):
        return {"place": np.array([self.place], np.float32), "even": np.int64(self.place % 2)}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        CALLS["reset"] += 1
        self.place = 0
        return self._look(), {}

    def step(self, action):
        CALLS["step"] += 1
        self.place += 1
        ended = self.place >= self.length
        return self._look(), float(action[0]), ended, ended and self.both, {}


@pytest.fixture(scope="module", autouse=True)
def chain():
    gym.register("tests/Chain-v0", Chain)
    gym.register("tests/Words-v0", Words)
    yield
    del gym.registry["tests/Chain-v0"], gym.registry["tests/Words-v0"]


class Words(gym.Env):
    """An observation without a fixed shape."""

    observation_space = gym.spaces.Text(5)
    action_space = gym.spaces.Discrete(2)


def same(one: list[Episode], other: list[Episode]) -> bool:
    return fingerprint(one) == fingerprint(other)


@pytest.mark.parametrize(("steps", "num_envs"), [(1, 4), (7, 3), (23, 4), (40, 8)])
def test_exactly_the_asked_steps_are_taken_and_counted(steps, num_envs):
    CALLS.clear()
    counter = RealStepCounter()
    episodes = collect("tests/Chain-v0", steps=steps, seed=0, num_envs=num_envs, budget=counter)
    assert sum(map(len, episodes)) == counter.steps == CALLS["step"] == steps
    assert counter.resets == CALLS["reset"]


def test_every_recorded_step_is_a_transition_of_one_episode():
    episodes = collect("tests/Chain-v0", steps=53, seed=0, num_envs=4)
    for episode in episodes:
        places = episode.observation["observation/place"][:, 0]
        assert places.tolist() == list(range(len(episode) + 1))  # an autoreset frame would step from 5 back to 0
    assert [len(episode) for episode in episodes if episode.terminated] == [5] * 8
    assert sum(not episode.terminated and not episode.truncated for episode in episodes) == 4


def test_terminated_and_truncated_are_kept_apart():
    (pole,) = collect_episodes("Pendulum-v1", episodes=1, seed=0)
    assert (pole.terminated, pole.truncated, len(pole)) == (False, True, 200)
    (both,) = collect_episodes("tests/Chain-v0", episodes=1, seed=0, env_kwargs={"both": True})
    assert (both.terminated, both.truncated) == (True, True)


def test_a_budget_is_never_passed_and_says_so_before_the_first_step():
    CALLS.clear()
    counter = RealStepCounter(budget=30)
    collect("tests/Chain-v0", steps=20, seed=0, num_envs=3, budget=counter)
    with pytest.raises(RealStepBudgetExceeded, match=r"11 more real steps .* 20 of the budget of 30"):
        collect("tests/Chain-v0", steps=11, seed=0, budget=counter)
    assert (CALLS["step"], counter.steps, counter.remaining) == (20, 20, 10)
    with pytest.raises(RealStepBudgetExceeded):
        collect_episodes("tests/Chain-v0", episodes=3, seed=0, budget=counter)
    assert CALLS["step"] == counter.steps == 30


@pytest.mark.parametrize("policy", ["random", "sticky"])
def test_the_same_seed_gives_the_same_episodes_and_another_seed_others(policy):
    first, again, other = (
        collect("CartPole-v1", steps=200, seed=seed, num_envs=3, policy=policy) for seed in (1, 1, 2)
    )
    assert same(first, again)
    assert not same(first, other)


def test_an_episode_can_be_replayed_from_its_seed_and_actions():
    episode = collect("CartPole-v1", steps=60, seed=4)[0]
    environment = gym.make("CartPole-v1")
    observation, _ = environment.reset(seed=episode.seed)
    seen = [observation] + [environment.step(action)[0] for action in episode.action["action"]]
    environment.close()
    np.testing.assert_array_equal(np.stack(seen), episode.observation["observation"])


def test_a_policy_acts_on_a_batch_and_epsilon_mixes_in_random_actions():
    def left(observation):
        return np.zeros(len(observation), dtype=np.int64)

    pure = collect("CartPole-v1", steps=400, seed=0, num_envs=4, policy=left)
    mixed = collect("CartPole-v1", steps=400, seed=0, num_envs=4, policy=left, epsilon=0.5)
    share = np.concatenate([episode.action["action"] for episode in mixed]).mean()
    assert sum(episode.action["action"].sum() for episode in pure) == 0
    assert 0.15 < share < 0.35
    assert (pure[0].policy, mixed[0].policy) == ("policy", "policy-epsilon0.5")


def test_an_action_outside_the_space_is_refused():
    with pytest.raises(InvalidInput, match="policy: gave the action"):
        collect("CartPole-v1", steps=5, seed=0, policy=lambda observation: np.full(len(observation), 7))


def test_whole_episodes_are_not_biased_towards_short_ones():
    episodes = collect_episodes("CartPole-v1", episodes=40, seed=0, num_envs=8)
    alone = collect_episodes("CartPole-v1", episodes=40, seed=0, num_envs=40)
    assert len(episodes) == 40
    assert all(episode.terminated for episode in episodes)
    assert abs(np.mean([len(e) for e in episodes]) - np.mean([len(e) for e in alone])) < 8


def test_an_endless_episode_is_cut_and_called_unfinished():
    episodes = collect_episodes("tests/Chain-v0", episodes=3, seed=0, max_steps=4)
    assert [(len(e), e.terminated, e.truncated) for e in episodes] == [(4, False, False)] * 3


def test_changed_gravity_changes_what_happens_and_only_that():
    def fall(**attributes):
        return collect("CartPole-v1", steps=30, seed=3, attributes=attributes)

    assert same(fall(), fall(gravity=9.8))
    assert not same(fall(), fall(gravity=12))


@pytest.mark.parametrize(
    ("attributes", "message"),
    [({"gravty": 12}, "did you mean 'gravity'"), ({"gravity": "much"}, "is the number 9.8"), ({"_x": 1}, "no such")],
)
def test_an_attribute_must_exist_and_keep_its_kind(attributes, message):
    with pytest.raises(InvalidInput, match=message):
        make_environment("CartPole-v1", {}, attributes)


@pytest.mark.parametrize(
    ("env_id", "env_kwargs", "message"),
    [
        ("CartPol-v1", {}, "did you mean 'CartPole-v1'"),
        ("CartPole-v9", {}, "did you mean 'CartPole-v1'"),
        ("no_such_module:Thing-v0", {}, "no_such_module"),
        ("CartPole-v1", {"colour": 3}, "do not fit"),
        ("Nothing-like-it", {}, "pprint_registry"),
    ],
)
def test_an_environment_that_cannot_be_made_says_why(env_id, env_kwargs, message):
    with pytest.raises(UnknownEnvironment, match=message):
        collect(env_id, steps=1, seed=0, env_kwargs=env_kwargs)


def test_observations_without_a_fixed_shape_are_refused():
    with pytest.raises(UnsupportedSpace, match="Text space"):
        collect("tests/Words-v0", steps=1, seed=0)


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1", "Acrobot-v1", "MountainCar-v0", "LunarLander-v3"])
def test_the_classic_environments_are_recorded_in_their_own_dtypes(env_id):
    episodes = collect(env_id, steps=120, seed=0, num_envs=2)
    environment = make_environment(env_id)
    observation, action = episodes[0].observation["observation"], episodes[0].action["action"]
    assert observation.dtype == environment.observation_space.dtype
    assert action.dtype == environment.action_space.dtype
    assert observation.shape == (len(episodes[0]) + 1, *environment.observation_space.shape)


def test_progress_adds_up_to_the_steps():
    told: list[int] = []
    collect("CartPole-v1", steps=50, seed=0, num_envs=4, progress=told.append)
    assert sum(told) == 50


def test_coverage_is_one_line_that_names_actions_and_ends():
    episodes = collect("CartPole-v1", steps=200, seed=0, num_envs=2)
    found = coverage(episodes, gym.spaces.Discrete(2))
    assert found.steps == 200
    assert sum(found.actions.values()) == pytest.approx(1)
    assert found.terminated + found.truncated + found.unfinished == found.episodes
    assert "\n" not in str(found)
    assert "200 steps" in str(found)
    chain = collect("tests/Chain-v0", steps=20, seed=0)
    space = make_environment("tests/Chain-v0").action_space
    assert set(coverage(chain, space).actions) == {"0=-1", "0=0", "0=1", "1[0]", "1[1]"}


def test_settings_are_read_as_literals():
    assert parse_settings(["gravity=12", "on=true", "name=moon", "box=[1, 2]"], "--set") == {
        "gravity": 12,
        "on": True,
        "name": "moon",
        "box": [1, 2],
    }
    with pytest.raises(InvalidInput, match="name=value"):
        parse_settings(["gravity"], "--set")
