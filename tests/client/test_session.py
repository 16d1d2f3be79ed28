"""A session goes on exactly where it was, whatever happens to its connection, or says that it cannot."""

import math
import os
import random
import signal
import socket
import subprocess
import sys
import threading

import grpc
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from scripted_peer import ScriptedPeer

from simservice.client.session import RemoteSession
from simservice.errors import (
    CapacityExhausted,
    InternalError,
    InvalidInput,
    ServerUnavailable,
    SessionClosed,
    SessionFenced,
    SessionLost,
    StoreUnavailable,
    UnknownSession,
    UnknownWorld,
)
from simservice.protocol.messages import encode_frames
from simservice.protocol.status import error_to_message
from simservice.protocol.v1 import service_pb2 as pb

ACTION = {"action": np.array([0, 1])}


@pytest.fixture
def peer():
    with ScriptedPeer() as peer:
        yield peer


@pytest.fixture
def connect(peer):
    sessions = []

    def connect(**arguments):
        ready = {"num_envs": 2, "patience_s": 10.0, "timeout_s": 10.0}
        sessions.append(RemoteSession(peer.address, "count@0123456789ab", **ready | arguments))
        return sessions[-1]

    yield connect
    for session in sessions:
        session.close()


def only(peer):
    (session,) = peer.sessions.values()
    return session


def count(result):
    assert (result.observation["observation"] == result.observation["observation"][0]).all()
    return int(result.observation["observation"][0, 0])


def at(number, *faults):
    """Each time request `number` arrives, the next of the faults."""
    waiting = list(faults)
    return lambda stream, request: waiting.pop(0) if request.sequence == number and waiting else None


def test_a_session_steps_and_tells_the_router_its_world(peer, connect):
    session = connect()
    assert session.contract.spec.full_name == "count@0123456789ab"
    assert count(session.reset()) == 0
    assert [count(session.step(ACTION)) for _ in range(3)] == [1, 2, 3]
    assert peer.metadata[0]["application"] == "count"
    assert only(peer).applied == [1, 2, 3, 4]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("status", ["UNAVAILABLE", "CANCELLED", "INTERNAL", "UNKNOWN", "ABORTED", "OK"])
def test_a_broken_stream_is_a_slow_step_and_nothing_else(peer, connect, when, status):
    peer.fault = at(3, (when, grpc.StatusCode[status]))
    session = connect()
    session.reset()
    assert [count(session.step(ACTION)) for _ in range(4)] == [1, 2, 3, 4]
    assert only(peer).applied == [1, 2, 3, 4, 5]
    assert (session.reconnects, peer.streams) == (1, 2)


def test_many_drops_change_no_trajectory(peer, connect):
    luck = random.Random(0)
    statuses = [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.OK]

    def fault(stream, request):
        return (luck.choice(["before", "after"]), luck.choice(statuses)) if luck.random() < 0.2 else None

    session = connect()
    peer.fault = fault
    session.reset()
    assert [count(session.step(ACTION)) for _ in range(150)] == list(range(1, 151))
    assert only(peer).applied == list(range(1, 152))
    assert session.reconnects > 10


def test_a_silent_server_is_asked_again_on_a_new_stream(peer, connect):
    peer.fault = at(2, "silence")
    session = connect(timeout_s=0.3)
    session.reset()
    assert count(session.step(ACTION)) == 1
    assert (session.reconnects, only(peer).applied) == (1, [1, 2])


def test_an_opening_whose_answer_was_lost_makes_no_second_session(peer, connect):
    peer.fault = lambda stream, request: ("after", grpc.StatusCode.UNAVAILABLE) if stream == 0 else None
    session = connect()
    assert only(peer).token == session.token


def test_a_session_that_cannot_be_resumed_in_time_is_lost_and_says_so(peer, connect):
    session = connect(patience_s=0.3)
    session.reset()
    peer.fault = lambda stream, request: ("before", grpc.StatusCode.UNAVAILABLE)
    with pytest.raises(SessionLost, match=r"within 0\.3 s \(UNAVAILABLE: as the script says\)"):
        session.step(ACTION)
    with pytest.raises(SessionClosed):
        session.step(ACTION)


def test_a_forgotten_session_is_an_error_and_never_a_new_one(peer, connect):
    session = connect()
    session.reset()
    forgotten = only(peer)
    peer.sessions.clear()
    peer.fault = at(2, ("before", grpc.StatusCode.UNAVAILABLE))
    with pytest.raises(UnknownSession):
        session.step(ACTION)
    assert not peer.sessions and forgotten.applied == [1]
    with pytest.raises(SessionClosed):
        session.reset()


