"""One alarm for all requests under way, on either kind of event loop."""

import asyncio

import pytest
import uvloop

from simservice.sessions.deadlines import Deadlines


class Waiting:
    """As much of a session as is looked at."""

    expires = 0.0


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_requests_that_begin_as_others_expire_are_watched(run):
    async def scenario():
        given_up, early, late = [], [Waiting() for _ in range(3)], Waiting()
        deadlines = Deadlines(60.0, given_up.append)
        for session in early:
            deadlines.begin(session, 1)
        early[1].expires += 0.0004  # less than uvloop's clock tells apart
        while not given_up:
            await asyncio.sleep(0)
        deadlines.begin(late, 5)
        while len(given_up) < 4:
            await asyncio.sleep(0.001)
        assert given_up[-1] is late
        for session in (*early, late):
            deadlines.end(session)
        assert not deadlines._watched
        deadlines.stop()

    run(asyncio.wait_for(scenario(), 10))
