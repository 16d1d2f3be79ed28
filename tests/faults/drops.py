"""A connection that drops a thousand times within one episode: between steps, in mid-request, in mid-answer."""

from __future__ import annotations

import random

import gymnasium as gym
import numpy as np
from history import digest
from ledger import ACTIONS, save_ledger
from line import Line, Seen, exactly
from local_process import LocalProcess
from relay import DOWN, UP, Relay

import simservice.client  # noqa: F401 - names simservice/World-v0 to Gymnasium

LANES = 4
LONG = 10**6  # steps of an episode: it does not end here


def episode(address, steps, seed, disturb=lambda step: None):
    """Digests of all that each step of a user's loop gives, reconnects, and what was raised.

    `steps` may be a function that tells when to end.
    """
    env = gym.make_vec(
        "simservice/World-v0",
        num_envs=LANES,
        vectorization_mode="vector_entry_point",
        address=address,
        world="ledger",
        patience_s=120.0,
    )
    luck = np.random.default_rng(seed)
    seen, raised = [digest(env.reset(seed=seed)[0])], []
    while not raised and ((len(seen) - 1 < steps) if isinstance(steps, int) else not steps()):
        disturb(len(seen))
        try:
            seen.append(digest(*env.step(luck.integers(0, ACTIONS, LANES))[:4]))
        except Exception as error:  # whatever a user's loop would have met is what is counted
            raised.append(error)
    reconnects = env.unwrapped.session.reconnects
    env.close()
    return seen, reconnects, raised


class Dropper:
    """Breaks a relay's connections again and again, in whatever way chance says."""

    def __init__(self, relay, seed, told=lambda done: None):
        self._relay, self._luck, self._told = relay, random.Random(seed), told

    def __call__(self, step):
        self._told(self._relay.drops)
        if self._relay.armed or self._luck.random() < 0.3:
            return
        reset = self._luck.random() < 0.5
        if self._luck.random() < 0.25:
            self._relay.cut(reset=reset)
        else:
            self._relay.cut_after(self._luck.randrange(160), self._luck.choice((UP, DOWN)), reset=reset)


def drops(stage, options, told):
    count = 100 if options.short else 1_000
    folder = save_ledger(stage.folder / "long" / "ledger", max_episode_steps=LONG)
    with LocalProcess(folder) as server:
        with Relay(server.address) as relay:
            dropper = Dropper(relay, options.seed, lambda done: told(f"{done} of {count} drops", 0.9 * done / count))
            found, reconnects, raised = episode(relay.address, lambda: relay.drops >= count, options.seed, dropper)
            dropped = relay.drops
        told("the undisturbed run", 0.95)
        wanted, *_ = episode(server.address, len(found) - 1, options.seed)
    first = next((step for step, pair in enumerate(zip(found, wanted, strict=True)) if pair[0] != pair[1]), None)
    yield Seen(
        "drops in one episode", f">= {count:,}", f"{dropped:,} in {len(found):,} steps", dropped >= count, dropped
    )
    yield Seen(
        "the session went on after", f">= {count // 2:,}", f"{reconnects:,}", reconnects >= count // 2, reconnects
    )
    yield exactly("exceptions in the user's loop", len(raised), 0, *map(str, raised))
    yield Seen(
        "trajectory", "bit for bit the same", "the same" if first is None else f"other at {first}", first is None
    )


LINES = (Line("drops", "1,000 dropped connections within one episode", drops),)
