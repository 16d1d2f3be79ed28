"""A stream's steps that are begun where they arrive, outside any task, over a real store."""

import asyncio
import os

import numpy as np
import pytest
from toy import Failing, toy_spec

from simservice.errors import InternalError
from simservice.protocol.step_actions import StepRequests
from simservice.protocol.v1 import service_pb2 as pb
from simservice.serving.facade import WorldService
from simservice.serving.stream import Stream
from simservice.serving.wiring import Replica, ReplicaConfig, open_store
from simservice.sessions.embedded import EmbeddedStore
from simservice.sessions.quotas import ANYONE
from simservice.types import Provenance

LANES = 3


@pytest.fixture(scope="module")
def url():
    with EmbeddedStore() as embedded:
        yield embedded.url


def step(sequence):
    return StepRequests.message(sequence, (np.ones(LANES, "<i8").tobytes(),))


async def outside_a_task(begin, message):
    """What the event loop calls: no task is current there."""
    loop = asyncio.get_running_loop()
    made = loop.create_future()
    loop.call_soon(lambda: made.set_result(begin(message)))
    return await made


def played(url, scenario):
    """The scenario with a stream whose session was opened and reset."""

    async def main():
        store = open_store(url)
        replica = Replica(Failing(toy_spec()), Provenance(), store, ReplicaConfig())
        await replica.start()
        try:
            stream = Stream(WorldService([replica.hosted], store), "", ANYONE)
            assert stream.begin(step(2)) is None  # there is no session yet
            await stream.answer(pb.PlayRequest(open=pb.Open(world="toy", num_envs=LANES, open_key=os.urandom(16))))
            seeds = np.arange(LANES, dtype="<i8").tobytes()
            await stream.answer(pb.PlayRequest(sequence=1, reset=pb.Reset(seeds=seeds)))
            await scenario(stream, replica, store)
        finally:
            await replica.stop()
            await store.close()

    asyncio.run(main())


def test_a_step_is_answered_as_any_other(url):
    async def scenario(stream, replica, store):
        begun = await outside_a_task(stream.begin, step(2))
        reply = pb.PlayReply.FromString(b"".join(await begun.rest()))
        assert reply.sequence == 2
        assert len(reply.stepped.terminated) == LANES
        again = pb.PlayReply.FromString(await stream.answer(pb.PlayRequest.FromString(step(2))))
        assert again.stepped == reply.stepped
        assert stream.begin(step(2)) is None, "a repeat is for the general way"

    played(url, scenario)


def test_a_step_that_the_world_fails_at_is_taken_back_from_the_journal(url):
    async def scenario(stream, replica, store):
        token = stream._session.token
        replica.engine.world.failing = True
        begun = await outside_a_task(stream.begin, step(2))
        with pytest.raises(InternalError, match="ZeroDivisionError"):
            await begun.rest()
        replica.engine.world.failing = False
        assert (await store.claim(token)).last_sequence == 1

    played(url, scenario)


def test_a_step_whose_caller_goes_while_it_is_taken_back_ends_the_hold(url):
    """Whoever comes next takes it back; until then the lanes are not where the journal is."""

    async def scenario(stream, replica, store):
        session = stream._session
        replica.engine.world.failing = True
        begun = await outside_a_task(stream.begin, step(2))
        while begun._rest is None:  # until it is to be taken back, in a task that has not run
            await asyncio.sleep(0)
        begun.cancel()
        with pytest.raises((asyncio.CancelledError, InternalError)):
            await begun.rest()
        assert session.end is not None
        assert not session.turn.locked()
        assert not replica.hosted.service.deadlines._watched
        replica.engine.world.failing = False
        resumed = await replica.hosted.service.resume(session.token)
        assert resumed.last_sequence == 1

    played(url, scenario)


def test_nothing_begins_once_the_process_is_about_to_leave(url):
    async def scenario(stream, replica, store):
        stream._service.streams.leaving = True
        assert stream.begin(step(2)) is None

    played(url, scenario)
