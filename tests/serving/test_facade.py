"""The wire as any gRPC client sees it: one stream is one session, errors inside the stream or as its status."""

import json
import os
import queue

import grpc
import numpy as np
import pytest
from grpc_status import rpc_status
from gymnasium import spaces

from simservice.errors import (
    InternalError,
    InvalidInput,
    SequenceGap,
    SessionClosed,
    SessionFenced,
    UnknownSession,
    UnknownWorld,
)
from simservice.protocol.messages import decode_world
from simservice.protocol.status import ERROR_METADATA_KEY, error_from_message, error_from_status
from simservice.protocol.v1 import service_pb2 as pb
from simservice.protocol.v1 import world_pb2 as world_pb
from simservice.protocol.v1.service_pb2_grpc import WorldServiceStub
from simservice.telemetry import exposition


class Player:
    """One Play stream, by hand."""

    def __init__(self, stub, application=""):
        self._requests = queue.SimpleQueue()
        metadata = [("application", application)] if application else None
        self.call = stub.Play(iter(self._requests.get, None), metadata=metadata)

    def ask(self, sequence=0, **call):
        self._requests.put(pb.PlayRequest(sequence=sequence, **call))
        return next(self.call)

    def refused(self, sequence=0, **call):
        reply = self.ask(sequence, **call)
        assert reply.sequence == sequence
        return error_from_message(reply.error)

    def ends(self, sequence=0, **call):
        with pytest.raises(grpc.RpcError) as caught:
            self.ask(sequence, **call)
        return status_of(caught.value)

    def hang_up(self):
        self._requests.put(None)


def status_of(error):
    """The error in the trailing metadata, which tells the same as the status."""
    [message] = [value for key, value in error.trailing_metadata() if key == ERROR_METADATA_KEY]
    ours = error_from_message(pb.Error.FromString(message))
    assert error.details() == str(ours)
    assert error.code().name == ours.code
    standard = rpc_status.from_call(error)  # as gRPC's own library reads it
    assert type(error_from_status(standard)) is type(ours)
    return ours


@pytest.fixture
def stub(toy_server):
    with grpc.insecure_channel(toy_server.address) as channel:
        yield WorldServiceStub(channel)


@pytest.fixture
def player(stub):
    playing = Player(stub)
    yield playing
    playing.hang_up()


def open_call(world="toy", num_envs=2, key=None, **fields):
    return {"open": pb.Open(world=world, num_envs=num_envs, open_key=key or os.urandom(16), **fields)}


def step_call(*actions):
    return {"step": pb.Step(action=pb.Values(leaves=[np.array(actions, "<i8").tobytes()]))}


def reset_call(**fields):
    return {"reset": pb.Reset(**fields)}


def rows(values, dtype="<f4", width=4):
    return np.frombuffer(values.leaves[0], dtype).reshape(-1, width)


def test_worlds_are_listed_by_name_with_their_whole_contract(stub):
    worlds = stub.ListWorlds(pb.ListWorldsRequest()).worlds
    assert [world.name for world in worlds] == ["noisy", "toy"]
    contract = decode_world(worlds[1])
    assert contract.spec.observation_space == spaces.Box(-np.inf, np.inf, (4,), np.float32)
    assert contract.spec.action_space == spaces.Discrete(3)
    assert contract.spec.max_episode_steps == 200
    assert contract.limits.lane_bytes == 32
    assert contract.limits.max_context_frames > 0
    assert contract.server_version
    full_name = f"toy@{worlds[1].version}"
    for name in ("toy", full_name):
        assert stub.GetWorld(pb.GetWorldRequest(world=name)).world == worlds[1]


@pytest.mark.parametrize("name", ["tou", "toy@0123456789ab", ""])
def test_an_unknown_world_is_not_found_and_the_message_names_what_there_is(stub, player, name):
    with pytest.raises(grpc.RpcError) as caught:
        stub.GetWorld(pb.GetWorldRequest(world=name))
    error = status_of(caught.value)
    assert isinstance(error, UnknownWorld)
    assert "toy" in str(error)
    if name:
        assert isinstance(player.ends(**open_call(name)), UnknownWorld)


