"""The relay does what the fault suite says it does: otherwise a test of faults tests nothing."""

import socket
import threading
import time

import pytest
from relay import DOWN, UP, Relay


@pytest.fixture
def echo():
    """The address of a server that says everything back."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer(side):
        try:
            with side:
                while data := side.recv(65536):
                    side.sendall(data)
        except OSError:  # reset
            return

    def serve():
        while True:
            try:
                side, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(side,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    yield f"127.0.0.1:{listener.getsockname()[1]}"
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


@pytest.fixture
def relay(echo):
    with Relay(echo) as relay:
        yield relay


def connected(relay):
    host, _, port = relay.address.rpartition(":")
    client = socket.create_connection((host, int(port)), timeout=10)
    try:
        client.sendall(b"hello")
        assert received(client, 5) == b"hello"
    except BaseException:
        client.close()
        raise
    return client


def received(client, count):
    data = b""
    while len(data) < count and (piece := client.recv(count - len(data))):
        data += piece
    return data


def test_bytes_pass_both_ways_and_are_counted(relay):
    with connected(relay) as client:
        client.sendall(b"x" * 100_000)
        assert received(client, 100_000) == b"x" * 100_000
    assert relay.connections == 1
    assert relay.carried == {UP: 100_005, DOWN: 100_005}


def test_round_trips_are_counted(relay):
    with connected(relay) as client:
        for _ in range(7):
            client.sendall(b"again")
            received(client, 5)
    assert relay.turns == 8


def test_a_cut_ends_all_connections_in_order_and_later_ones_pass(relay):
    with connected(relay) as one, connected(relay) as other:
        assert relay.cut() == 2
        assert one.recv(1) == b"" and other.recv(1) == b""
    connected(relay).close()


def test_a_reset_is_one(relay):
    with connected(relay) as client:
        relay.cut(reset=True)
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_a_fuse_cuts_in_the_middle_of_a_message(relay):
    with connected(relay) as client:
        relay.cut_after(3, DOWN)
        assert relay.armed
        client.sendall(b"message")
        assert received(client, 7) == b"mes"
        assert not relay.armed and relay.drops == 1
    connected(relay).close()


def test_a_fuse_upwards_keeps_the_rest_from_the_server(relay):
    with connected(relay) as client:
        relay.cut_after(4, UP)
        client.sendall(b"request")
        assert len(received(client, 7)) <= 4
    assert relay.carried[UP] == 5


def test_a_frozen_wire_carries_nothing_and_closes_nothing(relay):
    with connected(relay) as client:
        relay.freeze()
        client.sendall(b"lost?")
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(1)
        relay.thaw()
        client.settimeout(10)
        assert received(client, 5) == b"lost?"


def test_a_delay_is_paid_in_each_direction(relay):
    with connected(relay) as client:
        relay.delay_s = 0.05
        began = time.monotonic()
        client.sendall(b"later")
        assert received(client, 5) == b"later"
        assert time.monotonic() - began >= 0.1


def test_a_cap_holds(relay):
    with connected(relay) as client:
        relay.bytes_per_s = 50_000
        began = time.monotonic()
        client.sendall(b"x" * 10_000)
        received(client, 10_000)
        assert time.monotonic() - began >= 0.2


def test_a_drip_comes_in_small_pieces(relay):
    with connected(relay) as client:
        relay.piece_bytes, relay.delay_s = 1, 0.0
        relay.bytes_per_s = 200
        client.sendall(b"drops")
        first = client.recv(5)
        assert len(first) < 5
        assert first + received(client, 5 - len(first)) == b"drops"


def test_a_refusing_wire_takes_nobody(relay):
    relay.refuse()
    with pytest.raises(ConnectionError):
        connected(relay)
    assert relay.refused == 1
    relay.refuse(False)
    connected(relay).close()


def test_nobody_at_the_target_is_a_closed_connection():
    unused = socket.create_server(("127.0.0.1", 0))
    target = f"127.0.0.1:{unused.getsockname()[1]}"
    unused.close()
    with Relay(target) as relay:
        host, _, port = relay.address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=10) as client:
            assert client.recv(1) == b""