def test_a_server_that_lost_answered_steps_is_an_error(peer, connect):
    session = connect()
    session.reset()
    session.step(ACTION)
    del only(peer).applied[-1], only(peer).replies[2]
    peer.fault = at(3, ("before", grpc.StatusCode.UNAVAILABLE))
    with pytest.raises(SessionLost, match="the server knows 1 requests of it, 2 were answered"):
        session.step(ACTION)


def test_a_session_somebody_else_drove_on_is_an_error(peer, connect):
    session = connect()
    session.reset()
    only(peer).applied.extend([2, 3])
    peer.fault = at(2, ("before", grpc.StatusCode.UNAVAILABLE))
    with pytest.raises(SessionFenced):
        session.step(ACTION)


def test_a_session_taken_over_is_left_alone_for_good(peer, connect):
    session = connect()
    session.reset()
    peer.fault = at(2, SessionFenced(session.token))
    with pytest.raises(SessionFenced):
        session.step(ACTION)
    with pytest.raises(SessionClosed):
        session.step(ACTION)
    assert peer.streams == 1


def test_a_resume_of_its_own_that_came_late_does_not_end_a_session(peer, connect):
    session = connect(timeout_s=0.3)
    session.reset()
    faults = {0: ("before", grpc.StatusCode.UNAVAILABLE), 1: "silence", 2: SessionFenced(session.token)}
    wanted = {0: "step", 1: "resume", 2: "step"}
    peer.fault = lambda stream, request: faults.get(stream) if request.HasField(wanted.get(stream, "close")) else None
    assert count(session.step(ACTION)) == 1
    assert peer.streams == 4


def test_a_store_that_is_away_for_a_moment_is_waited_for(peer, connect):
    peer.fault = at(2, StoreUnavailable("redis://somewhere"), StoreUnavailable("redis://somewhere"))
    session = connect()
    session.reset()
    assert count(session.step(ACTION)) == 1


@pytest.mark.parametrize("error", [CapacityExhausted(2, 8, 8), UnknownWorld("count", ["other"])])
def test_a_fleet_that_cannot_take_the_session_back_yet_is_asked_again(peer, connect, error):
    session = connect()
    session.reset()
    broken = [("before", grpc.StatusCode.CANCELLED), pb.PlayReply(error=error_to_message(error))]
    if not error.recoverable:
        broken[1] = error
    peer.fault = lambda stream, request: broken.pop(0) if broken else None
    assert count(session.step(ACTION)) == 1
    assert (peer.streams, session.reconnects) == (3, 1)


def test_a_refused_request_uses_no_number(peer, connect):
    refusal = pb.PlayReply(sequence=2, error=error_to_message(InvalidInput("action", "holds nan")))
    peer.fault = at(2, refusal)
    session = connect()
    session.reset()
    with pytest.raises(InvalidInput, match="action: holds nan"):
        session.step(ACTION)
    assert count(session.step(ACTION)) == 1
    assert only(peer).applied == [1, 2]


def test_a_request_that_failed_after_its_effect_is_counted_when_the_session_is_resumed(peer, connect):
    session = connect()
    session.reset()
    peer.fault = at(2, InternalError("the tick failed"))
    with pytest.raises(InternalError, match="the tick failed"):
        session.step(ACTION)
    only(peer).apply(pb.PlayRequest(sequence=2, step=pb.Step()))  # it was in the journal
    assert count(session.step(ACTION)) == 2
    assert only(peer).applied == [1, 2, 3]


def test_an_answer_to_another_request_is_an_error(peer, connect):
    session = connect()
    session.reset()
    peer.fault = at(2, only(peer).replies[1])
    with pytest.raises(InternalError, match="answered request 1, 2 was sent"):
        session.step(ACTION)


