import asyncio
import os
import random
import secrets
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from counter_history import CounterHistory
from counter_lanes import CounterLanes, decode, encode
from gymnasium.vector import AutoresetMode

from simservice.errors import NeedsReset, SessionFenced, SimserviceError, StoreUnavailable
from simservice.sessions.embedded import EmbeddedStore
from simservice.sessions.lanes import Reset, Step
from simservice.sessions.redis_store import RedisStore
from simservice.sessions.service import SessionService
from simservice.sessions.settings import SessionConfig

CONFIG = SessionConfig(snapshot_every_steps=12, replies_kept=4)
NUM_ENVS = 3


@pytest.fixture
def server(tmp_path):
    with EmbeddedStore(tmp_path) as embedded:
        yield embedded


def kill_and_restart(server):
    """SIGKILL, then a new server on what the first one left on disk."""
    os.kill(server.pid, signal.SIGKILL)
    server.stop()
    server.start()


class Client:
    """Drives one session over several replicas the way the real client does: it resumes and repeats until answered."""

    def __init__(self, url, mode=AutoresetMode.NEXT_STEP, replicas=2, patience_s=10.0):
        self.mode = mode
        self.stores = [RedisStore(url, patience_s=patience_s) for _ in range(replicas)]
        self.services = [self.new_service(store) for store in self.stores]
        self.history = CounterHistory()
        self.session = self.holder = None
        self.sequence = 0

    @staticmethod
    def new_service(store):
        return SessionService(CounterLanes(), store, decode=decode, config=CONFIG)

    async def open(self):
        self.holder = self.services[0]
        self.session = await self.holder.open(NUM_ENVS, self.mode, secrets.token_bytes(16))
        self.seeds = np.frombuffer(self.session.record.seeds, np.int64)

    async def ask(self, command):
        """The next request; its number is used up once it is answered."""
        self.history.asked(self.sequence + 1, command)
        result = await self.holder.apply(self.session, self.sequence + 1, command, encode(command))
        self.sequence += 1
        self.history.answered(self.sequence, result)
        return result

    async def repeat(self, sequence):
        command = Step({"action": np.zeros(NUM_ENVS, np.int64)})  # ignored
        self.history.answered(sequence, await self.holder.apply(self.session, sequence, command, encode(command)))

    async def cut(self, command, turns):
        """Sends the next request and loses the stream some turns of the event loop later."""
        task = asyncio.create_task(self.ask(command))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled() and not isinstance(task.exception(), StoreUnavailable):
            task.result()

    async def resume(self, service):
        self.holder = service
        self.session = await service.resume(self.session.token)
        assert self.sequence <= self.session.last_sequence <= self.sequence + 1, "an acknowledged step was lost"

    async def replace(self, index):
        """A replica dies; a fresh one comes in its place."""
        await self.services[index].stop()
        fresh = self.new_service(self.stores[index])
        lost = self.services[index] is self.holder
        self.services[index] = fresh
        if lost:
            await self.resume(random.choice(self.services))

    async def finish(self):
        """Checks the history, and that no replica holds a lane too many."""
        await self.holder.close(self.session)
        for service, store in zip(self.services, self.stores, strict=True):
            await service.stop()
            assert service.engine.lanes_in_use == 0
            await store.close()
        await self.history.check(NUM_ENVS, self.mode, self.seeds)


def a_step(luck):
    return Step({"action": np.array([luck.randrange(10) for _ in range(NUM_ENVS)])})


def a_reset(luck):
    mask = np.array([luck.random() < 0.7 for _ in range(NUM_ENVS)])
    seeds = np.array([luck.choice([-1, luck.randrange(2**62)]) for _ in range(NUM_ENVS)])
    return Reset(mask=luck.choice([None, mask]), seeds=luck.choice([None, seeds]))


