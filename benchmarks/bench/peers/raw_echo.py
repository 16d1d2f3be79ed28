"""The ceiling: a bare grpc.aio server that answers bytes of given sizes and does nothing, and a blocking client.

As a program: `python -m bench.peers.raw_echo BYTES [SECONDS]` serves and prints its address; it sleeps so long before
each answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator

import grpc

from bench.processes import served_by
from bench.timing import Round, timed

PLAY = "/simservice.protocol.v1.WorldService/Play"
OPTIONS = (("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1))


class RawStream:
    """A bidirectional stream of bytes: what the wire costs, without anybody's encoding."""

    def __init__(self, address: str, application: str = "toy") -> None:
        self._requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._channel = grpc.insecure_channel(address, options=OPTIONS)
        call = self._channel.stream_stream(PLAY, request_serializer=None, response_deserializer=None)
        self._replies = call(iter(self._requests.get, None), metadata=[("application", application)])

    def ask(self, request: bytes) -> bytes:
        """Sends, waits, returns."""
        self._requests.put(request)
        reply: bytes = next(self._replies)
        return reply

    def close(self) -> None:
        """Ends the stream."""
        self._requests.put(None)
        self._channel.close()


class Echo:
    """Sends the same bytes again and again."""

    def __init__(self, stream: RawStream, request: bytes, lanes: int) -> None:
        self._stream, self._request, self._lanes = stream, request, lanes

    def play(self, seconds: float) -> Round:
        """Exchanges for so long."""
        return timed(lambda: self._stream.ask(self._request), self._lanes, seconds)


@contextlib.contextmanager
def peer(lanes: int, request_bytes: int, reply_bytes: int) -> Iterator[Echo]:
    """An echo of messages as long as the service's own."""
    server = served_by("bench.peers.raw_echo", reply_bytes)
    with server as address, contextlib.closing(RawStream(address)) as stream:
        yield Echo(stream, os.urandom(request_bytes), lanes)


def serve(answer: Callable[[bytes], bytes]) -> None:
    """Answers every message of every stream until the process is ended; prints the address."""

    async def play(requests: AsyncIterator[bytes], context: object) -> AsyncIterator[bytes]:
        async for request in requests:
            yield answer(request)

    serve_streams(play)


def serve_streams(play: Callable[[AsyncIterator[bytes], object], AsyncIterator[bytes]]) -> None:
    """The same of streams that are answered by something of one's own."""

    async def main() -> None:
        server = grpc.aio.server(options=OPTIONS)
        service, method = PLAY.removeprefix("/").split("/")
        handler = grpc.method_handlers_generic_handler(service, {method: grpc.stream_stream_rpc_method_handler(play)})
        server.add_generic_rpc_handlers((handler,))
        print(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}", flush=True)
        await server.start()
        await server.wait_for_termination()

    asyncio.run(main())


if __name__ == "__main__":
    REPLY = os.urandom(int(sys.argv[1]))
    SECONDS = float(sys.argv[2]) if len(sys.argv) > 2 else 0.0

    def _late(request: bytes) -> bytes:
        time.sleep(SECONDS)
        return REPLY

    serve(_late if SECONDS else lambda request: REPLY)
