"""A replica killed in mid-rollout: the user's loop sees a slow answer, and its bits are the undisturbed ones."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
from pilots import linear_model
from test_replica_kill import busy_pids

from simservice.client.policies import put_policy
from simservice.client.session import RemoteSession
from simservice.serving.service import RayService
from simservice.types import Imagine, Imagined, PolicyUse

LANES, STEPS = 64, 1200
ROLLOUTS = 3


@pytest.fixture(scope="module")
def policy(ray_service: RayService) -> PolicyUse:
    """Put once: both replicas read it from the store."""
    model = linear_model(seed=1)
    receipt = put_policy(ray_service.address, "noisy", model=model, distribution="categorical")
    return PolicyUse(content_hash=receipt.content_hash)


def play(session: RemoteSession, policy: PolicyUse, kill_in: tuple[int, ...] = (), kill=None) -> list[Imagined]:
    """Rollouts by a policy and by actions in turns; in some the third part is not yet heard when `kill` is called."""
    session.reset(seeds=np.arange(LANES, dtype=np.int64) * 7919)
    hear, found = session._hear, []
    for number in range(ROLLOUTS):
        heard = []

        def hearing(part, number=number, heard=heard):
            heard.append(part)
            if number in kill_in and len(heard) == 3:
                kill()
            hear(part)

        session._hear = hearing
        if number % 2:
            actions = {"action": np.random.default_rng(number).integers(0, 3, (STEPS, LANES))}
            command = Imagine(steps=STEPS, actions=actions, advance=True)
        else:
            command = Imagine(steps=STEPS, policy=policy, advance=True)
        found.append(session.imagine(command))
        assert len(found[-1]) == STEPS
    return found


def test_a_replica_killed_in_mid_rollout_changes_nothing(ray_service, policy):
    quiet = RemoteSession(ray_service.address, "noisy", num_envs=LANES)
    undisturbed = play(quiet, policy)
    last = quiet.step({"action": np.ones(LANES, np.int64)})
    quiet.close()
    session = RemoteSession(ray_service.address, "noisy", num_envs=LANES, patience_s=200.0)

    def kill() -> None:
        [serving] = busy_pids(ray_service)
        os.kill(serving, signal.SIGKILL)

    found = play(session, policy, kill_in=(0, 1), kill=kill)
    assert session.reconnects >= 2
    assert session.sequence == 1 + ROLLOUTS
    for one, other in zip(found, undisturbed, strict=True):
        for name in ("reward", "terminated", "truncated", "began", "log_probability"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
        np.testing.assert_array_equal(one.observation["observation"], other.observation["observation"])
    again = session.step({"action": np.ones(LANES, np.int64)})
    np.testing.assert_array_equal(again.reward, last.reward)
    session.close()
