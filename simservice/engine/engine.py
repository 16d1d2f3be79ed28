"""Steps lanes in ticks: takes every request that has arrived, does them in one tick, answers, takes the next.

While a tick runs the next batch collects itself: no timer, no least batch, and without work nothing runs. A tick of a
small world on the CPU runs on the event loop, for the way to a thread and back costs more than the tick; all others run
on a thread of their own. Knows no sessions, no wire and no replica.
"""

from __future__ import annotations

import asyncio
import logging
import math
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from gymnasium.vector import AutoresetMode

from simservice.engine.arena import Arena
from simservice.engine.batching import choose, span
from simservice.engine.control import Control
from simservice.engine.imagination import MOST_ROW_BYTES, Imagination
from simservice.engine.policies import RolloutPolicy
from simservice.engine.refusals import misshapen, reset_problem
from simservice.engine.requests import Copy, Kind, Request
from simservice.engine.rollouts import Rollout
from simservice.engine.rounding import prepared_sizes, sizes_to_try
from simservice.engine.runner import Runner
from simservice.engine.snapshot import snapshot_lane_bytes
from simservice.engine.stages import Stages
from simservice.engine.stats import EngineStats
from simservice.engine.tick import Ticker
from simservice.errors import InternalError, InvalidInput, NeedsReset, SimserviceError
from simservice.sessions.lanes import Reset, Step
from simservice.sessions.settings import ROLLOUT_LIMITS, RolloutLimits
from simservice.types import TRUSTING, Array, Caution, Imagine, Leaves, ResetResult, StepResult, leaves_of
from simservice.worlds.world import BUCKETS, World

log = logging.getLogger(__name__)

HERE_BELOW_S = 0.01
"""Ticks that took less processor time lately run on the event loop: as long as it may be kept from reading."""

SHARED_BELOW_S = 0.001
"""The same while other sessions hold lanes: from here on theirs are read and answered while the world computes."""

GRAPHED = frozenset({"cuda"})
"""Devices on which the calls of every size are prepared as graphs."""

QUICK: frozenset[Kind] = frozenset({"step", "reset", "look", "copy", "clear", "release"})
"""What a tick on the event loop may do; pictures and snapshots of many lanes may take long."""

SMALL_ROW_BYTES = 1024
"""Rows of such lanes are quickly copied, so rollouts begin and end on the event loop, too."""


