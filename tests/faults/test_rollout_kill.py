"""A replica that dies in mid-rollout: RLlib's runner gets the episodes of the undisturbed run, a little later."""

import os
import signal

import numpy as np
import pytest
import torch
from test_replica_kill import busy_pids

from simservice.client.rllib import PPOSettings, RolloutEnvRunner, served_config

pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning"), pytest.mark.filterwarnings("ignore:.*gputil.*")]

LANES, STEPS = 64, 400


def sampled(ray_service, weights, strike):
    """Three samples of a seeded runner, whose replica is struck as the second's first part arrives; and its reconnects.

    A part is a sixth of a rollout: the replica has the others still to play, or to send.
    """
    config = served_config(
        ray_service.address, "noisy", PPOSettings(num_envs=LANES, hidden=(16,)), seed=5, rollouts=True
    )
    runner = RolloutEnvRunner(config=config)
    runner.set_state({"rl_module": weights})
    session = runner.env.unwrapped.session
    token, episodes = session.token, []
    for number in range(3):
        if number == 1:
            session._hear = struck(session._hear, strike, *busy_pids(ray_service))
        episodes += runner.sample(num_timesteps=LANES * STEPS)
    assert runner.env.unwrapped.session.token == token
    reconnects = session.reconnects
    runner.stop()
    return episodes, reconnects


def struck(hear, strike, pid):
    """Hears as before, and strikes the process before it hears the first part."""
    left = [pid]

    def first(part):
        if left:
            strike(left.pop())
        hear(part)

    return first


def test_a_rollout_is_played_to_its_end_by_another_replica(ray_service):
    config = served_config(ray_service.address, "noisy", PPOSettings(num_envs=1, hidden=(16,)), rollouts=True)
    torch.manual_seed(0)
    model = RolloutEnvRunner(config=config)
    weights = model.module.get_state()
    model.stop()
    expected, undisturbed = sampled(ray_service, weights, lambda pid: None)
    found, reconnects = sampled(ray_service, weights, lambda pid: os.kill(pid, signal.SIGKILL))
    assert undisturbed == 0 and reconnects > 0
    assert len(found) == len(expected)
    for mine, other in zip(found, expected, strict=True):
        assert (mine.t_started, mine.is_terminated, mine.is_truncated) == (
            other.t_started,
            other.is_terminated,
            other.is_truncated,
        )
        for name in ("observations", "actions", "rewards"):
            np.testing.assert_array_equal(getattr(mine, name).data, getattr(other, name).data)
