"""Rows become the episodes that RLlib's own runner makes of the same steps, whatever way they are cut."""

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from rllib_modules import assert_same

from simservice.client.rllib.episodes import EpisodeCutter, Rows

pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning"), pytest.mark.filterwarnings("ignore:.*gputil.*")]

OBSERVATION, ACTION = spaces.Box(-100, 100, (2,), np.float32), spaces.Discrete(3)
LANES = 5


class Counting(gym.vector.VectorEnv):
    """Lanes that count their steps and end after 1 to 9 of them, by termination or truncation; keeps every row."""

    def __init__(self, num_envs=LANES):
        self.metadata = {"autoreset_mode": gym.vector.AutoresetMode.NEXT_STEP}
        self.num_envs = num_envs
        self.single_observation_space, self.single_action_space = OBSERVATION, ACTION
        self.observation_space = gym.vector.utils.batch_space(OBSERVATION, num_envs)
        self.action_space = gym.vector.utils.batch_space(ACTION, num_envs)
        self.generator = np.random.default_rng(0)
        self.rows = []

    def reset(self, *, seed=None, options=None):
        self.age = np.zeros(self.num_envs, int)
        self.ended = np.zeros(self.num_envs, bool)
        self.first = self._look()
        return self.first.copy(), {}

    def step(self, actions):
        fresh = self.ended
        self.age = np.where(fresh, 0, self.age + 1)
        last = ~fresh & (self.age >= self.generator.integers(1, 10, self.num_envs))
        terminated = last & (self.generator.random(self.num_envs) < 0.5)
        self.ended = last
        reward = np.where(fresh, 0.0, self.generator.random(self.num_envs))
        row = self._look(), np.array(actions), reward, terminated, last & ~terminated
        self.rows.append(row)
        return *row[:1], reward, terminated, last & ~terminated, {"luck": reward + 0.5}

    def _look(self):
        return np.stack([np.arange(self.num_envs), self.age], axis=1).astype(np.float32)


gym.register("Counting-v0", vector_entry_point=Counting)


@pytest.fixture
def runner():
    config = (
        PPOConfig()
        .environment("Counting-v0")
        .env_runners(num_envs_per_env_runner=LANES, gym_env_vectorize_mode="vector_entry_point")
    )
    runner = SingleAgentEnvRunner(config=config)
    yield runner
    runner.stop()


def recorded(env):
    """The rows since the last call, as a rollout would give them."""
    observation, action, reward, terminated, truncated = (np.stack(column) for column in zip(*env.rows, strict=True))
    env.rows.clear()
    luck = reward + 0.5
    return Rows(observation, action, reward, terminated, truncated, {"squared": action**2.0}, {"luck": luck})


def assert_squared(episodes):
    """What the policy gave beside its actions stays with them."""
    for episode in episodes:
        squared = episode.extra_model_outputs["squared"]
        np.testing.assert_array_equal(squared.data, episode.actions.data**2.0)
        assert squared.lookback == episode.actions.lookback


@pytest.mark.parametrize("sizes", [[40], [5, 40, 5, 200, 15]])
def test_rows_become_the_episodes_of_rllibs_own_runner(runner, sizes):
    env = runner.env.unwrapped
    cutter, ids, theirs = None, {}, {}
    for size in sizes:
        expected = runner.sample(num_timesteps=size, random_actions=True)
        if cutter is None:
            cutter = EpisodeCutter(LANES, OBSERVATION, ACTION)
            cutter.begin(env.first)
        cutter.add(recorded(env))
        cut = cutter.cut()
        assert_same(cut.done + cut.ongoing, expected)
        assert_squared(cut.done + cut.ongoing)
        for mine, other in zip(cut.done + cut.ongoing, expected, strict=True):
            assert ids.setdefault(other.id_, mine.id_) == mine.id_  # a chunk goes on under the id of its episode
            length, total = theirs.get(other.id_, (0, 0.0))
            theirs[other.id_] = length + len(other), total + other.get_return()
        whole = [theirs[other.id_] for other in expected if other.is_done]
        assert cut.lengths.tolist() == [length for length, _ in whole]
        np.testing.assert_allclose(cut.returns, [total for _, total in whole])
    assert len(set(ids.values())) == len(ids)


