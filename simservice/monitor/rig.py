"""The real environment in a process of its own: one that hangs, crashes or leaks cannot take the monitor with it.

A probe is an episode from a fresh reset, cut after some steps, of one policy of a fixed mixture. Its number decides
everything: policy, reset seed and the policy's luck. So a probe that has to be played again is the same probe.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import gymnasium as gym
import numpy as np

from simservice.client.policy import load_policy
from simservice.data.collect import RealStepCounter, play_episode
from simservice.data.environments import close, make_environment
from simservice.errors import InvalidInput, RealEnvironmentFailed, SimserviceError
from simservice.monitor.reality import ProbeConfig, Reality, suite
from simservice.types import Episode

MOST_AT_ONCE = 32
"""Probes of one request, each of which has its own deadline's worth of time."""


@dataclass(frozen=True, kw_only=True)
class RigConfig:
    """Which environment is real, who acts in it, and how long it may take."""

    env_id: str
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    policy: str | None = None  # a policy file that joins the mixture, pure and with 30 % random actions
    horizon: int = 20
    start_timeout_s: float = 60.0
    probe_timeout_s: float = 60.0
    seed: int = 0


@dataclass(frozen=True)
class Play:
    """What to play: one episode of a policy of the mixture."""

    policy: str
    seed: int


class RealRig:
    """Plays probes in the child process, which is started when it is needed and ended when it does not answer."""

    def __init__(self, config: RigConfig) -> None:
        self.config = config
        self.steps = 0  # real steps so far
        self._process: Any = None
        self._connection: Connection | None = None
        self._spaces: tuple[gym.Space[Any], gym.Space[Any]] | None = None
        self._policies: tuple[str, ...] = ()

    @property
    def policies(self) -> tuple[str, ...]:
        """The mixture, by name, in its order."""
        self._start()
        return self._policies

    @property
    def spaces(self) -> tuple[gym.Space[Any], gym.Space[Any]]:
        """Of observations and actions."""
        self._start()
        assert self._spaces is not None
        return self._spaces

    @property
    def pid(self) -> int | None:
        """Of the child, while it runs."""
        return None if self._process is None else self._process.pid

    def plan(self, number: int) -> Play:
        """What the probe of this number plays: policies take turns."""
        names = self.policies
        seed = int(np.random.SeedSequence([self.config.seed, number]).generate_state(1, np.uint64)[0] >> 33)
        return Play(names[number % len(names)], seed)

    def play(self, plays: Sequence[Play]) -> list[Episode]:
        """The episodes. RealEnvironmentFailed when they did not come in time, or when the environment raised."""
        episodes: list[Episode] = []
        for first in range(0, len(plays), MOST_AT_ONCE):
            some = list(plays[first : first + MOST_AT_ONCE])
            self._start()
            found = self._ask(some, self.config.probe_timeout_s * len(some))
            episodes += found
            self.steps += sum(map(len, found))
        return episodes

    def replay(self, seed: int, actions: Sequence[Any]) -> Episode:
        """The episode that a reset seed and a list of actions give: the same each time, where reality is repeatable."""
        self._start()
        episode: Episode = self._ask([(seed, list(actions))], self.config.probe_timeout_s)[0]
        self.steps += len(episode)
        return episode

    def kill(self) -> None:
        """Ends the child from another thread: whoever waits for it hears of it at once."""
        process = self._process
        if process is not None:
            with contextlib.suppress(ValueError):  # closed meanwhile
                process.kill()

    def close(self) -> None:
        """Ends the child. The next probe starts another."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process.close()
            assert self._connection is not None
            self._connection.close()
        self._process = self._connection = None

    def _start(self) -> None:
        if self._process is not None:
            return
        context = multiprocessing.get_context("spawn")  # a copy of a process with threads and gRPC would not work
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self.config), daemon=True)
        self._process.start()
        theirs.close()
        policies, *spaces = self._answer(self.config.start_timeout_s)
        self._policies, self._spaces = policies, (spaces[0], spaces[1])

    def _ask(self, request: Any, timeout_s: float) -> Any:
        assert self._connection is not None
        try:
            self._connection.send(request)
        except OSError as error:
            self.close()
            raise RealEnvironmentFailed(self.config.env_id, "its process has ended") from error
        return self._answer(timeout_s)

    def _answer(self, timeout_s: float) -> Any:
        assert self._connection is not None
        began = time.monotonic()
        try:
            answer = self._connection.recv() if self._connection.poll(timeout_s) else None
        except (EOFError, OSError) as error:
            self.close()
            spent = time.monotonic() - began
            raise RealEnvironmentFailed(self.config.env_id, f"its process ended after {spent:.1f} s") from error
        if answer is None:
            self.close()
            raise RealEnvironmentFailed(self.config.env_id, f"no answer within {timeout_s:g} s")
        if isinstance(answer, Exception):
            self.close()
            raise answer
        return answer


def _serve(connection: Connection, config: RigConfig) -> None:
    """The child: one environment, kept open."""
    with contextlib.suppress(KeyboardInterrupt, EOFError, BrokenPipeError):
        try:
            environment = make_environment(config.env_id, config.env_kwargs, config.attributes)
            reality = Reality.of(
                ProbeConfig(env_id=config.env_id, env_kwargs=config.env_kwargs, attributes=config.attributes)
            )
            policy = load_policy(config.policy).greedy() if config.policy is not None else None
            makers = suite(reality, policy)
        except Exception as error:
            connection.send(_told(config.env_id, error))
            return
        connection.send((tuple(makers), environment.observation_space, environment.action_space))
        while True:
            request = connection.recv()
            try:
                connection.send([_played(environment, makers, one, config.horizon) for one in request])
            except Exception as error:  # whatever a foreign environment raises
                connection.send(_told(config.env_id, error))
                close(environment)
                return


def _played(environment: Any, makers: Mapping[str, Any], request: Any, horizon: int) -> Episode:
    counter = RealStepCounter()
    if isinstance(request, Play):
        policy, name, seed, most = makers[request.policy](request.seed), request.policy, request.seed, horizon
    else:
        seed, actions = request
        rest = iter(actions)
        policy, name, most = (lambda _: next(rest)), "replay", len(actions)
    return play_episode(environment, policy, seed, policy_name=name, max_steps=most, counter=counter)


def _told(env_id: str, error: Exception) -> Exception:
    """An exception that the other side can rebuild."""
    if isinstance(error, SimserviceError) and not isinstance(error, InvalidInput):
        return error
    return RealEnvironmentFailed(env_id, f"{type(error).__name__}: {error}")
