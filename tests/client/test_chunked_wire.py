"""Streams by HTTP/1.1 as the client reads them: from HAProxy, and from whoever else might listen at an address."""

import itertools
import multiprocessing
import os
import random
import socket
import threading
import time
import warnings
from contextlib import closing, contextmanager

import numpy as np
import pytest

from simservice.client.channel import PLAY, STREAMS_VARIABLE, Connection
from simservice.client.chunked_wire import ChunkedWire, NotTaken
from simservice.client.session import RemoteSession
from simservice.client.wire import Ended, _OwnWire
from simservice.protocol.chunks import as_chunk

MOST = 2**22
BEGINS = b"HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nTransfer-Encoding: chunked\r\n\r\n"
ACTION = {"action": np.ones(2, np.int64)}


def message(body):
    return b"".join(as_chunk(body))


@contextmanager
def answering(*parts, pause_s=0.0, stays=True, family="tcp", path=None):
    """A server of one connection that says these bytes, whatever it hears; yields its address and what it heard."""
    heard = bytearray()
    over = threading.Event()
    if family == "unix":
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(path)
        listening.listen()
        address = f"unix:{path}"
    else:
        listening = socket.create_server(("127.0.0.1", 0))
        address = f"127.0.0.1:{listening.getsockname()[1]}"

    def serve():
        try:
            peer, _ = listening.accept()
        except OSError:
            return
        with peer:
            heard.extend(peer.recv(2**16))
            for part in parts:
                peer.sendall(part)
                time.sleep(pause_s)
            if stays:
                over.wait(20)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield address, heard
    finally:
        over.set()
        listening.close()
        thread.join()


def made(address, metadata=(), timeout_s=5.0):
    return ChunkedWire(address, PLAY, metadata, MOST, timeout_s)


def test_a_request_says_what_grpc_would_say():
    metadata = (("application", "toy"), ("token-bin", b"\x00\xff"), ("sly", "a\r\nhost: b"))
    with answering(BEGINS) as (address, heard), closing_wire(made(address, metadata)):
        head = bytes(heard).split(b"\r\n")
    assert head[0] == f"POST {PLAY} HTTP/1.1".encode()
    told = dict(line.split(b": ", 1) for line in head[1:-2])
    assert told.pop(b"user-agent").startswith(b"simservice-python/")
    assert told == {
        b"host": address.encode(),
        b"content-type": b"application/grpc",
        b"te": b"trailers",
        b"transfer-encoding": b"chunked",
        b"application": b"toy",
        b"token-bin": b"AP8",
        b"sly": b"ahost: b",
    }


@contextmanager
def closing_wire(stream):
    try:
        yield stream
    finally:
        stream.cancel()
        stream.drain()


@pytest.mark.parametrize("seed", range(20))
def test_however_an_answer_is_cut_its_messages_and_its_status_are_heard(seed):
    luck = random.Random(seed)
    messages = [luck.randbytes(luck.choice([0, 1, 300, 5000, 100_000])) for _ in range(4)]
    data = b"HTTP/1.1 100 Continue\r\n\r\n" + BEGINS + b"".join(map(message, messages))
    data += b"0\r\ngrpc-status: 5\r\ngrpc-message: 100 %25 gr%C3%B6%C3%9Fer\r\nwhy-bin: AP8\r\n\r\n"
    cuts = [0, *sorted(luck.sample(range(1, len(data)), luck.randrange(8))), len(data)]
    parts = [data[a:b] for a, b in itertools.pairwise(cuts)]
    with answering(*parts, pause_s=0.002) as (address, _), closing_wire(made(address)) as stream:
        assert [stream.receive() for _ in messages] == messages
        for _ in range(2):
            with pytest.raises(Ended) as end:
                stream.receive()
            assert (end.value.code, end.value.details) == ("NOT_FOUND", "100 % größer")
            assert dict(end.value.metadata) == {"why-bin": b"\x00\xff"}


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (BEGINS[:-2] + b"grpc-status: 16\r\n\r\n", "UNAUTHENTICATED"),
        (BEGINS + b"0\r\n\r\n", "UNKNOWN"),
        (BEGINS + b"0\r\ngrpc-status: 99\r\n\r\n", "UNKNOWN"),
        (BEGINS + b"zz\r\n", "INTERNAL"),
        (BEGINS + b"6\r\n\1\0\0\0\1a\r\n", "INTERNAL"),
        (BEGINS + b"5\r\n\0\xff\0\0\0\r\n", "RESOURCE_EXHAUSTED"),
        (b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n", "UNAVAILABLE"),
        (b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 4\r\n\r\nsigh", "UNAVAILABLE"),
    ],
)
def test_an_answer_that_ends_early_or_badly_is_an_end_with_a_status(said, code):
    with answering(said) as (address, _), closing_wire(made(address)) as stream:
        stream.send(b"x" * 100)
        with pytest.raises(Ended) as end:
            stream.receive()
        assert end.value.code == code


