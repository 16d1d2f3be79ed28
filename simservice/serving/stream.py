"""One stream of requests: the session that it began or resumed, and how each request is answered. Knows no gRPC.

A rollout is answered by many replies, all other requests by one.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from simservice.errors import InternalError, InvalidInput, ReplicaDraining, SessionClosed, SimserviceError
from simservice.protocol.messages import decode_mode, encode_frames, encode_mode, encode_world
from simservice.protocol.opening import decode_caution
from simservice.protocol.packing import Packer
from simservice.protocol.status import error_to_message
from simservice.protocol.step_replies import timed, times
from simservice.protocol.strict import refuse_unknown
from simservice.protocol.v1 import service_pb2 as pb
from simservice.serving.begun import Begun
from simservice.serving.commands import BRANCHES
from simservice.sessions.lanes import Command, Step
from simservice.sessions.quotas import StepBudget, Tenant
from simservice.sessions.session import Session
from simservice.types import Imagined, Spent, StepResult

if TYPE_CHECKING:
    from simservice.serving.facade import Hosted, WorldService

log = logging.getLogger(__name__)

Incoming = pb.PlayRequest | Begun[tuple[bytes, bytes]]
"""What comes on a stream: a request, or one that is being answered already, by a reply in two parts."""


class Stream:
    """One Play call: the session that its first message opened or resumed, and how each request is answered."""

    def __init__(self, service: WorldService, application: str, tenant: Tenant, codecs: str = "") -> None:
        self._packer = Packer(codecs)
        self._spent: Spent | None = None  # of the step under way, once it is done
        self._done_ns = 0  # when that was
        self._written: tuple[StepResult, bytes] | None = None  # a step's reply, written before it may leave
        self._write_ns = 0  # how long that took
        self.closed = False
        self._tenant = tenant
        self._plain_bytes = 0  # of the last step that held nothing unknown
        self._budget: StepBudget | None = None  # of steps, where the tenant's are counted
        self._service = service
        self._application = application
        self._host: Hosted | None = None
        self._session: Session | None = None

    async def answer(self, request: pb.PlayRequest) -> bytes:
        """The reply to one request, serialised; raises, as one of our errors, what ends the stream."""
        call = request.WhichOneof("call") or ""
        return b"".join(await self._answered(call, request.sequence, perf_counter_ns(), self._call(call, request)))

    def begin(self, message: bytes) -> Begun[tuple[bytes, bytes]] | None:
        """Answers a request that is a step and nothing else, as far as it goes at once, in two parts of one reply.

        None: it is for answer(). Called while nothing else is under way on the stream.
        """
        host, session = self._host, self._session
        if host is None or session is None or self._service.streams.leaving:
            return None
        began, sequence = perf_counter_ns(), session.last_sequence + 1
        step = host.codec.plain_step(message, sequence, session.num_envs)
        if step is None:
            return None
        command = Step(step.action, self._write)
        work = self._apply(host, session, sequence, command, message, step.timeout_ms)
        return Begun(self._answered("step", sequence, began, work))

    async def _answered(
        self, call: str, sequence: int, began: int, work: Coroutine[Any, Any, bytes]
    ) -> tuple[bytes, bytes]:
        """The reply that the work makes, and what stands behind it."""
        code = "OK"
        self._spent = None
        try:
            reply = self._packer.pack(await work)
        except Exception as found:  # everything is answered; what is not ours is logged and gets a name
            error = as_ours(found, call)
            code = error.code
            if not error.recoverable:
                raise error from found
            reply = pb.PlayReply(sequence=sequence, error=error_to_message(error)).SerializeToString()
        finally:
            spent = perf_counter_ns() - began
            (self._host or self._service.hosted[0]).metrics.observe_rpc(call, code, spent * 1e-9)
        where = self._spent
        if where is None or where.handed_ns < began:  # none, or that of a step which was done before
            return reply, times(spent)
        queue, wait = where.handed_ns - began, where.began_ns - where.handed_ns
        return reply, times(spent, (queue, wait, where.model_ns, self._write_ns + began + spent - self._done_ns))

    async def imagine(self, request: pb.PlayRequest) -> AsyncGenerator[bytes, None]:
        """The replies to one rollout, serialised, as it goes on; raises what ends the stream."""
        began = perf_counter_ns()
        code = "OK"
        try:
            async with aclosing(self._parts(request)) as parts:
                async for reply in parts:
                    yield timed(self._packer.pack(reply), perf_counter_ns() - began)
        except Exception as found:
            error = as_ours(found, "imagine")
            code = error.code
            if not error.recoverable:
                raise error from found
            reply = pb.PlayReply(sequence=request.sequence, error=error_to_message(error)).SerializeToString()
            yield timed(reply, perf_counter_ns() - began)
        finally:
            spent = perf_counter_ns() - began
            (self._host or self._service.hosted[0]).metrics.observe_rpc("imagine", code, spent * 1e-9)

    async def _parts(self, request: pb.PlayRequest) -> AsyncGenerator[bytes, None]:
        host, session = self._host, self._session
        refuse_unknown(request)
        if host is None or session is None:
            raise SessionClosed("stream, whose first message must be open or resume and was imagine,")
        command = host.codec.imagine(request, session.num_envs)
        if self._budget is not None:
            lanes = session.num_envs if command.lanes is None else len(command.lanes)
            self._budget.spend(command.steps * lanes * command.copies)
        payload = request.SerializeToString()
        played = host.service.imagine(session, request.sequence, command, payload, request.timeout_ms)
        async with aclosing(played):
            async for part in played:
                if isinstance(part, Imagined):
                    yield host.codec.part(request.sequence, part)
                else:
                    yield host.codec.reply(request.sequence, part, session.num_envs)

    async def migrate(self) -> bytes:
        """The last reply of a stream that is to go on elsewhere; its session is put down."""
        if self._session is None or self._host is None:
            raise ReplicaDraining()
        await self._host.service.put_down(self._session)
        return pb.PlayReply(sequence=self._session.last_sequence, migrate=pb.Migrate()).SerializeToString()

    def leave(self) -> None:
        """The stream has ended; a session that was not closed stays for whoever resumes it."""
        if self._session is not None and self._host is not None and not self.closed:
            self._host.service.detach(self._session)

    async def _call(self, call: str, request: pb.PlayRequest) -> bytes:
        host, session = self._host, self._session
        if call not in ("step", "reset"):
            refuse_unknown(request)
        if host is None or session is None:
            return (await self._begin(call, request)).SerializeToString()
        if call in ("step", "reset"):
            command = host.codec.command(request, session.num_envs, self._write)
            payload = request.SerializeToString()
            # Leaves have fixed sizes, so a step as long as the last one that was looked into holds nothing more.
            if len(payload) != self._plain_bytes:
                refuse_unknown(request)
                self._plain_bytes = len(payload) if call == "step" else 0
            return await self._apply(host, session, request.sequence, command, payload, request.timeout_ms)
        if call in BRANCHES:
            if self._budget is not None:  # a lane that is saved, restored or copied from costs a step of it
                self._budget.spend(session.num_envs)
            branch = host.codec.branch(request)
            payload = request.SerializeToString()
            result = await host.service.branch(session, request.sequence, branch, payload, self._tenant)
            return host.codec.reply(request.sequence, result, session.num_envs)
        if call == "render":
            frames = encode_frames(await host.service.render(session))
            return pb.PlayReply(sequence=request.sequence, rendered=frames).SerializeToString()
        if call == "close":
            await host.service.close(session)
            self.closed = True
            return pb.PlayReply(sequence=request.sequence, closed=pb.Closed()).SerializeToString()
        raise InvalidInput("call", f"{call or 'nothing'} was sent on a stream that has its session already")

    async def _apply(
        self, host: Hosted, session: Session, sequence: int, command: Command, payload: bytes, timeout_ms: int
    ) -> bytes:
        """The reply to a step or a reset."""
        if self._budget is not None and isinstance(command, Step):
            self._budget.spend(session.num_envs)
        self._written, self._write_ns = None, 0
        host.service.deadlines.begin(session, timeout_ms)
        try:
            result = await host.service.apply(session, sequence, command, payload)
        finally:
            host.service.deadlines.end(session)
        self._done_ns, self._spent = perf_counter_ns(), result.spent if isinstance(result, StepResult) else None
        written, self._written = self._written, None
        if written is not None and written[0] is result:
            return written[1]
        return host.codec.reply(sequence, result, session.num_envs)

    def _write(self, result: StepResult) -> None:
        """Writes a step's reply while the journal is on its way: it may be of no use, and what fails fails later."""
        assert self._host is not None and self._session is not None
        began = perf_counter_ns()
        with contextlib.suppress(Exception):  # of numbers that cannot be written; whoever answers meets it again
            sequence, lanes = self._session.last_sequence + 1, self._session.num_envs
            self._written = (result, self._host.codec.reply(sequence, result, lanes))
        self._write_ns = perf_counter_ns() - began

    async def _begin(self, call: str, request: pb.PlayRequest) -> pb.PlayReply:
        self._service.streams.refuse_new()
        if call == "open":
            host = await self._service.host(request.open.world or self._application)
            mode = decode_mode(request.open.autoreset_mode)
            session = await host.service.open(
                request.open.num_envs, mode, request.open.open_key, self._tenant, decode_caution(request.open)
            )
        elif call == "resume":
            host = await self._resumed_host()
            host, session = await self._service.resumed(host, request.resume.session, self._tenant)
        elif call:
            raise SessionClosed(f"stream, whose first message must be open or resume and was {call},")
        else:
            raise InvalidInput("call", "the request holds no call that this server knows")
        self._host, self._session = host, session
        self._budget = host.service.quotas.budget(self._tenant)
        return pb.PlayReply(
            sequence=request.sequence,
            opened=pb.Opened(
                session=session.token,
                world=self._service.messages.get(host.full_name) or encode_world(host.contract),
                num_envs=session.num_envs,
                autoreset_mode=encode_mode(session.mode),
                last_sequence=session.last_sequence,
            ),
        )

    async def _resumed_host(self) -> Hosted:
        """Only the application tells which world a token belongs to, where there are several."""
        if self._application:
            return await self._service.host(self._application)
        if len(self._service.hosted) == 1:
            return self._service.hosted[0]
        raise InvalidInput("application", "several worlds are served here; name one in the metadata `application`")


def as_ours(error: Exception, call: str) -> SimserviceError:
    """The error itself when it is ours; else InternalError with an id under which the log has the whole of it."""
    if isinstance(error, SimserviceError):
        return error
    name = secrets.token_hex(4)
    log.error("unexpected failure %s in %s", name, call or "an empty call", exc_info=error)
    return InternalError(f"something unexpected happened in the server; its log has it under {name}", id=name)