async def one_event(client, luck, server):
    """One thing that may happen to a session."""
    event = luck.choices(
        ["step", "reset", "repeat", "cut", "takeover", "replace", "lost answer", "kill store"],
        [40, 6, 8, 12, 10, 4, 6, 0.4],
    )[0]
    if event == "step":
        await client.ask(a_step(luck))
    elif event == "reset":
        await client.ask(a_reset(luck))
    elif event == "repeat":
        await client.repeat(luck.randint(max(1, client.sequence - CONFIG.replies_kept + 1), client.sequence))
    elif event == "cut":
        command = a_step(luck)
        before = client.sequence
        await client.cut(command, luck.randrange(6))
        await client.resume(luck.choice(client.services))
        if client.sequence == before:
            await client.ask(command)  # unanswered: the same request again
    elif event == "takeover":
        former, holder = client.session, client.holder
        await client.resume(luck.choice(client.services))
        command = a_step(luck)
        with pytest.raises(SessionFenced):
            await holder.apply(former, client.sequence + 1, command, encode(command))
    elif event == "replace":
        await client.replace(luck.randrange(len(client.services)))
    elif event == "lost answer":
        command = a_step(luck)
        await client.ask(command)
        await client.resume(luck.choice(client.services))
        await client.repeat(client.sequence)
    else:
        await asyncio.to_thread(kill_and_restart, server)


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED])
@pytest.mark.parametrize("seed", range(4))
def test_no_step_is_lost_repeated_or_reordered_whatever_happens(server, seed, mode):
    luck = random.Random(seed)

    async def live():
        client = Client(server.url, mode, replicas=3)
        await client.open()
        refusals = 0
        with pytest.raises(NeedsReset):
            await client.ask(a_step(luck))
        await client.ask(Reset())
        for _ in range(150):
            try:
                await one_event(client, luck, server)
            except NeedsReset:
                refusals += 1
                await client.ask(Reset())
        assert (refusals > 0) == (mode is AutoresetMode.DISABLED)
        assert client.sequence > 60
        await client.finish()

    asyncio.run(asyncio.wait_for(live(), 120))


def test_a_killed_store_loses_nothing_that_was_acknowledged(server):
    async def live():
        client = Client(server.url)
        await client.open()
        await client.ask(Reset(seeds=np.arange(NUM_ENVS)))
        luck = random.Random(0)
        for _ in range(4):
            for _ in range(25):
                await client.ask(a_step(luck))
            await asyncio.to_thread(kill_and_restart, server)
            await client.resume(luck.choice(client.services))
            assert client.session.last_sequence == client.sequence
        await client.finish()

    asyncio.run(asyncio.wait_for(live(), 120))


def test_while_the_store_is_away_steps_fail_clearly_and_nothing_is_lost(server):
    async def live():
        client = Client(server.url, patience_s=0.5)
        await client.open()
        luck = random.Random(0)
        await client.ask(Reset())
        await asyncio.to_thread(server.stop)
        command = a_step(luck)
        with pytest.raises(StoreUnavailable):
            await client.ask(command)
        with pytest.raises(StoreUnavailable):
            await client.resume(client.services[1])
        await asyncio.to_thread(server.start)
        await client.resume(client.services[1])
        await client.ask(command)
        await client.finish()

    asyncio.run(asyncio.wait_for(live(), 60))


def test_a_replica_killed_in_the_middle_of_an_episode_is_followed_by_another(server):
    tests = Path(__file__).parent.parent
    program = [sys.executable, str(tests / "faults" / "counter_process.py"), str(tests), server.url]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as replica:
        token = replica.stdout.readline().strip()
        answers = {}
        while len(answers) < 200:
            sequence, observation = replica.stdout.readline().split()
            answers[int(sequence)] = observation
        replica.kill()
        for line in replica.stdout.read().splitlines():
            if len(words := line.split()) == 2:
                answers[int(words[0])] = words[1]

    async def live():
        store = RedisStore(server.url)
        service = Client.new_service(store)
        session = await service.resume(token)
        last = max(answers) if len(answers[max(answers)]) == 48 else max(answers) - 1
        assert session.last_sequence in (last, last + 1)
        history = CounterHistory()
        for sequence in range(1, last + 31):
            command = Step({"action": np.full(3, (sequence - 1) % 10)}) if sequence > 1 else Reset(seeds=np.arange(3))
            history.asked(sequence, command)
            if sequence > session.last_sequence - CONFIG.replies_kept:
                result = await service.apply(session, sequence, command, encode(command))
                history.answered(sequence, result)
                assert answers.get(sequence, "") in ("", result.observation["observation"].tobytes().hex())
        engine = CounterLanes()
        lanes = engine.allocate(3, AutoresetMode.NEXT_STEP, np.zeros(3, np.int64))
        for sequence, command in history.commands.items():
            result = await (engine.step if sequence > 1 else engine.reset)(lanes, command)
            if sequence <= last:
                assert result.observation["observation"].tobytes().hex() == answers[sequence]
            for answer in history.answers.get(sequence, []):
                assert answer.observation["observation"].tobytes() == result.observation["observation"].tobytes()
        await service.stop()
        await store.close()

    asyncio.run(asyncio.wait_for(live(), 60))


def test_a_refusal_is_not_mistaken_for_a_failure(server):
    async def live():
        client = Client(server.url, AutoresetMode.DISABLED)
        await client.open()
        for _ in range(3):
            with pytest.raises(SimserviceError, match="reset"):
                await client.ask(a_step(random.Random(0)))
            await client.resume(random.choice(client.services))
        await client.ask(Reset())
        await client.finish()

    asyncio.run(asyncio.wait_for(live(), 60))