class Engine:
    """Lanes of one world on one device; see sessions.lanes.LaneEngine for what is promised.

    All methods but start and stop are called from one event loop. Requests are with the loop or with the thread, never
    with both, so rows and control columns have one writer at a time; a lane's columns are read only while no request
    for it waits.
    """

    def __init__(
        self,
        world: World,
        *,
        capacity: int,
        device: str = "cpu",
        buckets: Sequence[int] = BUCKETS,
        name: str = "",
        here_below_s: float | None = None,
        known_uncertainty: float = math.inf,  # beyond which a step is counted as outside what the world knows
        rollout_limits: RolloutLimits = ROLLOUT_LIMITS,
    ) -> None:
        self._known_uncertainty = known_uncertainty
        self.world = world.to(device).eval().requires_grad_(False)
        self.spec = world.spec
        self.capacity = capacity
        self.name = name or self.spec.full_name
        self._arena = Arena(world, capacity, device)
        self.lane_bytes = self._arena.lane_bytes  # what one lane occupies on the device
        widest = max(capacity, MOST_ROW_BYTES // max(1, self.lane_bytes))
        self.rollout_limits = rollout_limits._replace(lanes=min(rollout_limits.lanes, widest))
        self.snapshot_lane_bytes = snapshot_lane_bytes(dict(world.slots))
        self._control = Control(capacity + 1)
        self._stats = EngineStats(capacity=capacity)
        self._buckets = tuple(buckets)
        self.sizes: tuple[int, ...] = ()  # padded batches: of those tried, the ones that round alike on this device
        self._action_leaves = leaves_of(self.spec.action_space, "action")
        self._waiting = np.zeros(capacity, dtype=np.int32)  # requests handed in and not answered, by lane
        self._unanswered = 0
        self._queue: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ticker: Ticker
        self._imagination: Imagination
        self._here: list[Request] = []  # for the planned tick on the loop; when not empty, the thread has nothing
        self._before_tick: Callable[[], None] = _nothing
        self._after_tick: Callable[[], None] = _nothing
        self._away = 0  # requests with the thread; when not 0, the loop plans no tick
        self._quick_kinds = QUICK | {"borrow", "commit"} if self.lane_bytes <= SMALL_ROW_BYTES else QUICK
        self._here_below_s = HERE_BELOW_S if here_below_s is None else here_below_s
        if self._arena.device.type != "cpu":
            self._here_below_s = 0.0  # while a device works the loop can read what arrives
        self._running = False
        self._pinned = False
        self._inference = torch.inference_mode()  # entered by each tick on the loop

    # ---- life ------------------------------------------------------------------------------------------------------

    @property
    def lanes_in_use(self) -> int:
        """Lanes that sessions hold."""
        return self._arena.in_use

    @property
    def running(self) -> bool:
        """Whether its thread lives and takes requests."""
        return self._running and self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Warms the world up and starts the thread; returns when the engine can take requests."""
        ready: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, args=(ready,), name=f"engine {self.name}", daemon=True)
        self._thread.start()
        failure = ready.get()
        if failure is not None:
            self._thread.join()
            raise failure
        self._running = True

    def stop(self) -> None:
        """Finishes what was handed in, then ends the thread."""
        if self._thread is not None and self._running:
            self._running = False
            self._imagination.close()
            self._queue.put(None)
            self._thread.join()

    def stats(self) -> EngineStats:
        """The counters as they are now."""
        return replace(
            self._stats,
            batches=dict(self._stats.batches),
            tick_seconds=self._stats.tick_seconds.copy(),
            tick_lanes=self._stats.tick_lanes.copy(),
            lanes_in_use=self.lanes_in_use,
            waiting=self._unanswered,
        )

    # ---- called from the event loop ----------------------------------------------------------------------------------

    def allocate(self, count: int, mode: AutoresetMode, seeds: Array, caution: Caution = TRUSTING) -> Array:
        """Takes free lanes, to be reset before they are stepped; CapacityExhausted takes none."""
        lanes = self._arena.allocate(count)
        self._control.open(lanes, mode, np.asarray(seeds, dtype=np.int64))
        self._control.trust.open(lanes, caution, self.spec.trust_horizon_steps)
        return lanes

    def release(self, lanes: Array) -> None:
        """Gives lanes back: at once, or when work handed in for them is done; their rows are cleared."""
        self._imagination.stop(lanes, InternalError("the session has ended"))
        if self._waiting[span(lanes)].any():
            self._submit("release", lanes, None, awaited=False)
        else:
            self._arena.release(lanes)
            self._arena.check()
            self._submit("clear", lanes, None, awaited=False)

    def step(self, lanes: Array, command: Step, beside: Callable[[], None] | None = None) -> asyncio.Future[StepResult]:
        """One step of all the lanes: at once where no lane is in use that could still join its tick."""
        problem: SimserviceError | None = misshapen(command.action, self._action_leaves, (len(lanes),))
        if problem is not None:
            return self._failed(problem)
        where, allowed = span(lanes), False
        if not self._unanswered or not self._waiting[where].any():
            allowed = self._control.steppable(where)
            if not allowed and len(blocked := self._control.blocked(where)):
                return self._failed(NeedsReset(blocked.tolist()))
            if not self._unanswered and len(lanes) == self._arena.in_use and self._is_quick(len(lanes)):
                return self._step_now(Request("step", lanes, where, command, None, allowed), beside)
        return self._submit("step", lanes, command, beside, allowed=allowed)

    def reset(
        self, lanes: Array, command: Reset, beside: Callable[[], None] | None = None
    ) -> asyncio.Future[ResetResult]:
        """Starts episodes in the lanes of the command's mask."""
        idle = command.mask is None or not self._waiting[lanes].any()
        problem = reset_problem(self.spec, self._control, lanes, command, idle)
        return self._failed(problem) if problem else self._submit("reset", lanes, command, beside)

    def abandon(self, lanes: Array) -> None:
        """Drops a step or reset that no tick has taken yet; ends a rollout."""
        if self._waiting[lanes[0]]:
            self._ticker.abandoned.add(int(lanes[0]))
        self._imagination.stop(lanes)

    def imagine(
        self, lanes: Array, command: Imagine, policy: RolloutPolicy | None = None, before: bytes | None = None
    ) -> Rollout:
        """A rollout of copies of the lanes."""
        return self._imagination.begin(lanes, command, policy, before, partial(self._submit, "borrow", command=None))

    def commit(self, lanes: Array, rollout: Rollout) -> asyncio.Future[None]:
        """Makes the lanes what a rollout has made of their copies."""
        assert rollout.after is not None, "the rollout has not ended, or was not to advance its lanes"
        return self._submit("commit", lanes, rollout.after)

    def render(self, lanes: Array) -> asyncio.Future[Array]:
        """Pictures of the lanes' present states."""
        if not self.spec.render_modes:
            return self._failed(InvalidInput("render", f"world {self.spec.full_name} has no render mode"))
        return self._submit("render", lanes, None)

    def snapshot(self, lanes: Array) -> asyncio.Future[bytes]:
        """The lanes as bytes."""
        return self._submit("snapshot", lanes, None)

    def restore(self, lanes: Array, snapshot: bytes) -> asyncio.Future[None]:
        """Makes the lanes what a snapshot of as many lanes of the same world version was."""
        return self._submit("restore", lanes, snapshot)

    def copy(self, source: Array, target: Array, seeds: Array | None) -> asyncio.Future[None]:
        """Copies rows and columns on the device."""
        return self._submit("copy", np.union1d(source, target), Copy(source, target, seeds))

    def look(self, lanes: Array) -> asyncio.Future[Leaves]:
        """What the lanes show now."""
        return self._submit("look", lanes, None)

    def accompany(self, before: Callable[[], None], after: Callable[[], None]) -> None:
        """Has these called around every tick on the event loop."""
        self._before_tick, self._after_tick = before, after

    def _is_quick(self, lanes: int, rollouts: int = 0) -> bool:
        """Whether a tick of so many lanes may run on the event loop, where it would wait for rollouts; so many of those
        do not count.
        """
        below_s = self._here_below_s if lanes == self._arena.in_use else min(self._here_below_s, SHARED_BELOW_S)
        return self._running and self._ticker.work_s < below_s and self._ticker.rollouts <= rollouts

    def _step_now(self, request: Request, beside: Callable[[], None] | None) -> asyncio.Future[StepResult]:
        """A tick of its own; the future is done when it is returned."""
        future: asyncio.Future[StepResult] = asyncio.get_running_loop().create_future()
        if beside is not None:
            beside()
        self._tick([request])
        if request.error is not None:
            future.set_exception(request.error)
        else:
            future.set_result(request.result)
        return future

    def _submit(
        self,
        kind: Kind,
        lanes: Array,
        command: object,
        beside: Callable[[], None] | None = None,
        *,
        awaited: bool = True,
        allowed: bool = False,
    ) -> asyncio.Future[Any]:
        loop = self._loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        if not self._running:
            future.set_exception(InternalError(f"the engine of {self.name} is stopped"))
            if not awaited:
                future.exception()  # nobody waits for it
            return future
        where = span(lanes)
        self._waiting[where] += 1
        self._unanswered += 1
        request = Request(kind, lanes, where, command, future if awaited else None, allowed)
        if self._here:
            self._here.append(request)
        elif not self._away and kind in self._quick_kinds and self._is_quick(len(lanes), int(kind == "borrow")):
            self._here.append(request)
            loop.call_soon(self._tick_here)
        else:
            self._away += 1
            self._queue.put(request)
        if beside is not None:
            beside()
        return future

    def _failed(self, error: SimserviceError) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        future.set_exception(error)
        return future

    def _deliver_away(self, done: Sequence[Request]) -> None:
        """Answers what a tick of the thread has done."""
        self._away -= len(done)
        self._deliver(done)

    def _deliver(self, done: Sequence[Request]) -> None:
        """Answers what one tick has done."""
        for request in done:
            self._waiting[request.where] -= 1
            self._unanswered -= 1
            if request.kind == "release":
                self._arena.release(request.lanes)
                self._arena.check()
            if self._ticker.abandoned:  # too late for this one
                self._ticker.abandoned.discard(int(request.lanes[0]))
            future = request.future
            if future is None or future.done():  # a cancelled wait does not undo the work
                continue
            if request.error is not None:
                future.set_exception(request.error)
            else:
                future.set_result(request.result)

    # ---- ticks -----------------------------------------------------------------------------------------------------

    def _tick_here(self) -> None:
        """A tick on the event loop: all that has arrived since it was planned."""
        chosen, self._here = choose(self._here, self.capacity)
        self._tick(chosen)
        self._deliver(chosen)
        if self._here:
            asyncio.get_running_loop().call_soon(self._tick_here)

    def _tick(self, chosen: Sequence[Request]) -> None:
        """A tick on the event loop, and what goes beside it."""
        self._before_tick()
        if not self._pinned:
            torch.set_num_threads(1)  # torch counts them by thread, and this is another than the engine's own
            self._pinned = True
        with self._inference:
            self._ticker.do(chosen)
        for request in chosen:
            if request.kind == "step" and request.error is None and request.command.shown is not None:
                request.command.shown(request.result)
        self._after_tick()

    def _run(self, ready: queue.SimpleQueue[BaseException | None]) -> None:
        """The thread."""
        if self._arena.device.type == "cpu":
            torch.set_num_threads(1)  # small worlds lose an order of magnitude to a second, busy core
        with torch.inference_mode():
            try:
                self._prepare()
            except Exception as error:  # handed to the caller of start, who raises it
                ready.put(error)
                return
            ready.put(None)
            waiting: list[Request] = []
            while self._collect(waiting):
                chosen, waiting = choose(waiting, self.capacity)
                self._ticker.do(chosen)
                assert self._loop is not None
                try:
                    self._loop.call_soon_threadsafe(self._deliver_away, chosen)
                except RuntimeError:
                    log.info("the event loop closed with %d requests unanswered", len(chosen))

    def _prepare(self) -> None:
        device = self._arena.device.type
        tried = sizes_to_try(self._buckets, self.capacity, graphed=device in GRAPHED)
        self.sizes = prepared_sizes(self.world, str(self._arena.device), tried)
        runner = self._runner(self._arena, self._control)
        runner.start(np.array([self._arena.scratch]))  # a real state, so that padding rows are legal ones
        graphed = device in GRAPHED and runner.prepare_graphs()
        self._stats.batches.clear()
        self._stats.padded_rows = 0
        self._ticker = Ticker(runner, self._arena, self._control, self.name)
        stages = Stages(self.world, self.sizes, self._runner, graphed)
        self._imagination = Imagination(self.world, self._control, self._ticker, self.rollout_limits, stages)

    def _runner(self, arena: Arena, control: Control, sizes: Sequence[int] | None = None, emits: bool = True) -> Runner:
        wanted = self.sizes if sizes is None else sizes
        return Runner(self.world, arena, control, wanted, self._stats, self._known_uncertainty, emits)

    def _collect(self, waiting: list[Request]) -> bool:
        """Adds all that has arrived, sleeping only when nothing waits; False: stopped and nothing is left."""
        if not waiting:
            first = self._queue.get()
            if first is None:
                return False
            waiting.append(first)
        while not self._queue.empty():
            request = self._queue.get()
            if request is None:
                self._queue.put(None)  # finish what waits, then stop
                return True
            waiting.append(request)
        return True


def _nothing() -> None:
    """Nobody accompanies the ticks."""
