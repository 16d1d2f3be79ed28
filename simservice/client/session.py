"""A session with a served world: its lanes are reset and stepped exactly once, whatever happens to the connection.

Knows no grpc: channel.py says when an answer is missing, and what to do then is decided here.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from gymnasium.vector import AutoresetMode

from simservice import __version__
from simservice.client.access import Tls
from simservice.client.channel import Connection, Interrupted, Moved, Stream
from simservice.client.leftovers import open_sessions
from simservice.client.opening import FINAL, backoff_s, open_stream, opened, stands_at, waited
from simservice.client.steps import Reply, Request, Steps, error_of, kind_of, rolls
from simservice.client.times import ServerTimes, check_seconds, server_times, times_of
from simservice.errors import (
    CapacityExhausted,
    DeadlineExceeded,
    InternalError,
    QuotaExceeded,
    SessionClosed,
    SessionFenced,
    SessionLost,
    SimserviceError,
    UnknownPoint,
    UnknownWorld,
)
from simservice.protocol.branches import as_points, encode_fork
from simservice.protocol.imagine import decode_imagined, encode_imagine, joined
from simservice.protocol.messages import WorldContract, decode_frames, decode_reset_result, decode_world, encode_reset
from simservice.protocol.opening import encode_open
from simservice.protocol.packing import Compression
from simservice.protocol.step_replies import PlainReply
from simservice.protocol.tensors import decode_leaves
from simservice.protocol.v1 import service_pb2 as pb
from simservice.types import (
    TRUSTING,
    Array,
    Caution,
    Context,
    Imagine,
    Imagined,
    Leaves,
    ResetResult,
    StepResult,
    leaves_of,
)

CLOSE_TIMEOUT_S = 2.0


class RemoteSession:
    """`num_envs` lanes of a world. Safe to use from several threads, one request at a time.

    A connection that breaks is made again and what was not answered is sent again: the caller sees a slow step. After
    `patience_s` without success SessionLost ends the session; it is never silently replaced by a new one.
    """

    _connection: Connection
    _stream: Stream | None

    def __init__(
        self,
        address: str,
        world: str,
        *,
        num_envs: int = 1,
        autoreset_mode: AutoresetMode = AutoresetMode.NEXT_STEP,
        patience_s: float = 60.0,
        timeout_s: float = 30.0,  # for one answer; then the connection counts as broken
        connect_timeout_s: float = 5.0,  # also for waiting where the service says when to come again
        token: str | None = None,  # of a tenant; None: SIMSERVICE_TOKEN
        tls: Tls = None,
        caution: Caution = TRUSTING,
        compression: Compression = "auto",  # of large replies
    ) -> None:
        self._prepare(address, world, patience_s, timeout_s, token, tls, compression)
        try:
            check_seconds(connect_timeout_s=connect_timeout_s)
            request = encode_open(world, num_envs, autoreset_mode, caution, __version__)
            self._connection.wait(connect_timeout_s)
            self._stream, answer = open_stream(
                self._connection, pb.PlayRequest(open=request), timeout_s, connect_timeout_s
            )
            self._begin(answer.session, decode_world(answer.world), num_envs, autoreset_mode)
        except BaseException:
            self._drop_stream()
            self._connection.close()
            raise

    def _prepare(
        self,
        address: str,
        world: str,
        patience_s: float,
        timeout_s: float,
        token: str | None,
        tls: Tls,
        compression: Compression,
    ) -> None:
        check_seconds(timeout_s=timeout_s, patience_s=patience_s)
        self.closed = True  # until it is open, so that a failed open leaves nothing to close
        self.world = world
        self.patience_s = patience_s
        self.timeout_s = timeout_s
        self.reconnects = 0
        self.moves = 0  # of them: asked for by a replica that was about to end
        self._times = b""  # where the last request spent its time in the server, as a PlayReply
        self.token = ""
        self.sequence = 0  # of the last request that was answered
        self.door = (address, token, tls, compression)
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._stream = None
        self._parts, self._count = list[Imagined](), 0  # of the rollout under way, and how many lanes it has
        self._unanswered: Request | None = None
        self._failed = False  # the last request ended with an error that may have come after its effect
        self._abandoned_resumes = 0
        self._connection = Connection(address, world, token=token, tls=tls, compression=compression)

    def _begin(self, token: str, contract: WorldContract, num_envs: int, mode: AutoresetMode) -> None:
        self.closed = False
        self.token = token
        self.contract = contract
        self.num_envs = num_envs
        self.autoreset_mode = mode
        self.observation_leaves = leaves_of(contract.spec.observation_space, "observation")
        self.action_leaves = leaves_of(contract.spec.action_space, "action")
        self._steps = Steps(self.action_leaves, self.observation_leaves, num_envs)
        open_sessions.add(self)

    # ---- what a user does -------------------------------------------------------------------------------------------

    def reset(
        self,
        *,
        mask: Array | None = None,
        seeds: Array | None = None,
        options: Mapping[str, Any] | None = None,
        context: Context | None = None,
    ) -> ResetResult:
        """Starts episodes in the lanes of `mask` (None: all); seeds is (num_envs,) int64 with -1 for none."""
        reset = encode_reset(
            mask, seeds, options or {}, context, observation=self.observation_leaves, action=self.action_leaves
        )
        reply = self._ask(pb.PlayRequest(reset=reset), "reset")
        return decode_reset_result(self.observation_leaves, reply.reset, self.num_envs)

    def step(self, action: Leaves) -> StepResult:
        """One step of every lane; action leaves are (num_envs, ...)."""
        return self._steps.result(self._answered(self._steps.request(action), "stepped"))

    def render(self) -> Array:
        """A picture of every lane, (num_envs, height, width, 3) uint8."""
        reply = self._ask(pb.PlayRequest(render=pb.Render()), "rendered", numbered=False)
        return decode_frames(reply.rendered, self.num_envs)

    def fork(
        self,
        lanes: Sequence[int] | Array | None = None,
        copies: int = 1,
        *,
        luck: Literal["same", "fresh"] = "same",
        seeds: Sequence[int] | Array | None = None,
    ) -> RemoteSession:
        """A new session that begins where these lanes (None: all) are now; lane i * copies + j is copy j of lanes[i].

        With the same luck a copy that gets the parent's actions gives the parent's bits; with fresh luck it has a seed
        of its own, the given one (non-negative int64, one a new lane) or one that the server draws. The new session
        must be closed like any other, and outlives this one.
        """
        request = pb.PlayRequest(fork=encode_fork(lanes, copies, luck, seeds))
        answer = self._ask(request, "forked").forked
        address, token, tls, compression = self.door
        child = RemoteSession.__new__(RemoteSession)
        child._prepare(address, self.world, self.patience_s, self.timeout_s, token, tls, compression)
        child._begin(answer.session, self.contract, answer.num_envs, self.autoreset_mode)
        child._reach()
        return child

    def save(self) -> int:
        """Keeps what all lanes are now; the number is for restore(). It costs num_envs * limits.snapshot_lane_bytes."""
        return self._ask(pb.PlayRequest(save=pb.Save()), "saved").saved.point

    def restore(self, point: int) -> Leaves:
        """Puts all lanes back to where they were at a save(); returns what they showed then, (num_envs, ...)."""
        if not (known := as_points(point)):
            raise UnknownPoint(point)
        reply = self._ask(pb.PlayRequest(restore=pb.Restore(point=known[0])), "restored")
        return decode_leaves(self.observation_leaves, reply.restored.observation, (self.num_envs,), check=False)

    def forget(self, *points: int) -> None:
        """Gives saved points up, so that there is room for others."""
        if known := as_points(*points):
            self._ask(pb.PlayRequest(forget=pb.Forget(points=known)), "forgotten")

    def imagine(self, command: Imagine, deadline_s: float | None = None) -> Imagined:
        """Has the server play a rollout, and returns all of it once it is over; see types.Imagine.

        `deadline_s` bounds all of it (None: limits.rollout_deadline_s), `timeout_s` each wait for its next part.
        """
        self._count = (self.num_envs if command.lanes is None else len(command.lanes)) * command.copies
        request = pb.PlayRequest(imagine=encode_imagine(command, self.action_leaves, self.num_envs))
        if deadline_s is not None:
            check_seconds(deadline_s=deadline_s)
            request.timeout_ms = min(max(1, round(1000 * deadline_s)), 2**32 - 1)
        self._ask(request, "imagined", numbered=command.advance)
        return joined(self._parts)

    def _hear(self, part: pb.Imagined) -> None:
        self._parts.append(decode_imagined(part, self.observation_leaves, self.action_leaves, self._count))

    def close(self) -> None:
        """Frees the lanes, if the server can be told; closing twice is no error."""
        # In a forked child the session is the parent's, and while Python ends no thread is left to speak through.
        if self.closed or os.getpid() != self._process or sys.is_finalizing():
            return
        with self._lock:
            if self.closed:
                return
            self.closed = True
            with contextlib.suppress(SimserviceError, Interrupted):
                self._connected(CLOSE_TIMEOUT_S).exchange(pb.PlayRequest(close=pb.Close()), CLOSE_TIMEOUT_S)
            self._drop_stream()
            self._connection.close()

    def __del__(self) -> None:
        if not getattr(self, "closed", True):
            self.close()

    @property
    def server(self) -> ServerTimes:
        """Where the last request spent its time in the server."""
        return server_times(pb.PlayReply.FromString(self._times))

    @property
    def connected(self) -> bool:
        """False while the connection is broken, and after the end."""
        return self._stream is not None

    # ---- one request -----------------------------------------------------------------------------------------------

    def _ask(self, request: pb.PlayRequest, expected: str, *, numbered: bool = True) -> pb.PlayReply:
        reply = self._answered(request, expected, numbered)
        assert not isinstance(reply, PlainReply)  # only steps have those
        return reply

    def _answered(self, request: Request, expected: str, numbered: bool = True) -> Reply:
        if os.getpid() != self._process:
            raise SessionClosed("environment made before this process was forked")
        with self._lock:
            if self.closed:
                raise SessionClosed("environment")
            if self._unanswered is not None:  # its caller was interrupted; the server may have done it
                self._numbered(self._unanswered)
            reply = self._numbered(request) if numbered else self._persist(request)
        if (said := kind_of(reply)) == "error":
            reply = self._ask_again(request, numbered, reply)
            said = kind_of(reply)
        if said != expected:
            raise InternalError(f"the server answered {said}, {expected} was expected")
        return reply

    def _ask_again(self, request: Request, numbered: bool, reply: Reply) -> Reply:
        """The reply to a request that was put off, once the server takes it; the error where it will not in time."""
        error = error_of(reply)
        give_up_at = time.monotonic() + self.patience_s
        while not (rolls(request) and isinstance(error, DeadlineExceeded)) and waited(error, give_up_at):
            with self._lock:
                if self.closed:
                    raise SessionClosed("environment")
                reply = self._numbered(request) if numbered else self._persist(request)
            if kind_of(reply) != "error":
                return reply
            error = error_of(reply)
        raise error

    def _numbered(self, request: Request) -> Reply:
        """A reset or step: until it is answered it counts as under way."""
        self._unanswered = request
        reply = self._persist(request)
        self._unanswered = None
        if isinstance(reply, PlainReply):
            self.sequence = request.sequence
            return reply
        if reply.sequence != request.sequence:
            self._drop_stream()
            raise InternalError(f"the server answered request {reply.sequence}, {request.sequence} was sent")
        if reply.WhichOneof("result") != "error":  # an error reply used no number
            self.sequence = request.sequence
        return reply

    def _persist(self, request: Request) -> Reply:
        """The reply, however often the connection breaks within the user's patience."""
        give_up_at: float | None = None
        attempt = 0
        while True:
            try:
                stream = self._connected(self.timeout_s)
                rolling = rolls(request)
                if request is self._unanswered and not rolling and self.timeout_s != self.contract.limits.deadline_s:
                    request.timeout_ms = min(max(1, round(1000 * self.timeout_s)), 2**32 - 1)
                if request is self._unanswered and not request.sequence:
                    request.sequence = self.sequence + 1  # now, as a resume may have told a later number
                self._parts = []
                reply = stream.exchange(request, self.timeout_s, self._hear if rolling else None)
            except Interrupted as problem:
                give_up_at = give_up_at or time.monotonic() + self.patience_s
                self._pause(attempt, give_up_at, problem)
                attempt += 1
            except SimserviceError as error:
                self._drop_stream()
                if isinstance(error, SessionFenced) and self._abandoned_resumes:
                    # A resume of ours that was given up arrived late and took the session from us: take it back.
                    self._abandoned_resumes -= 1
                    continue
                self._unanswered = None
                self._failed = True
                if isinstance(error, FINAL):
                    self._give_up()
                raise
            except BaseException:  # Ctrl-C: the answer is still to come, but not on this stream
                self._drop_stream()
                raise
            else:
                self._times = reply.times if isinstance(reply, PlainReply) else times_of(reply)
                self._failed = False
                return reply

    def _pause(self, attempt: int, give_up_at: float, problem: Interrupted) -> None:
        """Waits before the next attempt, longer each time and never in step with other clients."""
        self._drop_stream()
        if isinstance(problem, Moved):  # the old connection may lead to the same replica for a while
            self._connection = self._connection.renewed()
            self.moves += 1
        left = give_up_at - time.monotonic()
        if left <= 0:
            self._give_up()
            raise SessionLost(self.token, self.patience_s, str(problem)) from problem
        pause_s = max(backoff_s(attempt), (problem.cause.retry_after_s if problem.cause else None) or 0.0)
        time.sleep(min(pause_s, left))

    # ---- the stream ------------------------------------------------------------------------------------------------

    def _reach(self) -> None:
        """Takes a session over that a fork made; it is lost when nobody can be reached in time."""
        give_up_at, attempt = time.monotonic() + self.patience_s, 0
        while self._stream is None:
            try:
                self._connected(self.timeout_s)
            except Interrupted as problem:
                self._pause(attempt, give_up_at, problem)
                attempt += 1
            except BaseException:
                self._give_up()
                raise
        self.reconnects = 0

    def _connected(self, timeout_s: float) -> Stream:
        """The stream, made again and the session resumed if it broke."""
        if self._stream is not None:
            return self._stream
        stream = self._connection.play(self.world)
        try:
            reply = stream.converse(pb.PlayRequest(resume=pb.Resume(session=self.token)), timeout_s)
            unanswered = self._unanswered.sequence if self._unanswered is not None else 0
            last = opened(reply).last_sequence
            self.sequence = stands_at(last, self.sequence, unanswered, self._failed, self.token, self.patience_s)
        except (CapacityExhausted, QuotaExceeded, UnknownWorld) as error:
            stream.end()  # a fleet that has just lost a replica; the next attempt may reach another one
            raise Interrupted(str(error), error) from error
        except BaseException as error:
            if not isinstance(error, SimserviceError):  # not answered: it may still reach the server
                self._abandoned_resumes += 1
            stream.end()
            raise
        self.reconnects += 1
        self._stream = stream
        return stream

    def _give_up(self) -> None:
        self.closed = True
        self._connection.close()

    def _drop_stream(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.end()
