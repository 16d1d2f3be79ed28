"""Does one tick: the requests chosen for it, each answered by a result or an error. Knows no thread, no event loop."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

import numpy as np

from simservice.engine.arena import Arena
from simservice.engine.control import Control
from simservice.engine.episodes import Episodes
from simservice.engine.requests import Borrowed, Copy, Request
from simservice.engine.runner import Runner
from simservice.engine.snapshot import CACHE, pack, unpack
from simservice.engine.turns import Turns
from simservice.errors import DeadlineExceeded, InternalError, NeedsReset, SimserviceError
from simservice.types import Array

log = logging.getLogger(__name__)

RECENT = 0.2  # weight of the newest tick in the running mean
SAMPLED = 8  # one tick in so many is measured for it: the clock of processor time is a system call


class Ticker:
    """Ticks over one world's lanes. Whoever calls do() alone touches rows and control columns until it returns."""

    def __init__(self, runner: Runner, arena: Arena, control: Control, name: str) -> None:
        self.name = name
        self.work_s = 0.0  # processor time a tick took lately: what others on the machine do is left out
        self.abandoned: set[int] = set()  # first lanes of requests that nobody waits for any more
        self.turns = Turns()
        self.rollouts = 0  # under way: then ticks take turns with them
        self._runner = runner
        self._arena = arena
        self._control = control
        self._stats = runner.stats
        self._episodes = Episodes(runner, control)

    def do(self, requests: Sequence[Request]) -> None:
        """All of them, whose lanes are disjoint: steps in one batch, the others one by one.

        A rollout that has been counted calls the world only after a later tick has handed it its rows, so a tick that
        saw none has no need to take turns.
        """
        if not self.rollouts:
            self._do(requests)
            return
        self.turns.begin("tick")
        try:
            self._do(requests)
        finally:
            self.turns.end()

    def _do(self, requests: Sequence[Request]) -> None:
        began = time.perf_counter()
        worked = 0.0 if self._stats.ticks % SAMPLED else time.thread_time()
        if self.abandoned:
            requests = [request for request in requests if not self._dropped(request)]
        steps = [request for request in requests if request.kind == "step"]
        if steps:
            self._guarded(steps, self._episodes.step)
        if len(steps) < len(requests):
            for request in requests:
                if request.kind != "step":
                    self._guarded([request], self._alone)
        if worked:
            self.work_s += RECENT * (time.thread_time() - worked - self.work_s)
        self._stats.ticks += 1
        self._stats.tick_seconds.add(time.perf_counter() - began)

    def _dropped(self, request: Request) -> bool:
        if request.kind not in ("step", "reset") or int(request.lanes[0]) not in self.abandoned:
            return False
        self._stats.dropped += 1
        request.error = DeadlineExceeded.not_begun()
        return True

    def _guarded(self, requests: Sequence[Request], work: Callable[[Sequence[Request]], None]) -> None:
        """Runs work; whatever it raises becomes the answer of these requests, never the end of the engine."""
        try:
            work(requests)
        except SimserviceError as error:
            for request in requests:
                request.error = error
        except Exception as error:
            log.exception("world %s failed in a tick of %d requests", self.name, len(requests))
            self._stats.failures += len(requests)
            for request in requests:
                request.error = InternalError(
                    f"world {self.name} failed ({type(error).__name__}); the server's log tells more"
                )

    def _alone(self, requests: Sequence[Request]) -> None:
        """A request that shares no batch."""
        (request,) = requests
        lanes = request.lanes
        if request.kind == "reset":
            self._episodes.reset(request)
        elif request.kind == "render":
            ready = self._control.ready[lanes]
            if not ready.all():
                raise NeedsReset(np.flatnonzero(~ready).tolist())
            request.result = self._runner.picture(lanes)
        elif request.kind == "snapshot":
            rows = self._arena.gather(lanes)
            world = self._runner.world
            request.result = pack(world.spec, dict(world.slots), rows, self._control.columns(lanes))
        elif request.kind == "look":
            request.result = self._episodes.look(lanes)
        elif request.kind == "copy":
            self._copy(request.command)
        elif request.kind == "borrow":
            everything = np.append(lanes, self._arena.scratch)
            request.result = Borrowed(self._arena.gather(everything), self._control.taken(everything))
        elif request.kind == "commit":
            self._commit(lanes, request.command)
        elif request.kind == "restore":
            world = self._runner.world
            rows, columns = unpack(world.spec, dict(world.slots), len(lanes), request.command)
            here = {name: row.to(self._arena.device) for name, row in rows.items()}
            self._arena.scatter(lanes, here, len(lanes))
            self._control.write(lanes, columns)
            if any(slot.role == CACHE for slot in world.slots.values()):
                self._runner.rebuild(lanes)
        else:
            self._arena.clear(lanes)

    def _commit(self, lanes: Array, played: Borrowed) -> None:
        """Lanes become what a rollout has made of them."""
        self._arena.scatter(lanes, played.rows, len(lanes))
        self._control.write(lanes, played.control.columns(np.arange(len(lanes))))

    def _copy(self, command: Copy) -> None:
        source, target, seeds = command.source, command.target, command.seeds
        self._arena.scatter(target, self._arena.gather(source), len(target))
        self._control.write(target, self._control.columns(source))
        if seeds is not None:
            self._control.reseed(target, seeds)
