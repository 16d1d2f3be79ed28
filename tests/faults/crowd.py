"""Many sessions that play the ledger world at once and write down all that they ask and are answered.

They go on only as far as they are allowed, so that faults fall between steps and into them, and not after the end.
"""

from __future__ import annotations

import itertools
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from history import Entry, digest
from ledger import ACTIONS, AFTER, BEFORE, COUNT, NUMBERS, entered

from simservice.client.session import RemoteSession


@dataclass
class Played:
    """What one session saw."""

    numbers: list[np.ndarray[Any, Any]] = field(default_factory=list)  # (lanes, NUMBERS) a request
    rest: list[bytes] = field(default_factory=list)  # a digest of everything else in a reply
    entries: list[Entry] = field(default_factory=list)
    stalls_s: list[float] = field(default_factory=list)  # of steps whose connection broke
    steps_s: list[float] = field(default_factory=list)  # of the others
    reconnects: int = 0
    failure: BaseException | None = None


class Crowd:
    """Sessions of their own threads; each step's actions are a function of seed, session and step.

    `tokens` are those of tenants, by name, who have the sessions in turn; without any everybody is nobody.
    """

    def __init__(self, address, *, sessions, lanes, steps, seed=0, world="ledger", patience_s=60.0, tokens=None):
        self.address, self.world, self.patience_s = address, world, patience_s
        self.sessions, self.lanes, self.steps, self.seed = sessions, lanes, steps, seed
        self._tenants = list((tokens or {"": None}).items())
        self.played = [Played() for _ in range(sessions)]
        self._allowed = 0
        self._done = [0] * sessions
        self._moved = threading.Condition()
        self._threads = [threading.Thread(target=self._play, args=(place,), daemon=True) for place in range(sessions)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *failure):
        self.allow(self.steps)
        for thread in self._threads:
            thread.join()

    def allow(self, steps):
        """Every session may go on until so many of its steps are done."""
        with self._moved:
            self._allowed = max(self._allowed, min(steps, self.steps))
            self._moved.notify_all()

    def wait(self, steps, timeout_s=180.0):
        """Returns when the sessions have done so many steps, all together."""
        self._wait_for(lambda: sum(self._done) >= steps, timeout_s)

    def wait_for_each(self, steps, timeout_s=180.0):
        """Returns when every session has done so many steps."""
        self._wait_for(lambda: min(self._done) >= steps, timeout_s)

    def _wait_for(self, reached, timeout_s):
        with self._moved:
            done = self._moved.wait_for(lambda: reached() or self.failures, timeout_s)
        assert done, f"the sessions have done {self._done} steps in {timeout_s:g} s"

    @property
    def failures(self):
        """What reached a user's loop, by session."""
        return [played.failure for played in self.played if played.failure is not None]

    @property
    def entries(self):
        """The history of all sessions."""
        return list(itertools.chain.from_iterable(played.entries for played in self.played))

    # ---- one session -----------------------------------------------------------------------------------------------

    def _play(self, place):
        played = self.played[place]
        luck = np.random.default_rng((self.seed, place))
        tenant, token = self._tenants[place % len(self._tenants)]
        try:
            session = RemoteSession(
                self.address,
                self.world,
                num_envs=self.lanes,
                patience_s=self.patience_s,
                connect_timeout_s=30.0,
                token=token,
            )
            self._episode(session, played, luck, place, tenant)
            session.close()
            played.entries.append(self._entry(session, "close", tenant=tenant, answered=b""))
        except BaseException as error:
            played.failure = error
        finally:
            with self._moved:
                self._done[place] = max(self._done[place], self.steps if played.failure else 0)
                self._moved.notify_all()

    def _episode(self, session, played, luck, place, tenant):
        seeds = luck.integers(0, 2**40, self.lanes)
        for step in range(self.steps + 1):
            with self._moved:
                self._moved.wait_for(lambda step=step: step <= self._allowed)
            action = luck.integers(0, ACTIONS, self.lanes)
            before, began = session.reconnects, time.monotonic()
            result = session.step({"action": action}) if step else session.reset(seeds=seeds)
            ended = time.monotonic()
            played.reconnects = session.reconnects
            if step:
                (played.stalls_s if session.reconnects > before else played.steps_s).append(ended - began)
            self._write_down(session, played, result, action if step else None, (began, ended), tenant)
            with self._moved:
                self._done[place] = step
                self._moved.notify_all()

    def _write_down(self, session, played, result, action, times, tenant):
        observation = result.observation["observation"]
        books = observation[:, NUMBERS:].astype(np.int64)
        before, after, count = (books[:, column - NUMBERS] for column in (BEFORE, AFTER, COUNT))
        others = [] if action is None else [result.terminated, result.truncated]
        ends = np.zeros(self.lanes, bool) if action is None else result.terminated | result.truncated
        fresh = count == 0
        promised = None if action is None else entered(before, action, count - 1)
        played.numbers.append(observation[:, :NUMBERS])
        played.rest.append(digest(books, *others))
        played.entries.append(
            self._entry(
                session,
                "reset" if action is None else "step",
                tenant=tenant,
                sequence=session.sequence,
                asked=digest("reset" if action is None else action),
                answered=digest(observation, *others, *([] if action is None else [result.reward])),
                began_s=times[0],
                ended_s=times[1],
                before=before,
                after=after,
                promised=promised,
                fresh=fresh,
                over=ends,
                owners=frozenset(after[fresh].tolist()),
            )
        )

    @staticmethod
    def _entry(session, call, **fields):
        now = time.monotonic()
        return Entry(session=session.token, call=call, **{"began_s": now, "ended_s": now, **fields})


def difference(found: list[Played], wanted: list[Played]) -> float:
    """The largest difference between two runs of the same seeds; infinite where anything but a rounding differs."""
    largest = 0.0
    for one, other in zip(found, wanted, strict=True):
        if one.rest != other.rest or len(one.numbers) != len(other.numbers):
            return float("inf")
        if one.numbers:
            largest = max(largest, float(np.abs(np.array(one.numbers) - np.array(other.numbers)).max()))
    return largest