def test_a_step_that_was_interrupted_is_settled_before_the_next(peer, connect):
    peer.fault = at(2, "silence")
    session = connect()
    session.reset()

    def interrupt(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(KeyboardInterrupt):
            session.step(ACTION)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert count(session.step(ACTION)) == 2
    assert only(peer).applied == [1, 2, 3]


def test_threads_may_share_a_session(peer, connect):
    session = connect()
    session.reset()
    counts = []

    def work():
        counts.extend(count(session.step(ACTION)) for _ in range(20))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(counts) == list(range(1, 81))


def test_closing_frees_the_lanes_at_once_and_twice_is_fine(peer, connect):
    session = connect()
    session.close()
    session.close()
    assert only(peer).closed
    with pytest.raises(SessionClosed, match="make the environment again"):
        session.reset()


def test_a_session_nobody_holds_any_more_is_closed(peer):
    RemoteSession(peer.address, "count")
    assert only(peer).closed


def test_closing_after_an_interruption_still_frees_the_lanes(peer, connect):
    session = connect()
    session.reset()
    session._drop_stream()
    session.close()
    assert only(peer).closed


FORKING = """
import os, sys
import numpy as np
from simservice.client.session import RemoteSession

session = RemoteSession(sys.argv[1], "count", num_envs=2)
session.reset()
action = {"action": np.array([0, 1])}
child = os.fork()
if child == 0:
    try:
        session.step(action)
    except Exception as error:
        print(type(error).__name__, error, flush=True)
    session.close()
    os._exit(0)
os.waitpid(child, 0)
print(session.step(action).observation["observation"][0, 0])
session.close()
"""


def test_a_forked_child_may_neither_use_nor_close_its_parents_session(peer):
    """In a process of its own: this one has threads of other libraries, whose forked copies may not survive."""
    # Left alone, gRPC's core prepares for forks and its Python does not: one child in eight died of that at its birth.
    command, own = [sys.executable, "-c", FORKING, peer.address], {**os.environ, "GRPC_ENABLE_FORK_SUPPORT": "1"}
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, env=own)
    found = run.stdout.splitlines()
    assert found[0].startswith("SessionClosed the environment made before this process was forked is closed")
    assert found[1] == "1.0"
    assert only(peer).applied == [1, 2]


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("localhost", "not host:port"),
        ("http://localhost:50051", "not host:port"),
        ("localhost:99999", "not host:port"),
        ("", "not host:port"),
        (50051, "no text"),
    ],
)
def test_an_address_that_is_none_is_refused_with_an_example(address, words):
    with pytest.raises(InvalidInput, match=words) as caught:
        RemoteSession(address, "count")
    assert "localhost:50051" in str(caught.value)


def test_a_wrong_address_is_told_soon_and_says_what_to_do():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(
            ServerUnavailable, match=f"no world service answers at {address} .*refused.*simservice serve"
        ):
            RemoteSession(address, "count", connect_timeout_s=0.5)


def test_a_host_that_does_not_exist_is_named():
    with pytest.raises(ServerUnavailable, match=r"nowhere\.invalid:50051"):
        RemoteSession("nowhere.invalid:50051", "count", connect_timeout_s=0.5)


def test_something_else_that_listens_is_no_world_service():
    with socket.create_server(("127.0.0.1", 0)) as mute, pytest.raises(ServerUnavailable, match="no world service"):
        RemoteSession(f"127.0.0.1:{mute.getsockname()[1]}", "count", connect_timeout_s=0.5)


def test_a_router_that_knows_no_such_world_is_understood(peer, connect):
    peer.fault = lambda stream, request: ("before", grpc.StatusCode.NOT_FOUND)
    with pytest.raises(UnknownWorld, match="no world 'count@0123456789ab' is served here"):
        connect()


def test_a_message_beyond_the_limit_is_told_as_such(peer, connect):
    session = connect()
    session.reset()
    peer.fault = at(2, ("before", grpc.StatusCode.RESOURCE_EXHAUSTED))
    with pytest.raises(InvalidInput, match="message: as the script says"):
        session.step(ACTION)


def test_an_answer_beyond_grpcs_usual_four_mebibytes_arrives(peer, connect):
    frames = np.arange(2 * 1024 * 1024 * 3, dtype=np.uint32).astype(np.uint8).reshape(2, 1024, 1024, 3)
    rendered = pb.PlayReply(rendered=encode_frames(frames))
    peer.fault = lambda stream, request: rendered if request.HasField("render") else None
    assert np.array_equal(connect().render(), frames)


def test_the_mode_asked_for_is_the_mode_sent(peer, connect):
    modes = []
    peer.fault = lambda stream, request: modes.append(request.open.autoreset_mode)
    connect(autoreset_mode=AutoresetMode.SAME_STEP).close()
    assert modes[0] == 2


@pytest.mark.parametrize("name", ["timeout_s", "patience_s", "connect_timeout_s"])
@pytest.mark.parametrize("seconds", [-1.0, math.nan, math.inf, 1e12, "5", None, True])
def test_what_is_no_time_to_wait_is_refused_at_once(name, seconds):
    with pytest.raises(InvalidInput, match=f"{name}: .* is no time to wait"):
        RemoteSession("127.0.0.1:1", "count", **{name: seconds})


def test_a_name_that_no_world_can_have_is_refused_at_once():
    for world in ("wörld", "a\nb"):
        with pytest.raises(InvalidInput, match=r"world: .* is no world's name"):
            RemoteSession("127.0.0.1:1", world)
