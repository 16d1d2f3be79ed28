"""The gRPC service over the sessions of the worlds in this process; plain grpc.aio and Ray Serve both call it.

Every failure leaves here as one of our errors: inside the stream when nothing was done, else as the call's status with
the same message in the trailing metadata. Knows no torch and no ray.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter_ns
from typing import Protocol, TypeVar

from google.protobuf.message import DecodeError, Message

from simservice.errors import (
    InternalError,
    InvalidInput,
    ModelRetired,
    ReplicaDraining,
    SessionClosed,
    SimserviceError,
    UnknownWorld,
)
from simservice.protocol.messages import WorldContract, decode_mode, encode_frames, encode_mode, encode_world
from simservice.protocol.opening import decode_caution
from simservice.protocol.status import error_metadata, error_to_message, grpc_code, wire_text
from simservice.protocol.step_replies import timed
from simservice.protocol.strict import refuse_unknown
from simservice.protocol.v1 import service_pb2 as pb
from simservice.protocol.v1 import world_pb2 as world_pb
from simservice.protocol.v1.service_pb2_grpc import WorldServiceServicer
from simservice.serving.commands import BRANCHES, CommandCodec
from simservice.serving.draining import Streams
from simservice.serving.registration import refuse_unreadable
from simservice.serving.reports import ReportDesk
from simservice.serving.rooms import CapacityDesk
from simservice.serving.tenants import Tenants
from simservice.sessions.quotas import StepBudget, Tenant
from simservice.sessions.redis_reports import report_store
from simservice.sessions.service import SessionService
from simservice.sessions.session import Session
from simservice.sessions.store import SessionStore
from simservice.telemetry import ServingMetrics

log = logging.getLogger(__name__)

Reply = TypeVar("Reply", bound=Message)


class CallContext(Protocol):
    """What grpc.aio's context and Ray Serve's have in common, as far as it is used here."""

    def set_code(self, code: object) -> None: ...

    def set_details(self, details: str) -> None: ...

    def set_trailing_metadata(self, trailing_metadata: list[tuple[str, bytes]]) -> None: ...

    def invocation_metadata(self) -> Sequence[tuple[str, str | bytes]] | None: ...


@dataclass(frozen=True, eq=False)
class Hosted:
    """One world of this process: its contract and its sessions."""

    contract: WorldContract
    service: SessionService
    codec: CommandCodec
    metrics: ServingMetrics
    replica: str = field(default_factory=lambda: secrets.token_hex(4))  # this process, among the world's others

    @property
    def name(self) -> str:
        """Without the version."""
        return self.contract.spec.name

    @property
    def full_name(self) -> str:
        """With the version."""
        return self.contract.spec.full_name


class FormerVersions(Protocol):
    """Versions that are no longer served, held for their sessions."""

    @property
    def loaded(self) -> list[Hosted]: ...

    async def hosted(self, full_name: str) -> Hosted | None: ...


class WorldService(WorldServiceServicer):
    """The calls of service.proto over one world (a replica) or several (one process without Ray)."""

    def __init__(
        self,
        hosted: Sequence[Hosted],
        store: SessionStore,
        tenants: Tenants | None = None,
        formers: FormerVersions | None = None,
    ) -> None:
        self.hosted = tuple(hosted)
        self.store = store
        self.tenants = tenants or Tenants()
        self._formers = formers
        self.streams = Streams()
        self._rooms = CapacityDesk(store)
        self._reports = ReportDesk(report_store(store))
        self.messages: Mapping[str, world_pb.World] = {host.full_name: encode_world(host.contract) for host in hosted}

    # ---- the calls, as gRPC makes them -----------------------------------------------------------------------------

    async def ListWorlds(self, request: pb.ListWorldsRequest, context: CallContext) -> pb.ListWorldsReply:
        """Every world that the fleet serves."""

        async def answer(tenant: Tenant) -> pb.ListWorldsReply:
            worlds = await self.worlds()
            return pb.ListWorldsReply(worlds=[worlds[name] for name in sorted(worlds)])

        return await self._unary("ListWorlds", request, context, answer, pb.ListWorldsReply)

    async def GetWorld(self, request: pb.GetWorldRequest, context: CallContext) -> pb.GetWorldReply:
        """One world's contract."""

        async def answer(tenant: Tenant) -> pb.GetWorldReply:
            return pb.GetWorldReply(world=_pick(request.world, await self.worlds(), self.messages))

        return await self._unary("GetWorld", request, context, answer, pb.GetWorldReply)

    async def GetCapacity(self, request: pb.GetCapacityRequest, context: CallContext) -> pb.GetCapacityReply:
        """How much room there is."""

        async def answer(tenant: Tenant) -> pb.GetCapacityReply:
            return await self._rooms.capacity(await self.host(request.world), tenant)

        return await self._unary("GetCapacity", request, context, answer, pb.GetCapacityReply)

    async def Report(self, request: pb.ReportRequest, context: CallContext) -> pb.ReportReply:
        """Keeps users' real episodes."""

        async def answer(tenant: Tenant) -> pb.ReportReply:
            return await self._reports.report(request, await self.host(request.world), tenant)

        return await self._unary("Report", request, context, answer, pb.ReportReply)

    async def ReadReports(self, request: pb.ReadReportsRequest, context: CallContext) -> pb.ReadReportsReply:
        """Hands reported episodes to who may read them."""

        async def answer(tenant: Tenant) -> pb.ReadReportsReply:
            return await self._reports.read(request, await self.host(request.world), tenant)

        return await self._unary("ReadReports", request, context, answer, pb.ReadReportsReply)

    async def Play(self, request_iterator: AsyncIterator[pb.PlayRequest], context: CallContext) -> AsyncIterator[bytes]:
        """The stream that is a session; its replies are serialised."""
        try:
            tenant = self.tenants.of(context.invocation_metadata())
        except SimserviceError as error:
            _end_with(context, error)
            return
        stream, inbox = Stream(self, _application(context), tenant), self.streams.enter(request_iterator)
        try:
            while (request := await inbox) is not None:
                yield await stream.answer(request)
                if stream.closed:
                    return
            if self.streams.leaving:
                yield await stream.migrate()
        except DecodeError:
            _end_with(context, InvalidInput("request", "its bytes are no PlayRequest; see protos/ for the wire"))
        except SimserviceError as error:
            _end_with(context, error)
        finally:
            stream.leave()
            self.streams.leave(inbox)

    async def drain(self, within_s: float) -> None:
        """Tells every stream to go on elsewhere and puts down all sessions, also those without a stream."""
        await self.streams.drain(within_s)
        for host in (*self.hosted, *(self._formers.loaded if self._formers is not None else ())):
            await host.service.put_down_all()

    async def resumed(self, host: Hosted, token: str, tenant: Tenant) -> tuple[Hosted, Session]:
        """The session, in the version that it began with, whichever that is."""
        try:
            return host, await host.service.resume(token, tenant)
        except ModelRetired as retired:
            former = await self._formers.hosted(retired.details["wanted"]) if self._formers is not None else None
            if former is None:
                raise
        return former, await former.service.resume(token, tenant)

    # ---- what they stand on ------------------------------------------------------------------------------------------

    async def worlds(self) -> dict[str, world_pb.World]:
        """The contracts of all worlds served by the fleet, by name@version."""
        announced = await self.store.worlds()
        return {
            **{name: world_pb.World.FromString(contract) for name, contract in announced.items()},
            **self.messages,
        }

    async def host(self, world: str) -> Hosted:
        """The world of this process that a client means by "name" or "name@version"; UnknownWorld names all others."""
        for host in self.hosted:
            if world in (host.name, host.full_name):
                return host
        known = {*self.messages, *await self.store.worlds()}
        raise UnknownWorld(world, known if "@" in world else {name.partition("@")[0] for name in known})

    async def _unary(
        self,
        call: str,
        request: Message,
        context: CallContext,
        answer: Callable[[Tenant], Awaitable[Reply]],
        nothing: Callable[[], Reply],
    ) -> Reply:
        """The answer, or the error as the call's status beside an empty reply."""
        began, code = perf_counter_ns(), "OK"
        try:
            tenant = self.tenants.of(context.invocation_metadata())
            refuse_unreadable(request)
            if call not in ("Report", "ReadReports"):  # they look by themselves, and count what they refuse
                refuse_unknown(request)
            return await answer(tenant)
        except Exception as error:  # turned into a status, and logged when it is not one of ours
            ours = as_ours(error, call)
            code = ours.code
            _end_with(context, ours)
            return nothing()
        finally:
            self.hosted[0].metrics.observe_rpc(call, code, (perf_counter_ns() - began) * 1e-9)


