"""One stream of messages, where the thread that waits for an answer is the one that reads the socket.

gRPC's own streams hand every message from thread to thread: the request's to one, its completion to a second, the
answer to a third. With nothing else to do each of them sleeps when its turn comes, which costs a third of a short
exchange. gRPC's blocking calls of one answer do without, and so does this file, by the same parts of its inside; where
a release of gRPC has them no longer, its own streams serve.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue
from typing import Any, NoReturn, Protocol

from simservice.protocol.polling import grpc

try:
    from grpc._cython import cygrpc

    _PARTS = (
        cygrpc.SendInitialMetadataOperation,
        cygrpc.ReceiveInitialMetadataOperation,
        cygrpc.ReceiveStatusOnClientOperation,
        cygrpc.SendMessageOperation,
        cygrpc.ReceiveMessageOperation,
        cygrpc.OperationType.receive_message,
        cygrpc.StatusCode.cancelled,
        cygrpc.is_fork_support_enabled,
    )
except (ImportError, AttributeError):  # its inside has changed
    cygrpc = None

Metadata = Sequence[tuple[str, Any]]
PLAIN = 0  # no flags
SENT, RECEIVED = "sent", "received"

_CODES: dict[int, str] = {code.value[0]: code.name for code in grpc.StatusCode}


def status_name(code: int) -> str:
    """UNKNOWN for numbers that are none."""
    return _CODES.get(code, "UNKNOWN")


class Ended(Exception):
    """The stream is over, for whatever reason: the status's name, its words and what it carries behind."""

    def __init__(self, code: str, details: str, metadata: Metadata) -> None:
        super().__init__(details)
        self.code = code
        self.details = details
        self.metadata = metadata


class Wire(Protocol):
    """A stream of serialised messages. One thread at a time sends and receives; any may cancel."""

    def send(self, message: bytes) -> None:
        """Sends; the answer is to be received next. Never waits."""

    def receive(self) -> bytes | bytearray:
        """The next message, waiting for it, as bytes or in a bytearray that is the caller's alone; Ended where there
        will be none."""

    def cancel(self) -> None:
        """Ends the stream, and whoever waits for it."""

    def drain(self) -> None:
        """Takes what is left of a stream that was cancelled, so that nothing is kept of it."""


def wire(channel: grpc.Channel, method: str, metadata: Metadata) -> Wire:
    """A new stream by the way that waits least."""
    within = getattr(channel, "_channel", None)
    # A forked child waits until streams have ended, which gRPC's threads see to, and nobody for one like this.
    if cygrpc is not None and not cygrpc.is_fork_support_enabled() and hasattr(within, "segregated_call"):
        try:
            return _OwnWire(within, method, metadata)
        except TypeError:  # it takes other arguments in this release
            pass
    return _StreamWire(channel, method, metadata)


class _OwnWire:
    """Driven by whoever waits."""

    def __init__(self, channel: Any, method: str, metadata: Metadata) -> None:
        starts = (
            ((cygrpc.SendInitialMetadataOperation(tuple(metadata), PLAIN),), ("begin", 0)),
            ((cygrpc.ReceiveStatusOnClientOperation(PLAIN),), ("status", 0)),
            ((cygrpc.ReceiveInitialMetadataOperation(PLAIN),), ("began", 0)),
        )
        self._due = len(starts)  # batches of operations that are not over
        self._number = 0
        self._sending = False  # gRPC takes one message at a time
        self._status: tuple[int, str, Metadata] | None = None
        self._one = threading.Lock()
        default = cygrpc.PropagationConstants.GRPC_PROPAGATE_DEFAULTS
        try:
            self._call = channel.segregated_call(
                default, method.encode(), None, None, tuple(metadata), None, starts, None, None
            )
        except ValueError as error:  # the channel is closed, or the metadata is none
            self._due, self._status = 0, (grpc.StatusCode.CANCELLED.value[0], str(error), ())

    def send(self, message: bytes) -> None:
        # Apart from the receiving: what the server said before it ended the stream is lost with a message that fails.
        with self._one:
            while self._sending and self._due:
                self._pull()
            self._sending = True
            self._operate(SENT, cygrpc.SendMessageOperation(message, PLAIN))

    def receive(self) -> bytes:
        with self._one:
            self._operate(RECEIVED, cygrpc.ReceiveMessageOperation(PLAIN))
            while self._due:
                message = self._pull()
                if message is not None:
                    return message
            self._end()

    def cancel(self) -> None:
        if self._due:
            self._call.cancel(cygrpc.StatusCode.cancelled, "cancelled by this side")

    def drain(self) -> None:
        if self._one.acquire(blocking=False):  # else whoever waits takes it
            try:
                while self._due:
                    self._pull()
            finally:
                self._one.release()

    def _operate(self, kind: str, operation: Any) -> None:
        if self._status is not None:
            return
        self._number += 1
        self._due += 1
        try:
            self._call.operate((operation,), (kind, self._number))
        except BaseException:
            self._due -= 1
            raise

    def _pull(self) -> bytes | None:
        """Waits for the end of one batch; the message that it brought."""
        try:
            event = self._call.next_event()
        except BaseException:  # a signal's handler raised, and gRPC has cancelled the call and given it up
            self._due, self._status = 0, (grpc.StatusCode.CANCELLED.value[0], "the wait was interrupted", ())
            raise
        self._due -= 1
        if event.tag[0] == SENT:
            self._sending = False
        found: bytes | None = None
        for operation in event.batch_operations:
            kind = operation.type()
            if kind == cygrpc.OperationType.receive_message:
                found = operation.message()
            elif kind == cygrpc.OperationType.receive_status_on_client:
                self._status = (operation.code(), operation.details(), operation.trailing_metadata() or ())
        return found

    def _end(self) -> NoReturn:
        assert self._status is not None
        code, details, metadata = self._status
        words = details.decode(errors="replace") if isinstance(details, bytes) else details or ""
        raise Ended(status_name(code), words, metadata)


class _StreamWire:
    """gRPC's own stream."""

    def __init__(self, channel: grpc.Channel, method: str, metadata: Metadata) -> None:
        self._messages: SimpleQueue[bytes | None] = SimpleQueue()
        call: Callable[..., Iterator[bytes]] = channel.stream_stream(method)
        self._call: Any = call(iter(self._messages.get, None), metadata=metadata)

    def send(self, message: bytes) -> None:
        self._messages.put(message)

    def receive(self) -> bytes:
        try:
            message: bytes = next(self._call)
        except StopIteration:
            raise Ended("OK", "", ()) from None
        except grpc.RpcError as error:
            raise Ended(error.code().name, error.details() or "", error.trailing_metadata() or ()) from None
        return message

    def cancel(self) -> None:
        self._messages.put(None)
        self._call.cancel()

    def drain(self) -> None:
        """Its threads do."""
