"""Sessions over the real engine and a real store: the world goes on bit for bit where its replica was lost."""

import asyncio
import secrets

import numpy as np
import pytest
from counter_lanes import decode, encode, same
from gymnasium.vector import AutoresetMode
from toy import Toy, ToyConfig, toy_spec

from simservice.engine.engine import Engine
from simservice.sessions.embedded import EmbeddedStore
from simservice.sessions.lanes import Fork, Reset, Step
from simservice.sessions.redis_store import RedisStore
from simservice.sessions.service import SessionService
from simservice.sessions.settings import SessionConfig
from simservice.types import Caution

NUM_ENVS = 5
LAST = 60


@pytest.fixture(scope="module")
def server():
    with EmbeddedStore() as embedded:
        yield embedded


class Replica:
    """A process with its engine, as far as its sessions can tell; its world is noisy and ends episodes."""

    def __init__(self, url, **config):
        world = Toy(toy_spec(max_episode_steps=17, trust_horizon_steps=6), ToyConfig(noise=0.3, bound=2.0))
        self.engine = Engine(world, capacity=64)
        self.engine.start()
        self.store = RedisStore(url)
        self.service = SessionService(self.engine, self.store, decode=decode, config=SessionConfig(**config))

    async def ask(self, session, sequence):
        actions = np.random.default_rng(sequence).integers(0, 3, session.num_envs)
        seeds = np.arange(session.num_envs) + 100
        command = Reset(seeds=seeds) if sequence == 1 else Step({"action": actions})
        return await self.service.apply(session, sequence, command, encode(command))

    async def vanish(self):
        """Ends the process as far as the store can tell: nothing more is written."""
        await self.service.stop()
        self.engine.stop()
        await self.store.close()


async def play(replica, session, first, last):
    answers = []
    for sequence in range(first, last + 1):
        answers.append(await replica.ask(session, sequence))
        await asyncio.sleep(0.002)  # an agent thinks, and snapshots are taken meanwhile
    return answers


async def undisturbed(url, mode):
    """All answers from one replica, beside another session that shares its batches."""
    replica = Replica(url)
    session = await replica.service.open(NUM_ENVS, mode, secrets.token_bytes(16))
    neighbour = await replica.service.open(40, mode, secrets.token_bytes(16))
    answers = []
    for sequence in range(1, LAST + 1):
        answer, _ = await asyncio.gather(replica.ask(session, sequence), replica.ask(neighbour, sequence))
        answers.append(answer)
    await replica.vanish()
    return answers


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
@pytest.mark.parametrize("snapshot_every_steps", [10, 256])
def test_another_replica_goes_on_bit_for_bit(server, mode, snapshot_every_steps):
    async def live():
        expected = await undisturbed(server.url, mode)
        first, second = (Replica(server.url, snapshot_every_steps=snapshot_every_steps) for _ in range(2))
        session = await first.service.open(NUM_ENVS, mode, secrets.token_bytes(16))
        answers = await play(first, session, 1, 37)
        assert (first.service.stats().snapshots > 0) == (snapshot_every_steps == 10)
        await first.vanish()
        resumed = await second.service.resume(session.token)
        assert resumed.last_sequence == 37
        repeated = await play(second, resumed, 30, 37)
        assert all(same(*pair) for pair in zip(repeated, answers[29:], strict=True))
        answers += await play(second, resumed, 38, LAST)
        assert all(same(*pair) for pair in zip(answers, expected, strict=True))
        assert sum(answer.terminated.sum() for answer in answers[1:]) > 0
        assert sum(answer.truncated.sum() for answer in answers[1:]) > 0
        await second.vanish()

    asyncio.run(asyncio.wait_for(live(), 120))


def test_another_replica_and_a_fork_are_as_cautious(server):
    """Restored from a snapshot or replayed: lanes are truncated where the session's caution says."""

    async def live():
        caution = Caution(truncate_at_trust_horizon=True)
        first, second = (Replica(server.url, snapshot_every_steps=10) for _ in range(2))
        session = await first.service.open(NUM_ENVS, AutoresetMode.SAME_STEP, secrets.token_bytes(16), caution=caution)
        await play(first, session, 1, 16)
        command = Fork(lanes=None, copies=1, fresh=False, seeds=None, key=secrets.token_bytes(16))
        forked = await first.service.branch(session, 17, command, encode(command))
        await play(first, session, 18, 35)
        await first.vanish()
        resumed, child = [await second.service.resume(token) for token in (session.token, forked.token)]
        assert resumed.record.caution == child.record.caution == caution
        for one, begin in ((resumed, 36), (child, 1)):
            answers = await play(second, one, begin, begin + 19)
            assert sum("distrusted" in answer.infos for answer in answers) >= 2
        await second.vanish()

    asyncio.run(asyncio.wait_for(live(), 120))