class Stream:
    """One Play call: the session that its first message opened or resumed, and how each request is answered."""

    def __init__(self, service: WorldService, application: str, tenant: Tenant) -> None:
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
        began = perf_counter_ns()
        call = request.WhichOneof("call") or ""
        code = "OK"
        try:
            reply = await self._call(call, request)
        except Exception as found:  # everything is answered; what is not ours is logged and gets a name
            error = as_ours(found, call)
            code = error.code
            if not error.recoverable:
                raise error from found
            reply = pb.PlayReply(sequence=request.sequence, error=error_to_message(error)).SerializeToString()
        finally:
            spent = perf_counter_ns() - began
            (self._host or self._service.hosted[0]).metrics.observe_rpc(call, code, spent * 1e-9)
        return timed(reply, spent)

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
            if self._budget is not None and call == "step":
                self._budget.spend(session.num_envs)
            command = host.codec.command(request, session.num_envs)
            payload = request.SerializeToString()
            # Leaves have fixed sizes, so a step as long as the last one that was looked into holds nothing more.
            if len(payload) != self._plain_bytes:
                refuse_unknown(request)
                self._plain_bytes = len(payload) if call == "step" else 0
            host.service.deadlines.begin(session, request.timeout_ms)
            try:
                result = await host.service.apply(session, request.sequence, command, payload)
            finally:
                host.service.deadlines.end(session)
            return host.codec.reply(request.sequence, result, session.num_envs)
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


def _end_with(context: CallContext, error: SimserviceError) -> None:
    """The call's status. Set rather than aborted: Ray Serve drops the metadata of calls that end by an exception."""
    context.set_code(grpc_code(error))
    context.set_details(wire_text(error))
    context.set_trailing_metadata(error_metadata(error))


def _application(context: CallContext) -> str:
    for key, value in context.invocation_metadata() or ():
        if key == "application":
            return value.decode() if isinstance(value, bytes) else value
    return ""


def _pick(wanted: str, worlds: Mapping[str, world_pb.World], preferred: Mapping[str, world_pb.World]) -> world_pb.World:
    """By name@version; by name alone this process's own version, else the last of the announced ones."""
    if wanted in worlds:
        return worlds[wanted]
    for choices in (preferred, worlds):
        versions = [name for name in sorted(choices) if name.partition("@")[0] == wanted]
        if versions:
            return choices[versions[-1]]
    raise UnknownWorld(wanted, worlds if "@" in wanted else {name.partition("@")[0] for name in worlds})