def test_a_session_from_open_to_close(player):
    opened = player.ask(**open_call(num_envs=3)).opened
    assert (opened.num_envs, opened.last_sequence, len(opened.session)) == (3, 0, 32)
    assert opened.autoreset_mode == world_pb.AUTORESET_MODE_NEXT_STEP
    assert opened.world.name == "toy"
    begun = player.ask(1, **reset_call(seeds=np.array([1, 2, 3], "<i8").tobytes()))
    assert begun.sequence == 1
    assert begun.server_ns > 0
    x = rows(begun.reset.observation).astype(np.float64)
    stepped = player.ask(2, **step_call(0, 1, 2)).stepped
    expected = 1.05 * x + 0.1 * np.array([[-1.0], [0.0], [1.0]])
    assert np.allclose(rows(stepped.observation), expected, atol=1e-6)
    assert np.allclose(np.frombuffer(stepped.rewards, "<f8"), expected.sum(1), atol=1e-5)
    assert stepped.terminated == bytes(3)
    assert stepped.truncated == bytes(3)
    assert player.ask(3, close=pb.Close()).HasField("closed")
    with pytest.raises(StopIteration):
        next(player.call)
    assert player.call.code() == grpc.StatusCode.OK


def test_forks_and_points_are_numbered_requests_with_one_effect(stub, player):
    player.ask(**open_call(num_envs=3))
    shown = rows(player.ask(1, **reset_call()).reset.observation)
    fork = {"fork": pb.Fork(lanes=[2, 0], copies=2, luck=pb.LUCK_FRESH, fork_key=bytes(16))}
    forked = player.ask(2, **fork).forked
    assert player.ask(2, **fork).forked == forked
    assert (forked.num_envs, len(forked.session)) == (4, 32)
    child = Player(stub, "toy")
    opened = child.ask(resume=pb.Resume(session=forked.session)).opened
    assert (opened.num_envs, opened.last_sequence) == (4, 0)
    child.ask(1, **step_call(1, 1, 1, 1))
    child.ask(close=pb.Close())
    point = player.ask(3, save=pb.Save()).saved.point
    player.ask(4, **step_call(0, 1, 2))
    restored = player.ask(5, restore=pb.Restore(point=point)).restored
    assert np.array_equal(rows(restored.observation), shown)
    assert player.ask(5, restore=pb.Restore(point=point)).restored == restored
    assert player.ask(6, forget=pb.Forget(points=[point])).HasField("forgotten")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"fork": pb.Fork(copies=1, luck=7, fork_key=bytes(16))}, "luck: 7 is no luck"),
        ({"fork": pb.Fork(copies=1)}, "fork_key: it has 0 bytes"),
        ({"fork": pb.Fork(fork_key=bytes(16))}, "copies: 0 copies"),
        ({"fork": pb.Fork(copies=1, luck=pb.LUCK_FRESH, seeds=bytes(9), fork_key=bytes(16))}, "seeds: 9 bytes"),
        ({"restore": pb.Restore(point=9)}, "no point 9"),
        ({"forget": pb.Forget()}, "points: 0 were sent"),
        ({"forget": pb.Forget(points=range(1025))}, "points: 1025 were sent, 1 to 1024 can be"),
    ],
)
def test_a_branch_that_cannot_be_meant_is_refused_and_uses_no_number(player, call, message):
    player.ask(**open_call())
    player.ask(1, **reset_call())
    assert message in str(player.refused(2, **call))
    player.ask(2, **step_call(0, 1))


def test_a_refused_request_changes_nothing_and_the_stream_goes_on(player):
    player.ask(**open_call())
    player.ask(1, **reset_call())
    cases = [
        (step_call(0, 3), r"action: 3 \(lane 1\) lies outside Discrete\(3\)"),
        (step_call(0), "action: 8 bytes"),
        ({"step": pb.Step()}, "action: 0 leaves were sent"),
        (reset_call(mask=b"\1"), "mask: 1 bytes"),
        (reset_call(options_json="{"), "options: is no JSON"),
        (reset_call(options_json=json.dumps({"gravity": 1})), "options: unknown: 'gravity'"),
        (open_call(), "call: open was sent on a stream that has its session already"),
        ({"render": pb.Render()}, "render: world toy@[0-9a-f]+ has no render mode"),
        ({}, "call: nothing was sent"),
    ]
    for call, message in cases:
        error = player.refused(2, **call)
        assert isinstance(error, InvalidInput)
        with pytest.raises(InvalidInput, match=message):
            raise error
    assert player.ask(2, **step_call(1, 1)).HasField("stepped")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_envs": 0}, "num_envs: 0 is not between 1 and 4096"),
        ({"num_envs": 4097}, "num_envs: 4097"),
        ({"key": b"short"}, "open_key"),
        ({"autoreset_mode": 9}, "autoreset_mode: 9 is no autoreset mode"),
    ],
)
def test_a_wrong_open_is_refused_and_may_be_tried_again(player, fields, message):
    error = player.refused(**open_call(**fields))
    with pytest.raises(InvalidInput, match=message):
        raise error
    assert player.ask(**open_call()).HasField("opened")