@pytest.mark.parametrize(
    "said",
    [
        b"\0\0\x12\4\0\0\0\0\0",  # the settings of HTTP/2
        b"HTTP/1.1 415 Unsupported Media Type\r\n\r\n",
        b"HTTP/1.1 404 Not Found\r\ncontent-type: application/grpc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ncontent-length: 5\r\n\r\n",
        b"HTTP/1.1 " + b"x" * 2**18,
        b"HTT",
        b"",
    ],
)
def test_whoever_does_not_take_streams_this_way_is_found_out(said):
    with answering(said, stays=False) as (address, _), pytest.raises(NotTaken) as refused:
        made(address)
    assert not refused.value.late


def test_whoever_says_nothing_is_late():
    for said in (b"", b"HTTP/1.1 100 Continue\r\n\r\n"):
        with answering(said) as (address, _), pytest.raises(NotTaken, match=r"within 0\.2 s") as refused:
            made(address, timeout_s=0.2)
        assert refused.value.late


def test_nobody_there_takes_nothing(tmp_path):
    for address in ("127.0.0.1:1", f"unix:{tmp_path}/nothing", "a..b:1", "x" * 64 + ".invalid:1", "unix:/a\0b"):
        with pytest.raises(NotTaken, match="no connection") as refused:
            made(address)
        assert not refused.value.late


def test_unix_addresses_are_taken_as_grpc_writes_them(tmp_path):
    for number, prefix in enumerate(("unix:", "unix://")):
        path = str(tmp_path / str(number))
        with (
            answering(BEGINS + message(b"hello"), family="unix", path=path) as (_, heard),
            closing_wire(made(prefix + path)) as stream,
        ):
            assert stream.receive() == b"hello"
            assert b"host: localhost\r\n" in heard


def test_a_connection_that_breaks_in_a_message_is_an_end():
    with answering(BEGINS + message(b"one") + message(b"two")[:-3], stays=False) as (address, _):
        stream = made(address)
        assert stream.receive() == b"one"
        with pytest.raises(Ended, match=r"closed|broke") as end:
            stream.receive()
        assert end.value.code == "UNAVAILABLE"


def test_a_stream_that_is_cancelled_leaves_no_socket():
    before_it = len(os.listdir("/proc/self/fd"))
    with answering(BEGINS) as (address, _):
        stream = made(address)
        stream.cancel()
        stream.drain()
        with pytest.raises(Ended) as ended:
            stream.receive()
        assert ended.value.code == "CANCELLED"
    for said in (b"HTTP/1.1 404 Not Found\r\n\r\n", b""):
        with answering(said, stays=False) as (address, _), pytest.raises(NotTaken):
            made(address)
    with answering(BEGINS) as (address, _):
        stream = made(address)

        def wait():
            with pytest.raises(Ended):
                stream.receive()

        waits = threading.Thread(target=wait)
        waits.start()
        time.sleep(0.1)
        stream.cancel()
        stream.drain()
        waits.join(5)
        assert not waits.is_alive()
    assert len(os.listdir("/proc/self/fd")) == before_it


def test_a_forked_child_does_not_end_its_parents_stream():
    with answering(BEGINS, message(b"late"), pause_s=0.6) as (address, _), closing_wire(made(address)) as stream:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that this process has threads
            child = multiprocessing.get_context("fork").Process(target=lambda: (stream.cancel(), os._exit(0)))
            child.start()
        child.join()
        assert stream.receive() == b"late"


# ---- which way a connection takes -----------------------------------------------------------------------------------


def test_a_server_of_grpc_alone_is_spoken_to_in_grpc(worlds):
    with closing(RemoteSession(worlds, "lucky", num_envs=2)) as session:
        assert isinstance(session._stream._wire, _OwnWire)
        session.reset()
        session.step(ACTION)


def test_a_connection_that_got_no_answer_in_time_tries_no_more(monkeypatch):
    monkeypatch.setattr("simservice.client.channel.QUICK_ANSWER_S", 0.1)
    with answering(b"") as (address, _), closing(Connection(address, "toy")) as connection:
        assert isinstance(connection.play("toy")._wire, _OwnWire)
        assert not connection._quick


def test_nothing_is_tried_where_the_environment_says_so_or_bytes_are_secret(monkeypatch):
    secure = Connection("localhost:1", "toy", tls=True)
    assert not secure._quick
    secure.close()
    monkeypatch.setenv(STREAMS_VARIABLE, "grpc")
    plain = Connection("localhost:1", "toy")
    assert not plain._quick
    plain.close()


def test_closing_a_connection_ends_its_streams():
    with answering(BEGINS) as (address, _):
        connection = Connection(address, "toy")
        stream = connection.play("toy")
        assert isinstance(stream._wire, ChunkedWire)
        connection.close()
        with pytest.raises(Ended) as end:
            stream._wire.receive()
        assert end.value.code == "CANCELLED"
        stream.end()
