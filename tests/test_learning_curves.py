"""Curves of learning: chunks become episodes, and ends become returns."""

import numpy as np
import pytest
from learning_curves import BINS, OWN, Ends, curve, difference, off_policy, settings_of
from ray.rllib.algorithms.dqn.dqn import calculate_rr_weights
from ray.rllib.env.single_agent_episode import SingleAgentEpisode


def chunk(name, rewards, begun_at=0, over=False):
    made = SingleAgentEpisode(
        id_=name,
        observations=[0] * (len(rewards) + 1),
        actions=[0] * len(rewards),
        rewards=list(rewards),
        t_started=begun_at,
        terminated=over,
        len_lookback_buffer=0,
    )
    return made


def test_chunks_of_an_episode_are_put_together():
    ends = Ends()
    ends.note([chunk("long", [1.0, 2.0]), chunk("short", [5.0], over=True)])
    ends.note([chunk("long", [4.0], begun_at=2, over=True)])
    assert ends.steps == 4
    assert ends.found == [(0, 5.0, 1), (3, 7.0, 3)]


def test_a_step_of_cartpole_is_worth_one_so_its_return_is_steps_over_ends():
    steps = BINS * 1000
    episodes = [(100, 0.0, 0)] * 50 + [(1_500, 0.0, 0)]
    found = curve({"kind": "ppo", "episodes": episodes}, steps)
    assert found[0] == 20.0
    assert found[1] == found[2] == 500.0  # one end, or none: no episode is longer


def test_elsewhere_it_is_the_mean_of_what_ended_there():
    found = curve({"kind": "sac", "episodes": [(0, -10.0, 5), (1, -20.0, 5)]}, BINS * 10)
    assert found[0] == -15.0
    assert np.isnan(found[1:]).all()


def test_a_difference_is_told_with_what_seeds_leave_open():
    generator = np.random.default_rng(0)
    ours, theirs = np.full((6, BINS), 2.0), np.full((6, BINS), 1.0)
    assert difference(ours, theirs, generator) == (1.0, 1.0, 1.0)
    middle, low, high = difference(ours + generator.normal(size=(6, 1)), theirs, generator)
    assert low < middle < high


@pytest.mark.parametrize("kind", ["dqn", "sac"])
def test_an_off_policy_training_makes_the_updates_it_is_told_to_of_batches_as_large(kind):
    config = settings_of(kind, "16x8", OWN, seed=0, address="127.0.0.1:1", steps=1000)
    assert config.total_train_batch_size == off_policy.BATCH[kind]
    assert calculate_rr_weights(config) == [1, off_policy.UPDATES_A_STEP[kind] * 16 * 8]
