"""The journal's connection, where it is given up."""

import asyncio
import contextlib
import socket

import pytest
import redis

from simservice.errors import StoreUnavailable
from simservice.sessions.redis_journal import ACKNOWLEDGED, Journal


class Unreachable:
    """A pool whose connections are none."""

    def make_connection(self):
        raise redis.ConnectionError("nobody is there")


class Transport:
    """Of a connection whose end is heard of later than it is ended."""

    aborted = False

    def get_write_buffer_size(self):
        return 0

    def abort(self):
        self.aborted = True


def test_an_answer_that_comes_too_late_is_not_the_next_appends():
    async def scenario():
        journal, (near, far) = Journal(Unreachable(), "redis://nowhere", 0.02), socket.socketpair()
        near.setblocking(False)
        journal._transport, journal._socket = Transport(), near
        transport = journal._transport
        late = journal.send("a", 1, ("k", "k", "k", 1, 1, b"", 1), None)
        journal.flush()
        with pytest.raises(StoreUnavailable):
            await late
        assert transport.aborted
        following = journal.send("b", 1, ("k", "k", "k", 1, 1, b"", 1), None)
        journal.flush()
        with contextlib.suppress(BrokenPipeError):  # nobody is to hear of it
            far.send(ACKNOWLEDGED)
        journal.receive()
        assert not following.done()
        with pytest.raises(StoreUnavailable):
            await following
        await journal.close()
        far.close()

    asyncio.run(asyncio.wait_for(scenario(), 10))
