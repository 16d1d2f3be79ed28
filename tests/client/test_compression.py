"""A user chooses when replies are packed and gets the same numbers; the server says where a step spent its time."""

import grpc
import numpy as np
import pytest

from simservice.client.channel import Connection
from simservice.client.session import RemoteSession
from simservice.protocol.packing import CODECS_KEY
from simservice.protocol.v1 import service_pb2 as pb
from simservice.protocol.v1.service_pb2_grpc import WorldServiceStub

LANES = 1024  # observations of 16 KiB and more


def played(address, compression):
    session = RemoteSession(address, "toy", num_envs=LANES, compression=compression)
    seen = [session.reset(seeds=np.arange(LANES)).observation["observation"]]
    for step in range(3):
        result = session.step({"action": np.full(LANES, step % 3)})
        seen += [result.observation["observation"], result.reward]
    session.close()
    return seen


def test_packed_or_not_the_numbers_are_the_same(toy_server):
    plain = played(toy_server.address, "never")
    for compression in ("auto", "always"):
        for one, other in zip(plain, played(toy_server.address, compression), strict=True):
            assert np.array_equal(one, other)


@pytest.mark.parametrize(("said", "packed"), [("zstd, always", True), ("zstd", False), (None, False)])
def test_replies_are_packed_as_the_caller_offers(toy_server, said, packed):
    calls = [
        pb.PlayRequest(open=pb.Open(world="toy", num_envs=4 * LANES, open_key=bytes(16))),
        pb.PlayRequest(sequence=1, reset=pb.Reset()),
        pb.PlayRequest(close=pb.Close()),
    ]
    metadata = [] if said is None else [("simservice-codecs", said)]
    with grpc.insecure_channel(toy_server.address) as channel:
        replies = list(WorldServiceStub(channel).Play(iter(calls), metadata=metadata))
    assert bool(replies[1].packed) == packed  # random numbers: a little smaller, eight times never


@pytest.mark.parametrize(
    ("address", "here"),
    [("127.0.0.1:1", True), ("localhost:1", True), ("[::1]:1", True), ("unix:/tmp/x", True), ("10.1.2.3:1", False)],
)
def test_auto_asks_for_packed_replies_from_other_machines_alone(address, here):
    offers = {
        how: CODECS_KEY in dict(Connection(address, "toy", compression=how)._metadata_of_streams)
        for how in ("auto", "always", "never")
    }
    assert offers["auto"] is not here
    assert offers["always"] and not offers["never"]


def test_the_server_says_where_a_step_spent_its_time(toy_server):
    session = RemoteSession(toy_server.address, "toy", num_envs=64)
    session.reset()
    assert session.server.total_s > 0 and session.server.model_s == 0
    session.step({"action": np.zeros(64, dtype=np.int64)})
    server = session.server
    assert min(server.queue_s, server.wait_s, server.model_s, server.encode_s) > 0
    assert 0 <= server.rest_s < server.total_s
    session.close()


def test_a_stored_reply_tells_no_times_of_the_step_that_it_answers(toy_server):
    step = pb.PlayRequest(sequence=2, step=pb.Step(action=pb.Values(leaves=[bytes(8)])))
    calls = [
        pb.PlayRequest(open=pb.Open(world="toy", num_envs=1, open_key=bytes(range(16)))),
        pb.PlayRequest(sequence=1, reset=pb.Reset()),
        step,
        step,
        pb.PlayRequest(close=pb.Close()),
    ]
    with grpc.insecure_channel(toy_server.address) as channel:
        first, again = list(WorldServiceStub(channel).Play(iter(calls)))[2:4]
    assert first.model_ns > 0 and again.server_ns > 0
    assert (again.queue_ns, again.wait_ns, again.model_ns, again.encode_ns) == (0, 0, 0, 0)
    assert again.stepped == first.stepped
