"""RLlib's PPO over a service that keeps dying: no exception, and the return curve of the run that nothing disturbed."""

from __future__ import annotations

import os
import signal
import threading
import time

import numpy as np
from kills import the_store
from line import Line, Seen, at_least, exactly
from replicas import busiest, steps_made, wait_until_up
from stage import TENANTS

from simservice.client.rllib import PPOSettings, local_ray, served_config, train_ppo

WORLD = "cartpole"
ROUNDS = 16
SAMPLING_TIMEOUT_S = 60.0
SETTINGS = PPOSettings(total_steps=ROUNDS * PPOSettings().batch_size)


def curve(stage, seed, told, disturb=lambda number: None):
    """Mean return after each update."""
    returns = []

    def progress(made):
        returns.append(made.return_mean)
        told(f"update {len(returns)} of {ROUNDS}, mean return {made.return_mean:.0f}", len(returns) / ROUNDS)
        disturb(len(returns))

    door = {"patience_s": 120.0, "token": stage.tokens[TENANTS[0]]}
    config = served_config(stage.ray.address, WORLD, SETTINGS, seed=seed, env_config=door)
    train_ppo(config, SETTINGS, progress=progress)
    return np.array(returns)


class Faults:
    """Kills three replicas and the store, each in the middle of sampling after some update."""

    def __init__(self, service):
        self.service, self.killed, self.problems = service, [], []
        self._due = {3: _replica, 6: _replica, 9: the_store, 12: _replica}
        self._threads = []

    def __call__(self, number):
        """Called between two updates; the next sampling is what is struck."""
        if (fault := self._due.get(number)) is not None:
            wait_until_up(self.service, WORLD, 2, killed=self.killed)
            words = (fault(self.service), steps_made(self.service, WORLD))
            self._threads.append(threading.Thread(target=self._strike, args=words))
            self._threads[-1].start()

    def join(self):
        """Waits for the last one."""
        for thread in self._threads:
            thread.join()

    def _strike(self, pid, steps):
        try:
            deadline = time.monotonic() + SAMPLING_TIMEOUT_S
            while steps_made(self.service, WORLD) <= steps:  # until RLlib samples again
                assert time.monotonic() < deadline, f"nothing was sampled in {SAMPLING_TIMEOUT_S:g} s"
                time.sleep(0.01)
            os.kill(pid, signal.SIGKILL)
            self.killed.append(pid)
        except Exception as error:  # told in the table
            self.problems.append(error)


def _replica(service):
    return busiest(service, WORLD)


def ppo(stage, options, told):
    stage.ray.deploy(stage.cartpole, (2, 2))
    faults = Faults(stage.ray)

    def part(number):
        return lambda words, share: told(words, (number + share) / 3)

    with local_ray():
        calm = curve(stage, options.seed, part(0))
        other = curve(stage, options.seed + 1, part(1))
        found = curve(stage, options.seed, part(2), faults)
    faults.join()
    stage.ray.remove(WORLD)
    noise, gap = np.abs(other - calm), np.abs(found - calm)
    yield exactly("kills of three replicas and one store", len(faults.killed), 4, *map(str, faults.problems[:1]))
    yield exactly("updates made, no exception", len(found), ROUNDS)
    yield Seen(
        "mean |difference| of the return curve from the undisturbed run's",
        f"<= {np.nanmean(noise):.1f}, that of another seed",
        "none: update for update the same" if np.nanmax(gap) == 0 else f"{np.nanmean(gap):.2f}",
        bool(np.nanmean(gap) <= np.nanmean(noise)),
        float(np.nanmean(gap)),
    )
    yield at_least("last mean return", float(found[-1]), 0.5 * float(calm[-1]))


LINES = (Line("ppo", "RLlib's PPO through 3 replica kills and a store restart", ppo),)
