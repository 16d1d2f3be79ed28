"""The thread that steps lanes: takes every request that has arrived, does them in one tick, answers, takes the next.

While a tick runs the next batch collects itself: no timer, no least batch, and without work the thread sleeps. Knows no
sessions, no wire and no replica.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from gymnasium.vector import AutoresetMode

from simservice.engine.arena import Arena
from simservice.engine.batching import choose
from simservice.engine.control import Control
from simservice.engine.episodes import Episodes
from simservice.engine.requests import Kind, Request
from simservice.engine.rounding import prepared_sizes
from simservice.engine.runner import Runner
from simservice.engine.snapshot import pack, unpack
from simservice.engine.stats import EngineStats
from simservice.errors import InternalError, InvalidInput, NeedsReset, SimserviceError
from simservice.sessions.lanes import Reset, Step
from simservice.types import Array, Leaf, Leaves, ResetResult, StepResult, leaves_of
from simservice.worlds.world import BUCKETS, World

log = logging.getLogger(__name__)


class Engine:
    """Lanes of one world on one device; see sessions.lanes.LaneEngine for what is promised.

    All methods but start and stop are called from one event loop. Rows and control columns are written by the thread
    alone; the loop reads a lane's columns only while no request for it waits.
    """

    def __init__(
        self, world: World, *, capacity: int, device: str = "cpu", buckets: Sequence[int] = BUCKETS, name: str = ""
    ) -> None:
        self.world = world.to(device).eval().requires_grad_(False)
        self.spec = world.spec
        self.capacity = capacity
        self.name = name or self.spec.full_name
        self._arena = Arena(world, capacity, device)
        self.lane_bytes = self._arena.lane_bytes  # what one lane occupies on the device
        self._control = Control(capacity + 1)
        self._stats = EngineStats(capacity=capacity)
        self._buckets = tuple(buckets)
        self._sizes: tuple[int, ...] = ()
        self._action_leaves = leaves_of(self.spec.action_space, "action")
        self._observation_leaves = leaves_of(self.spec.observation_space, "observation")
        self._waiting = np.zeros(capacity, dtype=np.int32)  # requests handed in and not answered, by lane
        self._unanswered = 0
        self._queue: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._episodes: Episodes
        self._running = False

    # ---- life ------------------------------------------------------------------------------------------------------

    @property
    def lanes_in_use(self) -> int:
        """Lanes that sessions hold."""
        return self._arena.in_use

    @property
    def running(self) -> bool:
        """Whether its thread lives and takes requests."""
        return self._running and self._thread is not None and self._thread.is_alive()

    @property
    def sizes(self) -> tuple[int, ...]:
        """The padded batch sizes in use: those of the buckets whose rows round alike on this device."""
        return self._sizes

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

    def allocate(self, count: int, mode: AutoresetMode, seeds: Array) -> Array:
        """Takes free lanes, to be reset before they are stepped; CapacityExhausted takes none."""
        lanes = self._arena.allocate(count)
        self._control.open(lanes, mode, np.asarray(seeds, dtype=np.int64))
        return lanes

    def release(self, lanes: Array) -> None:
        """Gives lanes back: at once, or when work handed in for them is done; their rows are cleared."""
        if self._waiting[lanes].any():
            self._submit("release", lanes, None, awaited=False)
        else:
            self._arena.release(lanes)
            self._submit("clear", lanes, None, awaited=False)

    def step(self, lanes: Array, command: Step) -> asyncio.Future[StepResult]:
        """One step of all the lanes."""
        problem: SimserviceError | None = _misshapen(command.action, self._action_leaves, (len(lanes),))
        if problem is None and not self._waiting[lanes].any():
            blocked = self._control.blocked(lanes)
            problem = NeedsReset(blocked.tolist()) if len(blocked) else None
        return self._failed(problem) if problem else self._submit("step", lanes, command)

    def reset(self, lanes: Array, command: Reset) -> asyncio.Future[ResetResult]:
        """Starts episodes in the lanes of the command's mask."""
        problem = self._reset_problem(lanes, command)
        return self._failed(problem) if problem else self._submit("reset", lanes, command)

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

    def _submit(self, kind: Kind, lanes: Array, command: object, awaited: bool = True) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        self._loop = loop
        future: asyncio.Future[Any] = loop.create_future()
        if not self._running:
            future.set_exception(InternalError(f"the engine of {self.name} is stopped"))
            if not awaited:
                future.exception()  # nobody waits for it
            return future
        self._waiting[lanes] += 1
        self._unanswered += 1
        self._queue.put(Request(kind, lanes, command, future if awaited else None))
        return future

    def _failed(self, error: SimserviceError) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        future.set_exception(error)
        return future

    def _reset_problem(self, lanes: Array, command: Reset) -> SimserviceError | None:
        """Why a reset cannot be done; nothing has been done then."""
        if command.options:
            names = ", ".join(repr(name) for name in sorted(command.options))
            return InvalidInput("options", f"unknown: {names}; this service takes no reset options")
        if command.mask is not None:
            if command.mask.shape != (len(lanes),) or command.mask.dtype != np.bool_:
                return InvalidInput("mask", f"must be {len(lanes)} booleans, one a lane")
            if not command.mask.any():
                return InvalidInput("mask", "selects no lane")
        if command.seeds is not None and command.seeds.shape != (len(lanes),):
            return InvalidInput("seeds", f"must be {len(lanes)} integers, one a lane, -1 for none")
        if command.context is not None:
            if "context" not in self.spec.capabilities:
                return InvalidInput("context", f"world {self.spec.full_name} cannot be grounded in real observations")
            frames = command.context.frames
            return _misshapen(
                command.context.observation, self._observation_leaves, (len(lanes), frames)
            ) or _misshapen(command.context.action, self._action_leaves, (len(lanes), frames - 1))
        if command.mask is not None and not self._waiting[lanes].any():
            unready = np.flatnonzero(~self._control.ready[lanes] & ~command.mask)
            if len(unready):
                return NeedsReset(unready.tolist())
        return None

    def _deliver(self, done: Sequence[Request]) -> None:
        """On the event loop: answers what one tick has done."""
        for request in done:
            self._waiting[request.lanes] -= 1
            self._unanswered -= 1
            if request.kind == "release":
                self._arena.release(request.lanes)
            future = request.future
            if future is None or future.done():  # a cancelled wait does not undo the work
                continue
            if request.error is not None:
                future.set_exception(request.error)
            else:
                future.set_result(request.result)
        if not self._unanswered:
            self._arena.check()

    # ---- the thread ------------------------------------------------------------------------------------------------

    def _run(self, ready: queue.SimpleQueue[BaseException | None]) -> None:
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
                self._tick(chosen)

    def _prepare(self) -> None:
        fitting = [size for size in self._buckets if size < self.capacity]
        larger = [size for size in self._buckets if size >= self.capacity]
        self._sizes = prepared_sizes(self.world, str(self._arena.device), [*fitting, *larger[:1]])
        runner = Runner(self.world, self._arena, self._control, self._sizes, self._stats)
        runner.start(np.array([self._arena.scratch]))  # a real state, so that padding rows are legal ones
        self._stats.batches.clear()
        self._stats.padded_rows = 0
        self._episodes = Episodes(runner, self._control)

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

    def _tick(self, requests: Sequence[Request]) -> None:
        began = time.perf_counter()
        steps = [request for request in requests if request.kind == "step"]
        if steps:
            self._guarded(steps, partial(self._episodes.step, steps))
        for request in requests:
            if request.kind != "step":
                self._guarded([request], partial(self._alone, request))
        self._stats.ticks += 1
        self._stats.tick_seconds.add(time.perf_counter() - began)
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(self._deliver, requests)
        except RuntimeError:
            log.info("the event loop closed with %d requests unanswered", len(requests))

    def _guarded(self, requests: Sequence[Request], work: Callable[[], None]) -> None:
        """Runs work; whatever it raises becomes the answer of these requests, never the end of the thread."""
        try:
            work()
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

    def _alone(self, request: Request) -> None:
        """Requests that share no batch."""
        if request.kind == "reset":
            self._episodes.reset(request)
        elif request.kind == "render":
            ready = self._control.ready[request.lanes]
            if not ready.all():
                raise NeedsReset(np.flatnonzero(~ready).tolist())
            request.result = self._episodes.runner.picture(request.lanes)
        elif request.kind == "snapshot":
            rows = self._arena.gather(self._arena.index(request.lanes))
            request.result = pack(self.spec, rows, self._control.columns(request.lanes))
        elif request.kind == "restore":
            rows, columns = unpack(self.spec, dict(self.world.slots), len(request.lanes), request.command)
            self._arena.scatter(
                self._arena.index(request.lanes), {name: row.to(self._arena.device) for name, row in rows.items()}
            )
            self._control.write(request.lanes, columns)
        else:
            self._arena.clear(request.lanes)


def _misshapen(leaves: Leaves, wanted: Sequence[Leaf], lead: tuple[int, ...]) -> InvalidInput | None:
    """What is wrong with the leaves' names, shapes or dtypes."""
    if len(leaves) != len(wanted):
        return InvalidInput(wanted[0].path, f"expected the leaves {[leaf.path for leaf in wanted]}, got {list(leaves)}")
    for leaf in wanted:
        array = leaves.get(leaf.path)
        if array is None:
            return InvalidInput(leaf.path, f"is missing; got {list(leaves)}")
        if array.shape != (*lead, *leaf.shape) or array.dtype != leaf.dtype:
            return InvalidInput(
                leaf.path,
                f"expected {leaf.dtype} of shape {(*lead, *leaf.shape)}, got {array.dtype} of shape {array.shape}",
            )
    return None
