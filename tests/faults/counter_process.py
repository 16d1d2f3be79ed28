"""A replica of the counter world in a process of its own, which steps one session for ever; for tests that kill it."""

import asyncio
import sys

import numpy as np
from gymnasium.vector import AutoresetMode

from simservice.sessions.lanes import Reset, Step
from simservice.sessions.redis_store import RedisStore
from simservice.sessions.service import SessionService
from simservice.sessions.settings import SessionConfig

sys.path.insert(0, sys.argv[1])
from counter_lanes import CounterLanes, decode, encode


async def main(url):
    config = SessionConfig(snapshot_every_steps=20, replies_kept=4)
    service = SessionService(CounterLanes(), RedisStore(url), decode=decode, config=config)
    session = await service.open(3, AutoresetMode.NEXT_STEP, bytes(16))
    print(session.token, flush=True)
    command = Reset(seeds=np.arange(3))
    for sequence in range(1, 1_000_000):
        result = await service.apply(session, sequence, command, encode(command))
        print(sequence, result.observation["observation"].tobytes().hex(), flush=True)
        command = Step({"action": np.full(3, sequence % 10)})


asyncio.run(main(sys.argv[2]))
