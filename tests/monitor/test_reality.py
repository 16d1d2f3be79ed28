"""The real side of a probe: what is played, and which windows are cut from it."""

from __future__ import annotations

import numpy as np
import pytest

from simservice.data.collect import RealStepCounter
from simservice.data.episodes import fingerprint
from simservice.errors import RealStepBudgetExceeded
from simservice.monitor.reality import ProbeConfig, Reality, cut_windows, play, real_traces, single_steps, suite
from simservice.types import Episode


def episode(length: int, terminated: bool = False, truncated: bool = False) -> Episode:
    """One that counts its own steps."""
    return Episode(
        observation={"observation": np.arange(length + 1, dtype=np.float32)[:, None]},
        action={"action": np.arange(length)},
        reward=np.arange(length, dtype=float),
        terminated=terminated,
        truncated=truncated,
    )


def test_windows_hold_the_episodes_steps_and_end_where_it_ended():
    episodes = [episode(30, terminated=True), episode(40, truncated=True)]
    windows = cut_windows(episodes, 60, horizon=10, seed=0)
    traces = real_traces(episodes, windows, 10)
    for window, observation, valid, terminated in zip(
        windows, traces.observation, traces.valid, traces.terminated, strict=True
    ):
        length = min(10, len(episodes[window.episode]) - window.start)
        assert observation[: length + 1, 0].tolist() == list(range(window.start, window.start + length + 1))
        assert valid.sum() == length
        assert terminated.any() == (window.episode == 0 and window.start + 10 >= 30)
    assert not traces.truncated[:, :9].any()


def test_a_time_limit_shortens_no_window():
    episodes = [episode(40, truncated=True), episode(40), episode(40, terminated=True)]
    traces = real_traces(episodes, cut_windows(episodes, 90, horizon=15, seed=0), 15)
    assert traces.valid[traces.unit < 2].all()
    assert not traces.valid[traces.unit == 2].all()


def test_every_episode_gives_as_many_windows_as_it_can_and_none_twice():
    episodes = [episode(5, terminated=True), *(episode(100, truncated=True) for _ in range(3))]
    windows = cut_windows(episodes, 80, horizon=10, seed=0)
    assert len(set(windows)) == len(windows)
    assert np.bincount([window.episode for window in windows]).tolist() == [5, 20, 20, 20]
    assert windows == cut_windows(episodes, 80, horizon=10, seed=0)


def test_single_steps_hold_the_one_that_ended_each_episode():
    episodes = [episode(30, terminated=True), episode(1, terminated=True), episode(20, truncated=True)]
    steps = single_steps(episodes, seed=0)
    traces = real_traces(episodes, steps, 1)
    assert traces.valid.all()
    assert traces.terminated.sum() == 2
    assert traces.truncated.sum() == 1


def test_the_same_probe_plays_the_same_episodes_and_changed_gravity_plays_others():
    def played(**changes):
        config = ProbeConfig(env_id="CartPole-v1", episodes=3, **changes)
        reality = Reality.of(config)
        return [
            one
            for name, make in suite(reality, None).items()
            for one in play(config, reality, name, make(0), RealStepCounter())
        ]

    first = played()
    assert {one.policy for one in first} == {"random", "sticky"}
    assert fingerprint(first) == fingerprint(played())
    assert fingerprint(first) != fingerprint(played(attributes={"gravity": 12}))
    assert fingerprint(first) != fingerprint(played(seed=1))


def test_a_given_policy_joins_the_mixture_pure_and_with_exploration():
    reality = Reality.of(ProbeConfig(env_id="CartPole-v1"))
    policies = suite(reality, lambda observation: np.zeros(len(observation), dtype=np.int64))
    assert list(policies) == ["random", "sticky", "policy", "policy-epsilon0.3"]
    actions = policies["policy-epsilon0.3"](0)(np.zeros((2000, 4), np.float32))
    assert 0.1 < actions.mean() < 0.2


def test_the_smaller_of_both_limits_holds():
    assert Reality.of(ProbeConfig(env_id="CartPole-v1")).limit == 500
    assert Reality.of(ProbeConfig(env_id="CartPole-v1", max_episode_steps=60)).limit == 60
    assert Reality.of(ProbeConfig(env_id="CartPole-v1")).reward_threshold == 475


def test_real_steps_stay_within_the_budget():
    config = ProbeConfig(env_id="CartPole-v1", episodes=50)
    reality = Reality.of(config)
    counter = RealStepCounter(budget=100)
    with pytest.raises(RealStepBudgetExceeded):
        play(config, reality, "random", suite(reality, None)["random"](0), counter)
    assert counter.steps == 100