def test_parts_of_a_rollout_become_what_the_whole_becomes(runner):
    runner.sample(num_timesteps=200, random_actions=True)
    rows = recorded(runner.env.unwrapped)
    cuts = []
    for parts in ([rows], [part(rows, 0, 1), part(rows, 1, 30), part(rows, 30, len(rows))]):
        cutter = EpisodeCutter(LANES, OBSERVATION, ACTION)
        cutter.begin(runner.env.unwrapped.first)
        for some in parts:
            cutter.add(some)
        cuts.append(cutter.cut())
    assert_same(cuts[1].done + cuts[1].ongoing, cuts[0].done + cuts[0].ongoing)


def part(rows, begin, end):
    """Some of the rows."""
    where = slice(begin, end)
    single = [getattr(rows, name)[where] for name in ("observation", "action", "reward", "terminated", "truncated")]
    several = [{name: array[where] for name, array in getattr(rows, field).items()} for field in ("outputs", "infos")]
    return Rows(*single, *several)


def test_a_step_counts_unless_its_row_begins_an_episode(runner):
    runner.sample(num_timesteps=60, random_actions=True)
    rows = recorded(runner.env.unwrapped)
    cutter = EpisodeCutter(LANES, OBSERVATION, ACTION)
    cutter.begin(runner.env.unwrapped.first)
    counted = [cutter.add(part(rows, begin, end)) for begin, end in ((0, 7), (7, 8), (8, len(rows)))]
    cut = cutter.cut()
    steps, ends = map(sum, zip(*counted, strict=True))
    assert steps == sum(len(episode) for episode in cut.done + cut.ongoing)
    assert ends == len(cut.done)
    assert cutter.cut().done == []  # nothing came since


def test_infos_that_come_and_go_stay_where_they_were(runner):
    runner.sample(num_timesteps=60, random_actions=True)
    rows = recorded(runner.env.unwrapped)
    cutter = EpisodeCutter(LANES, OBSERVATION, ACTION)
    cutter.begin(runner.env.unwrapped.first)
    strange = rows.reward > 0.9
    for begin, end, infos in ((0, 3, {}), (3, 6, {"strange": strange[3:6]}), (6, len(rows), {})):
        cutter.add(replace(part(rows, begin, end), infos=infos))
    told = sum(info.get("strange", False) for episode in episodes_of(cutter.cut()) for info in episode.infos.data)
    assert told == strange[3:6].sum() > 0


def episodes_of(cut):
    """Done ones and chunks."""
    return cut.done + cut.ongoing


def test_longer_lookbacks_reach_over_several_cuts(runner):
    runner.config.episode_lookback_horizon = 3
    cutter = None
    for size in [5, 5, 5, 25, 25]:
        expected = runner.sample(num_timesteps=size, random_actions=True)
        env = runner.env.unwrapped
        if cutter is None:
            cutter = EpisodeCutter(LANES, OBSERVATION, ACTION, lookback=3)
            cutter.begin(env.first)
        cutter.add(recorded(env))
        cut = cutter.cut()
        assert_same(cut.done + cut.ongoing, expected)
        assert_squared(cut.done + cut.ongoing)


def test_episodes_do_not_share_what_a_user_may_write_into(runner):
    runner.sample(num_timesteps=60, random_actions=True)
    cutter = EpisodeCutter(LANES, OBSERVATION, ACTION)
    cutter.begin(runner.env.unwrapped.first)
    cutter.add(recorded(runner.env.unwrapped))
    cut = cutter.cut()
    first, second = cut.done[:2]
    first.custom_data["mine"] = True
    first.infos.data[0]["mine"] = True
    first.observations.data[:] = -1.0
    assert not second.custom_data
    assert "mine" not in second.infos.data[0]
    assert (second.observations.data >= 0).all()
    assert Columns.ACTION_LOGP not in second.extra_model_outputs
