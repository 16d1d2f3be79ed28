import asyncio
import gc
import logging
from dataclasses import replace

import numpy as np
import pytest
from counter_lanes import CounterLanes, decode, encode, same
from toy import Failing, ToyConfig, toy_spec

from simservice.engine.engine import Engine
from simservice.errors import CapacityExhausted, InternalError
from simservice.sessions.lanes import Reset, Step
from simservice.sessions.memory_store import MemoryStore
from simservice.sessions.recovery import revive
from simservice.sessions.store import Recovery, SessionRecord

RECORD = SessionRecord(
    token="0" * 32,
    world="counter@0123456789ab",
    num_envs=2,
    autoreset_mode="NextStep",
    seeds=np.array([5, 6], "<i8").tobytes(),
    open_key=bytes(16),
    epoch=2,
)
COMMANDS = [Reset(), *(Step({"action": np.array([n % 10, n % 7])}) for n in range(40))]
WHOLE = Recovery(RECORD, None, 0, len(COMMANDS), [encode(command) for command in COMMANDS])


async def first_life(upto):
    """The answers of an engine that did the first commands, and its snapshot behind them."""
    engine = CounterLanes()
    lanes = engine.allocate(2, None, np.array([5, 6]))
    answers = [
        await (engine.step if isinstance(command, Step) else engine.reset)(lanes, command)
        for command in COMMANDS[:upto]
    ]
    return answers, await engine.snapshot(lanes)


def test_a_journal_alone_gives_the_same_lanes_and_the_newest_answers():
    async def live():
        answers, snapshot = await first_life(len(COMMANDS))
        engine = CounterLanes()
        revived = await revive(WHOLE, engine, MemoryStore(), decode, replies_kept=3)
        assert (revived.last_sequence, revived.refused) == (41, False)
        assert sorted(revived.replies) == [39, 40, 41]
        assert all(same(revived.replies[n], answers[n - 1]) for n in revived.replies)
        assert await engine.snapshot(revived.lanes) == snapshot

    asyncio.run(live())


@pytest.mark.parametrize("sequence", [1, 20, 38, 41])
def test_a_snapshot_and_the_rest_of_the_journal_give_the_same_lanes(sequence):
    async def live():
        _, snapshot = await first_life(sequence)
        recovery = replace(WHOLE, snapshot=snapshot, snapshot_sequence=sequence, journal=list(WHOLE.journal)[sequence:])
        engine = CounterLanes()
        revived = await revive(recovery, engine, MemoryStore(), decode, replies_kept=3)
        assert revived.last_sequence == 41
        assert await engine.snapshot(revived.lanes) == (await first_life(len(COMMANDS)))[1]
        assert engine.steps_done == 41 - sequence

    asyncio.run(live())


@pytest.mark.parametrize(
    ("recovery", "error", "message"),
    [
        (replace(WHOLE, journal=list(WHOLE.journal)[:-1]), InternalError, "holds 40 of 41 requests"),
        (replace(WHOLE, journal=[*list(WHOLE.journal)[1:], WHOLE.journal[0]]), InternalError, "request 1 fails now"),
        (replace(WHOLE, record=replace(RECORD, num_envs=65, seeds=bytes(8 * 65))), CapacityExhausted, "65 lanes"),
        (replace(WHOLE, snapshot=b"damaged.", journal=[], last_sequence=0), ValueError, "reshape"),
    ],
    ids=["evicted", "reordered", "no room", "snapshot"],
)
def test_what_cannot_be_brought_back_leaves_no_lane_taken(recovery, error, message):
    async def live():
        engine = CounterLanes()
        with pytest.raises(error, match=message):
            await revive(recovery, engine, MemoryStore(), decode, replies_kept=3)
        await asyncio.sleep(0)
        assert engine.lanes_in_use == 0

    asyncio.run(live())


def test_what_comes_behind_a_failure_is_nobodys_failure(caplog):
    caplog.set_level(logging.CRITICAL, "simservice.engine.tick")  # what is logged would keep the requests

    async def live():
        loop, problems = asyncio.get_running_loop(), []
        loop.set_exception_handler(lambda _, problem: problems.append(problem))
        engine = Engine(Failing(toy_spec(), ToyConfig()), capacity=4)
        engine.start()
        engine.world.failing = True
        commands = [Reset(), *(Step({"action": np.array([1, 1])}) for _ in range(9))]
        recovery = replace(WHOLE, last_sequence=10, journal=[bytes([number]) for number in range(10)])
        with pytest.raises(InternalError, match="its request 2 fails now"):
            await revive(recovery, engine, MemoryStore(), lambda raw: commands[raw[0]], replies_kept=3)
        while engine.lanes_in_use:
            await asyncio.sleep(0)
        await asyncio.to_thread(engine.stop)
        await asyncio.sleep(0)
        gc.collect()
        assert problems == []

    asyncio.run(live())
