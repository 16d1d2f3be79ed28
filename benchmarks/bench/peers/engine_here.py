"""The other ceilings: the service's own engine in this process without a wire, and the bare world in a loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

import numpy as np
import torch
from gymnasium.vector import AutoresetMode

from bench import stand_ins
from bench.timing import Round, of_times, timed
from simservice.engine.engine import Engine
from simservice.sessions.lanes import Reset, Step
from simservice.worlds.noise import lane_draws
from simservice.worlds.world import World


class EngineHere:
    """One session's lanes, stepped one after another from an event loop, as the service does."""

    def __init__(self, engine: Engine, lanes: int) -> None:
        self._engine, self._count = engine, lanes
        self._loop = asyncio.new_event_loop()
        self._lanes = engine.allocate(lanes, AutoresetMode.NEXT_STEP, np.arange(lanes))
        self._action = np.random.default_rng(0).integers(0, 3, lanes)
        self._loop.run_until_complete(self._started())

    def play(self, seconds: float) -> Round:
        """Steps for so long."""
        return self._loop.run_until_complete(self._steps(seconds))

    def close(self) -> None:
        """Ends the loop; the engine is its owner's."""
        self._loop.close()

    async def _started(self) -> None:
        await self._engine.reset(self._lanes, Reset())

    async def _steps(self, seconds: float) -> Round:
        clock, times = self._loop.time, list[float]()
        until = clock() + seconds
        while clock() < until:
            began = clock()
            await self._engine.step(self._lanes, Step({"action": self._action}))
            times.append(clock() - began)
        return of_times(times, self._count)


@contextlib.contextmanager
def peer(kind: str, lanes: int) -> Iterator[EngineHere]:
    """An engine with no more lanes than are stepped, of a world of stand_ins.py."""
    engine = Engine(stand_ins.world(kind, kind), capacity=max(lanes, 16))
    engine.start()
    try:
        with contextlib.closing(EngineHere(engine, lanes)) as here:
            yield here
    finally:
        engine.stop()


class Bare:
    """The world's own calls and its lanes' luck, nothing else; on one thread, as the engine has it."""

    def __init__(self, world: World, lanes: int) -> None:
        self._world, self._lanes = world.eval().requires_grad_(False), lanes
        self._seeds = torch.arange(lanes)
        self._counter = torch.zeros(lanes, dtype=torch.int64)
        self._action = torch.from_numpy(np.random.default_rng(0).integers(0, 3, lanes))
        with torch.inference_mode():
            self._state = world.init(lane_draws(world.draws["init"], self._seeds, self._counter, "init"))

    def step(self) -> None:
        """One step of all lanes, observation included."""
        self._counter = self._counter + 1
        luck = lane_draws(self._world.draws["step"], self._seeds, self._counter, "step")
        self._state, _ = self._world.step(self._state, {"action": self._action}, luck)
        self._world.emit(self._state)

    def play(self, seconds: float) -> Round:
        """Steps for so long."""
        with torch.inference_mode():
            return timed(self.step, self._lanes, seconds)


@contextlib.contextmanager
def bare(kind: str, lanes: int) -> Iterator[Bare]:
    """The loop over such a world."""
    torch.set_num_threads(1)
    yield Bare(stand_ins.world(kind, kind), lanes)
