"""Every row of the error table, from a server that fails with it to the exception that a user of the client sees."""

import asyncio
import threading

import grpc
import pytest
from error_examples import EXAMPLES

from simservice import errors
from simservice.client.channel import Connection
from simservice.protocol.error_table import BARE, RETRIED, ROWS
from simservice.protocol.status import ERROR_METADATA_KEY, STATUS_METADATA_KEY, error_metadata, grpc_code, wire_text
from simservice.protocol.v1 import service_pb2 as pb
from simservice.protocol.v1.service_pb2_grpc import WorldServiceServicer, add_WorldServiceServicer_to_server

ON_THE_WIRE = {row.error for row in ROWS if row.on_the_wire}
FAILING = [error for error in EXAMPLES if type(error) in ON_THE_WIRE]


class FailingServer(WorldServiceServicer):
    """GetWorld fails with what `error` and `keys` say, or with the bare status `code`."""

    def __init__(self):
        self.error = self.code = None
        self.keys = ()
        self.address = ""

    async def GetWorld(self, request, context):
        if self.code is not None:
            await context.abort(self.code, "as a proxy would")
        context.set_code(grpc_code(self.error))
        context.set_details(wire_text(self.error))
        context.set_trailing_metadata([(k, v) for k, v in error_metadata(self.error) if k in self.keys])
        return pb.GetWorldReply()

    def serve(self, ready, stop):
        async def main():
            server = grpc.aio.server()
            add_WorldServiceServicer_to_server(self, server)
            self.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
            await server.start()
            ready.set()
            await asyncio.to_thread(stop.wait)
            await server.stop(0)

        asyncio.run(main())


@pytest.fixture(scope="module")
def peer():
    peer, ready, stop = FailingServer(), threading.Event(), threading.Event()
    thread = threading.Thread(target=peer.serve, args=(ready, stop), daemon=True)
    thread.start()
    assert ready.wait(10)
    yield peer
    stop.set()
    thread.join(10)


@pytest.fixture(scope="module")
def connection(peer):
    connection = Connection(peer.address, "world")
    yield connection
    connection.close()


@pytest.mark.parametrize("keys", [(ERROR_METADATA_KEY, STATUS_METADATA_KEY), (STATUS_METADATA_KEY,)], ids=len)
@pytest.mark.parametrize("error", FAILING, ids=lambda error: type(error).__name__)
def test_the_client_raises_what_the_server_failed_with(peer, connection, error, keys):
    peer.error, peer.keys, peer.code = error, keys, None
    with pytest.raises(errors.SimserviceError) as raised:
        connection.get_world("world", 5.0)
    assert type(raised.value) is type(error)
    assert (str(raised.value), raised.value.details) == (str(error), error.details)
    assert raised.value.retry_after_s == error.retry_after_s
    assert raised.value.recoverable == error.recoverable


CODES = [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]


@pytest.mark.parametrize("code", CODES, ids=lambda code: code.name)
def test_a_bare_status_becomes_what_the_table_says(peer, connection, code):
    peer.code = code
    with pytest.raises(errors.SimserviceError) as raised:
        connection.get_world("world", 5.0)
    retried = errors.ServerUnavailable if code.name in RETRIED else errors.InternalError
    assert type(raised.value) is BARE.get(code.name, retried)


def test_a_server_takes_neither_endless_headers_nor_endless_messages(toy_server):
    with grpc.insecure_channel(toy_server.address) as channel:
        ask = channel.unary_unary("/simservice.protocol.v1.WorldService/GetWorld")
        for request, metadata in (
            (b"", [("authorization", "Bearer " + "x" * 200_000)]),
            (b"", [(f"key-{i}", "x" * 100) for i in range(1000)]),
            (b"\x0a" + b"\xff\xff\xff\x1f" + bytes(2**26), []),
        ):
            with pytest.raises(grpc.RpcError) as refused:
                ask(request, metadata=metadata, timeout=20)
            assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    connection = Connection(toy_server.address)
    assert len(connection.list_worlds(5.0)) == 2
    connection.close()