def test_a_stream_must_begin_with_open_or_resume(player):
    error = player.ends(1, **step_call(0))
    assert isinstance(error, SessionClosed)
    assert "first message must be open or resume" in str(error)


def test_a_repeat_gets_the_first_answer_and_a_gap_names_the_expected_number(player):
    player.ask(**open_call("noisy"))
    player.ask(1, **reset_call())
    first = player.ask(2, **step_call(0, 0))
    again = player.ask(2, **step_call(2, 2))
    assert again.stepped == first.stepped
    error = player.ends(4, **step_call(0, 0))
    assert isinstance(error, SequenceGap)
    assert error.details["expected"] == "3"


def test_a_session_outlives_its_stream_and_the_later_of_two_streams_wins(stub):
    first = Player(stub)
    token = first.ask(**open_call("noisy")).opened.session
    first.ask(1, **reset_call())
    before = first.ask(2, **step_call(1, 1)).stepped
    second = Player(stub, application="noisy")
    opened = second.ask(resume=pb.Resume(session=token)).opened
    assert (opened.session, opened.last_sequence, opened.num_envs) == (token, 2, 2)
    assert second.ask(2, **step_call(1, 1)).stepped == before
    second.ask(3, **step_call(1, 1))
    assert isinstance(first.ends(3, **step_call(1, 1)), SessionFenced)
    second.ask(4, **step_call(1, 1))
    second.hang_up()


def test_a_resume_needs_to_say_which_of_several_worlds_it_means(stub):
    lost = Player(stub)
    error = lost.refused(resume=pb.Resume(session="0" * 32))
    assert isinstance(error, InvalidInput)
    assert "application" in str(error)
    unknown = Player(stub, application="toy")
    assert isinstance(unknown.ends(resume=pb.Resume(session="0" * 32)), UnknownSession)


def test_the_application_names_the_world_of_an_open_that_does_not(stub):
    playing = Player(stub, application="noisy")
    assert playing.ask(**open_call(world="")).opened.world.name == "noisy"
    playing.hang_up()


def test_pipelined_requests_are_answered_in_order(player):
    player.ask(**open_call())
    for sequence in range(1, 21):
        call = step_call(1, 1) if sequence > 1 else reset_call()
        player._requests.put(pb.PlayRequest(sequence=sequence, **call))
    assert [next(player.call).sequence for _ in range(20)] == list(range(1, 21))


def test_bytes_that_are_no_request_are_an_invalid_argument_and_the_server_goes_on(toy_server, player):
    with grpc.insecure_channel(toy_server.address) as channel:
        play = channel.stream_stream("/simservice.protocol.v1.WorldService/Play")
        with pytest.raises(grpc.RpcError) as caught:
            next(play(iter([b"\xff" * 60])))
    found = status_of(caught.value)
    assert isinstance(found, InvalidInput) and "no PlayRequest" in str(found)
    assert player.ask(open=pb.Open(world="toy", num_envs=1, open_key=os.urandom(16))).opened.session


def test_an_unexpected_failure_is_internal_with_an_id_and_no_trace(toy_server, stub, player, monkeypatch, caplog):
    async def broken(session):
        raise ZeroDivisionError("secret detail")

    player.ask(**open_call())
    replica = next(replica for replica in toy_server.service.replicas if replica.hosted.name == "toy")
    monkeypatch.setattr(replica.service, "render", broken)
    error = player.ends(render=pb.Render())
    assert isinstance(error, InternalError)
    assert "secret" not in str(error)
    assert "Traceback" not in str(error)
    assert error.details["id"] in str(error)
    assert error.details["id"] in caplog.text
    assert "secret detail" in caplog.text


def test_calls_are_counted_by_code(toy_server, player):
    player.ask(**open_call("noisy"))
    player.ask(1, **reset_call())
    player.refused(2, **step_call(7, 7))
    player.ask(2, **step_call(1, 1))
    replica = next(replica for replica in toy_server.service.replicas if replica.hosted.name == "noisy")
    page = exposition(replica.metrics.registry)
    assert 'simservice_env_rpc_total{call="step",code="INVALID_ARGUMENT",world="noisy"}' in page
    assert 'simservice_env_rpc_total{call="step",code="OK",world="noisy"}' in page
    assert 'simservice_imagined_steps_total{world="noisy"}' in page
    journaled = next(
        line for line in page.splitlines() if line.startswith("simservice_journal_append_duration_seconds_count")
    )
    assert float(journaled.split()[-1]) >= 2
