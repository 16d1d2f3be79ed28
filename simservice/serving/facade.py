"""The gRPC service over the sessions of the worlds in this process; plain grpc.aio and Ray Serve both call it.

Every failure leaves here as one of our errors: inside the stream when nothing was done, else as the call's status with
the same message in the trailing metadata. Knows no torch and no ray.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from time import perf_counter_ns
from typing import TYPE_CHECKING, Protocol, TypeVar

from google.protobuf.message import DecodeError, Message

from simservice.errors import (
    InvalidInput,
    ModelRetired,
    SimserviceError,
    UnknownWorld,
)
from simservice.protocol.messages import WorldContract, encode_world
from simservice.protocol.packing import said_in
from simservice.protocol.status import error_metadata, grpc_code, wire_text
from simservice.protocol.strict import refuse_unknown
from simservice.protocol.v1 import service_pb2 as pb
from simservice.protocol.v1 import world_pb2 as world_pb
from simservice.protocol.v1.service_pb2_grpc import WorldServiceServicer
from simservice.serving.begun import Begun
from simservice.serving.commands import CommandCodec
from simservice.serving.draining import Streams
from simservice.serving.policies import PolicyDesk
from simservice.serving.registration import DirectCall, refuse_unreadable
from simservice.serving.reports import ReportDesk
from simservice.serving.rooms import CapacityDesk
from simservice.serving.stream import Incoming, Stream, as_ours
from simservice.serving.tenants import Tenants
from simservice.sessions.quotas import Tenant
from simservice.sessions.redis_reports import report_store
from simservice.sessions.service import SessionService
from simservice.sessions.session import Session
from simservice.sessions.store import SessionStore
from simservice.telemetry import ServingMetrics

if TYPE_CHECKING:
    from simservice.engine.uploads.shelf import PolicyLibrary

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
    policies: PolicyLibrary
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
        self._policies = PolicyDesk(max((host.policies.limits.file_bytes for host in hosted), default=0))
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

    async def PutPolicy(self, requests: AsyncIterator[bytes], context: CallContext) -> pb.PutPolicyReply:
        """Takes a policy in, for rollouts to act by; the one request is still to be read."""

        async def answer(tenant: Tenant) -> pb.PutPolicyReply:
            return await self._policies.put(requests, self.host, tenant)

        return await self._unary("PutPolicy", None, context, answer, pb.PutPolicyReply)

    async def Play(self, request_iterator: AsyncIterator[Incoming], context: CallContext) -> AsyncIterator[bytes]:
        """The stream that is a session; its replies are serialised."""
        try:
            tenant = self.tenants.of(context.invocation_metadata())
        except SimserviceError as error:
            _end_with(context, error)
            return
        codecs = said_in(context.invocation_metadata() or ())
        stream, inbox = Stream(self, _application(context), tenant, codecs), self.streams.enter(request_iterator)
        if isinstance(request_iterator, DirectCall) and request_iterator.attend is not None:
            request_iterator.attend(stream.begin)
        try:
            while (request := await inbox) is not None:
                if isinstance(request, Begun):
                    yield b"".join(await request.rest())
                    continue
                if request.HasField("imagine"):
                    async with aclosing(stream.imagine(request)) as parts:
                        async for part in parts:
                            yield part
                    continue
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
        request: Message | None,
        context: CallContext,
        answer: Callable[[Tenant], Awaitable[Reply]],
        nothing: Callable[[], Reply],
    ) -> Reply:
        """The answer, or the error as the call's status beside an empty reply."""
        began, code = perf_counter_ns(), "OK"
        try:
            tenant = self.tenants.of(context.invocation_metadata())
            if request is not None:
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
