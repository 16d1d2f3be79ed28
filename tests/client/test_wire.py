"""All ways of a stream do the same: messages, ends, cancellation from another thread, nothing left behind."""

import asyncio
import signal
import threading
import time
from contextlib import contextmanager

import grpc
import pytest

from simservice.client import wire as wires
from simservice.client.chunked_wire import ChunkedWire
from simservice.client.wire import Ended, _OwnWire, _StreamWire, wire
from simservice.serving.chunked import ChunkedServer

PLAY = "/tests.Wire/Play"
MOST = 2**23


async def play(requests, context):
    """Answers each message by itself, as often as its first byte says; 0 ends well, 254 with a word, 255 badly."""
    async for message in requests:
        if message[0] == 0:
            return
        if message[0] == 254:
            yield message
            yield b"goodbye"
            return
        if message[0] == 255:
            context.set_trailing_metadata((("why-bin", b"\x00\xff"),))
            context.set_code(grpc.StatusCode.NOT_FOUND)
            context.set_details("nothing like it")
            return
        for _ in range(message[0]):
            yield message


@contextmanager
def served(address="127.0.0.1:0"):
    """A server on a thread of its own; yields its port and what ends it at once."""
    ready, over, found = threading.Event(), threading.Event(), {}

    async def run():
        server = grpc.aio.server()
        handler = grpc.stream_stream_rpc_method_handler(play)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("tests.Wire", {"Play": handler}),))
        found["port"] = server.add_insecure_port(address)
        await server.start()
        ready.set()
        await asyncio.to_thread(over.wait)
        await server.stop(0)

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    ready.wait()
    try:
        yield found["port"], over.set
    finally:
        over.set()
        thread.join()


async def play_chunks(streams, context):
    """The same for a server that has no requests to give, only a context to read them from."""
    streams.append(context)

    async def requests():
        while (message := await context.read()) is not grpc.aio.EOF:
            yield message

    async for reply in play(requests(), context):
        yield reply


@contextmanager
def served_in_chunks(path):
    """The same server by HTTP/1.1."""
    ready, over, streams = threading.Event(), threading.Event(), []

    async def run():
        server = ChunkedServer(path, PLAY, lambda _, context: play_chunks(streams, context), bytes, MOST)
        await server.start()
        ready.set()
        await asyncio.to_thread(over.wait)
        server.close()
        for stream in streams:
            stream._transport.abort()
        await asyncio.sleep(0)

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    ready.wait()
    try:
        yield f"unix:{path}", over.set
    finally:
        over.set()
        thread.join()


@pytest.fixture(params=["own", "grpc's", "chunks"])
def made(request, monkeypatch, tmp_path):
    """A stream to a server, and what ends the server."""
    metadata = (("application", "toy"),)
    if request.param == "chunks":
        with served_in_chunks(str(tmp_path / "s")) as (address, end):
            stream = ChunkedWire(address, PLAY, metadata, MOST, 5.0)
            yield stream, end
            stream.cancel()
            stream.drain()
        return
    if request.param == "grpc's":
        monkeypatch.setattr(wires, "cygrpc", None)
    with served() as (port, end), grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stream = wire(channel, PLAY, metadata)
        assert isinstance(stream, _OwnWire if request.param == "own" else _StreamWire)
        yield stream, end
        stream.cancel()
        stream.drain()


@pytest.fixture(params=["own", "grpc's"])
def by_grpc(request, monkeypatch):
    """One of gRPC's two ways."""
    if request.param == "grpc's":
        monkeypatch.setattr(wires, "cygrpc", None)


def test_messages_come_back_in_order_one_or_many(made):
    stream, _ = made
    for number in (1, 3, 1):
        stream.send(bytes([number]) * 1000)
        assert [stream.receive() for _ in range(number)] == [bytes([number]) * 1000] * number


def test_a_stream_that_ends_well_says_so_again_and_again(made):
    stream, _ = made
    stream.send(b"\x00")
    for _ in range(2):
        with pytest.raises(Ended) as end:
            stream.receive()
        assert (end.value.code, end.value.details) == ("OK", "") or isinstance(stream, _StreamWire)


def test_what_was_said_before_the_end_is_heard_by_whoever_asks_after_it(made):
    stream, _ = made
    stream.send(b"\xfe")
    assert stream.receive() == b"\xfe"
    time.sleep(0.2)
    stream.send(b"\x01")  # to nobody
    assert stream.receive() == b"goodbye"
    with pytest.raises(Ended) as end:
        stream.receive()
    assert end.value.code == "OK"


def test_messages_may_be_sent_one_after_another(made):
    stream, _ = made
    for _ in range(50):
        stream.send(b"\x01")
    assert [stream.receive() for _ in range(50)] == [b"\x01"] * 50


def test_a_status_comes_with_its_words_and_what_it_carries(made):
    stream, _ = made
    stream.send(b"\xff")
    with pytest.raises(Ended) as end:
        stream.receive()
    assert (end.value.code, end.value.details) == ("NOT_FOUND", "nothing like it")
    assert dict(end.value.metadata)["why-bin"] == b"\x00\xff"


def test_another_thread_ends_the_wait(made):
    stream, _ = made
    stream.send(b"\x01")
    assert stream.receive() == b"\x01"
    timer = threading.Timer(0.2, stream.cancel)
    timer.start()
    with pytest.raises(Ended) as end:
        stream.receive()
    assert end.value.code == "CANCELLED"
    timer.join()
    stream.cancel()
    stream.drain()


def test_a_wait_that_a_signal_interrupts_ends_the_stream(made):
    stream, _ = made

    def interrupt(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(KeyboardInterrupt):
            stream.receive()  # nobody was asked for anything
    finally:
        signal.signal(signal.SIGALRM, before)
    stream.cancel()
    stream.drain()
    stream.send(b"\x01")
    with pytest.raises(Ended):
        stream.receive()


def test_a_server_that_goes_away_ends_the_stream(made):
    stream, end_server = made
    stream.send(b"\x01")
    stream.receive()
    end_server()
    with pytest.raises(Ended) as end:
        for _ in range(100):
            stream.send(b"\x01")
            stream.receive()
    assert end.value.code in ("UNAVAILABLE", "CANCELLED")


def test_nobody_at_the_address_is_an_end(by_grpc):
    with grpc.insecure_channel("127.0.0.1:1") as channel:
        stream = wire(channel, PLAY, ())
        stream.send(b"\x01")
        with pytest.raises(Ended) as end:
            stream.receive()
        assert end.value.code == "UNAVAILABLE"


def test_a_closed_channel_is_an_end_and_closing_one_ends_its_streams(by_grpc):
    with served() as (port, _):
        channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        stream = wire(channel, PLAY, ())
        stream.send(b"\x01")
        stream.receive()
        channel.close()
        with pytest.raises(Ended):
            stream.receive()
        if isinstance(stream, _OwnWire):
            with pytest.raises(Ended):
                wire(channel, PLAY, ()).receive()


def test_a_release_of_grpc_with_another_inside_is_served_by_its_own_streams(monkeypatch):
    def refuse(*arguments):
        raise TypeError("segregated_call() takes 1 argument")

    monkeypatch.setattr(_OwnWire, "__init__", refuse)
    with served() as (port, _), grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stream = wire(channel, PLAY, ())
        assert isinstance(stream, _StreamWire)
        stream.send(b"\x01")
        assert stream.receive() == b"\x01"
        stream.cancel()
