"""Begins rollouts: refuses what cannot be, copies the lanes in a tick, and has the copies played on a thread.

Called from the engine's event loop.
"""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import torch

from simservice.engine.actors import Actor, Pilot, Script
from simservice.engine.control import Control
from simservice.engine.player import Play, play
from simservice.engine.policies import RolloutPolicy
from simservice.engine.refusals import misshapen, played_lanes
from simservice.engine.requests import Borrowed
from simservice.engine.rollouts import Rollout
from simservice.engine.stages import Stages
from simservice.engine.tick import Ticker
from simservice.errors import InternalError, InvalidInput, RolloutLimitExceeded, SimserviceError
from simservice.sessions.settings import RolloutLimits
from simservice.types import SEED_LIMIT, Array, Imagine, Leaf, leaves_of
from simservice.worlds.world import World

MOST_ROW_BYTES = 2**28  # of one rollout's lanes, where the arena is smaller
AT_ONCE = 8  # rollouts that play; more wait for one of them to end
STEP_BYTES = 8 + 1 + 1 + 4  # reward, ends and uncertainty of one lane's step


class Imagination:
    """The rollouts of one engine."""

    def __init__(
        self,
        world: World,
        control: Control,
        ticker: Ticker,
        limits: RolloutLimits,
        stages: Stages,
    ) -> None:
        self._world = world
        self._control = control
        self._ticker = ticker
        self._limits = limits
        self._stages = stages
        self._playing: dict[int, Rollout] = {}  # by the session's first lane
        self._threads: ThreadPoolExecutor | None = None

    def begin(
        self,
        lanes: Array,
        command: Imagine,
        policy: RolloutPolicy | None,
        before: bytes | None,
        borrow: Callable[[Array], asyncio.Future[Borrowed]],
    ) -> Rollout:
        """A rollout under way; raises what is wrong with it."""
        spec = self._world.spec
        played = played_lanes(self._control, lanes, command, self._limits)
        count = len(played) * command.copies
        actor: Actor
        if command.actions is not None:
            problem = misshapen(command.actions, leaves_of(spec.action_space, "action"), (command.steps, count))
            if problem is not None:
                raise problem
            actor = Script(command.actions)
        elif command.policy is not None and policy is not None:
            actor = Pilot(policy, command.policy, spec, command.steps)
        else:
            raise InvalidInput("driver", "a rollout has actions, or a policy")
        step_bytes = count * (STEP_BYTES + actor.lane_bytes + self._lane_bytes(command))
        if step_bytes * command.steps > self._limits.bytes:
            raise RolloutLimitExceeded("bytes", asked=step_bytes * command.steps, most=self._limits.bytes)
        seeds = command.seeds if command.seeds is not None else _drawn(count) if command.fresh else None
        rollout = Rollout(partial(self._ended, int(lanes[0])))
        self._playing[int(lanes[0])] = rollout
        self._ticker.rollouts += 1  # before a tick can have lent the lanes
        borrowed = borrow(played)
        given = partial(self._given, command, before, actor, seeds, step_bytes)
        borrowed.add_done_callback(partial(self._play, rollout, given))
        return rollout

    def stop(self, lanes: Array, error: SimserviceError | None = None) -> None:
        """Ends the rollout of a session's lanes, if one is under way."""
        rollout = self._playing.get(int(lanes[0]))
        if rollout is not None:
            rollout.stop(error)

    def close(self) -> None:
        """Ends all of them; returns when their threads have ended."""
        for rollout in list(self._playing.values()):
            rollout.stop(InternalError(f"the engine of {self._world.spec.full_name} is stopped"))
        if self._threads is not None:
            self._threads.shutdown(wait=True)

    def _given(
        self, command: Imagine, before: bytes | None, actor: Actor, seeds: Array | None, step_bytes: int, lent: Borrowed
    ) -> Play:
        turns = self._ticker.turns
        return Play(self._world, command, lent, before, actor, seeds, self._stages, turns, step_bytes)

    def _play(self, rollout: Rollout, given: Callable[[Borrowed], Play], borrowed: asyncio.Future[Borrowed]) -> None:
        """Called when the lanes have been copied; then close() may have ended the threads."""
        failure = borrowed.exception() or rollout.stopped
        if failure is not None:
            rollout.fail(failure)
            return
        if self._threads is None:
            self._threads = ThreadPoolExecutor(AT_ONCE, "rollout", initializer=self._pin)
        self._threads.submit(rollout.run, partial(play, given=given(borrowed.result())))

    def _pin(self) -> None:
        torch.set_num_threads(1)  # torch counts them by thread; see the engine's own

    def _ended(self, key: int, rollout: Rollout) -> None:
        self._ticker.rollouts -= 1
        if self._playing.get(key) is rollout:
            del self._playing[key]

    def _lane_bytes(self, command: Imagine) -> int:
        spec = self._world.spec
        leaves: list[Leaf] = []
        if command.observation:
            leaves += leaves_of(spec.observation_space, "observation")
        if command.action and command.policy is not None:
            leaves += leaves_of(spec.action_space, "action")
        return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)


def _drawn(count: int) -> Array:
    return (np.frombuffer(secrets.token_bytes(8 * count), dtype="<u8") % SEED_LIMIT).astype(np.int64)
