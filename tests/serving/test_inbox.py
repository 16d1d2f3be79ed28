"""A stream's requests come in order and whole; whoever waits for one can be called away without harming the read."""

import asyncio

import pytest

from simservice.serving.inbox import Inbox


def in_a_loop(test):
    def within():
        asyncio.run(asyncio.wait_for(test(), 10))

    within.__name__ = test.__name__
    return within


class Wire:
    """Messages as gRPC gives them: an asynchronous generator over futures; None ends it."""

    def __init__(self):
        self.messages = asyncio.Queue()
        self.cancelled = 0

    async def __aiter__(self):
        while True:
            try:
                message = await self.messages.get()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
            if message is None:
                return
            if isinstance(message, Exception):
                raise message
            await asyncio.sleep(0)  # a bare turn of the loop
            yield message

    def send(self, *messages):
        for message in messages:
            self.messages.put_nowait(message)


def opened():
    wire = Wire()
    return wire, Inbox(aiter(wire))


@in_a_loop
async def test_messages_come_in_order_until_the_end():
    wire, inbox = opened()
    wire.send(1, 2)
    assert [await inbox, await inbox] == [1, 2]
    waiting = asyncio.create_task(_next(inbox))
    await asyncio.sleep(0.01)
    wire.send(3, None)
    assert await waiting == 3
    assert await inbox is None
    assert await inbox is None


@in_a_loop
async def test_an_error_of_the_stream_is_raised_where_one_waits():
    wire, inbox = opened()
    wire.send(ValueError("bytes that are no message"))
    with pytest.raises(ValueError, match="no message"):
        await inbox


@in_a_loop
async def test_whoever_waits_is_called_away_and_the_read_goes_on_to_its_end():
    wire, inbox = opened()
    waiting = asyncio.create_task(_next(inbox))
    await asyncio.sleep(0.01)
    inbox.call_away()
    assert await waiting is None
    assert await inbox is None, "for good"
    wire.send(1)
    await asyncio.sleep(0.01)
    assert (wire.messages.qsize(), wire.cancelled) == (0, 0)


@in_a_loop
async def test_what_had_come_before_the_call_is_still_handed_out():
    wire, inbox = opened()
    waiting = asyncio.create_task(_next(inbox))
    await asyncio.sleep(0.01)
    wire.send(1)
    inbox.call_away()
    assert await waiting in (1, None)
    assert await inbox is None


@in_a_loop
async def test_a_waiter_that_is_cancelled_cancels_no_read():
    wire, inbox = opened()
    waiting = asyncio.create_task(_next(inbox))
    await asyncio.sleep(0.01)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    wire.send(None)
    await asyncio.sleep(0.01)
    assert wire.cancelled == 0


@in_a_loop
async def test_a_waiter_that_is_cancelled_as_a_message_comes_is_cancelled():
    """Else it would wait for the next one, and whoever cancelled it for its end."""
    wire, inbox = opened()
    waiting = asyncio.create_task(_next(inbox))
    await asyncio.sleep(0.01)
    wire.send(1)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    wire.send(None)
    await asyncio.sleep(0.01)
    assert wire.cancelled == 0


async def _next(inbox):
    return await inbox
