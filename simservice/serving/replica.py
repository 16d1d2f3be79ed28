"""One process of Ray Serve that serves one world: the facade as an ingress deployment. Knows Ray, not sessions."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import grpc
from ray.serve import get_replica_context
from ray.serve._private import replica as serve_replica
from ray.serve._private.direct_ingress_grpc_util import gRPCDIReceiveStream

from simservice.errors import ConfigError, InternalError
from simservice.protocol.v1 import service_pb2 as pb
from simservice.serving import interpreter
from simservice.serving.announcement import Announcement
from simservice.serving.facade import CallContext, WorldService
from simservice.serving.formers import Formers
from simservice.serving.registration import DirectCall
from simservice.serving.tenants import Tenants
from simservice.serving.wiring import Replica, ReplicaConfig, build_replica, open_store
from simservice.sessions.quotas import QuotaKeeper
from simservice.sessions.redis_leases import lease_store
from simservice.telemetry import MetricsServer, start_http

log = logging.getLogger(__name__)

DRAIN_S = 15.0  # for a stream to come to the end of the request under way


def _below_serve(requests: object, context: CallContext) -> DirectCall | None:
    """The call below Serve's wrappers, which would also turn a client that vanished into a clean end.

    None, with the status set, for a call that came by Serve's proxy: HAProxy knows no replica at the moment.
    """
    inner = getattr(requests, "_request_iterator", None)
    if not isinstance(inner, gRPCDIReceiveStream):
        context.set_code(grpc.StatusCode.UNAVAILABLE)
        context.set_details("the world's replicas are being replaced; connect again")
        return None
    call = inner._request_iterator
    assert isinstance(call, DirectCall), "the service was not registered by add_world_service"
    return call


def before_waiting_for_streams(leave: Callable[[], Awaitable[None]]) -> None:
    """Calls `leave` once in this process when Serve stops the replica, after HAProxy has had time to hear of it.

    Serve then only waits for the end of the streams, which are sessions and never end by themselves, and tells the
    deployment nothing before they are cut.
    """
    wait = serve_replica.Replica._drain_ongoing_requests

    async def leave_and_wait(self: Any, *arguments: Any, **more: Any) -> None:
        try:
            await leave()
        except Exception:  # the streams are then cut, and their sessions replayed elsewhere
            log.exception("the replica could not be left in order")
        await wait(self, *arguments, **more)

    serve_replica.Replica._drain_ongoing_requests = leave_and_wait


@dataclass(frozen=True, kw_only=True)
class MetricsConfig:
    """Where a replica's metrics can be read."""

    folder: str | None = None  # gets one file a replica, in the form of Prometheus' file_sd
    listen: str = "127.0.0.1"
    announce: str = "127.0.0.1"  # how a scraper reaches this node


class WorldReplica:
    """The ingress deployment of one world: the calls of WorldService, each handed to the facade.

    Behind HAProxy, gRPC reaches this process directly. While a world has no replica that HAProxy knows, calls come by
    Serve's Python proxy instead, which would cost a session milliseconds a step for all its life: such a stream is
    refused with UNAVAILABLE, and a client that connects again is on the direct way a moment later.
    """

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self,
        folder: str,
        store_url: str,
        config: ReplicaConfig | None = None,
        metrics: MetricsConfig | None = None,
    ) -> None:
        config = config or ReplicaConfig()
        self._store = open_store(store_url, config.sessions.idle_ttl_s)
        self._quotas = QuotaKeeper(lease_store(self._store))
        self._replica: Replica = build_replica(folder, self._store, config, self._quotas)
        name, application = self._replica.hosted.name, get_replica_context().app_name
        if name != application:
            raise ConfigError(
                f"the application {application!r} serves the world {name!r}; it must have the world's name"
            )
        tenants = Tenants(config.tenants, operator=config.operator, monitor=config.monitor)
        build = partial(build_replica, store=self._store, config=config, quotas=self._quotas)
        self._formers = Formers(config.formers, build)
        self._replica.beside = partial(self._formers.of, name)
        self._facade = WorldService([self._replica.hosted], self._store, tenants, self._formers)
        before_waiting_for_streams(partial(self._facade.drain, DRAIN_S))
        self._metrics_server: MetricsServer | None = None
        self._announcement: Path | None = None
        await self._replica.start()
        self._announce(metrics or MetricsConfig())
        self._running = True
        interpreter.settle()

    async def ListWorlds(self, request: pb.ListWorldsRequest, grpc_context: CallContext) -> pb.ListWorldsReply:
        """Every world that the fleet serves."""
        return await self._facade.ListWorlds(request, grpc_context)

    async def GetWorld(self, request: pb.GetWorldRequest, grpc_context: CallContext) -> pb.GetWorldReply:
        """One world's contract."""
        return await self._facade.GetWorld(request, grpc_context)

    async def GetCapacity(self, request: pb.GetCapacityRequest, grpc_context: CallContext) -> pb.GetCapacityReply:
        """How much room there is."""
        return await self._facade.GetCapacity(request, grpc_context)

    async def Report(self, request: pb.ReportRequest, grpc_context: CallContext) -> pb.ReportReply:
        """Keeps users' real episodes."""
        return await self._facade.Report(request, grpc_context)

    async def ReadReports(self, request: pb.ReadReportsRequest, grpc_context: CallContext) -> pb.ReadReportsReply:
        """Hands reported episodes to who may read them."""
        return await self._facade.ReadReports(request, grpc_context)

    async def PutPolicy(self, request_stream: AsyncIterator[bytes], grpc_context: CallContext) -> pb.PutPolicyReply:
        """Takes a policy in."""
        call = _below_serve(request_stream, grpc_context)
        if call is None:
            return pb.PutPolicyReply()
        return await self._facade.PutPolicy(cast(AsyncIterator[bytes], call), grpc_context)

    async def Play(
        self, request_stream: AsyncIterator[pb.PlayRequest], grpc_context: CallContext
    ) -> AsyncIterator[bytes]:
        """The stream that is a session."""
        call = _below_serve(request_stream, grpc_context)
        if call is None:
            return
        async with aclosing(cast(AsyncGenerator[bytes, None], self._facade.Play(call, grpc_context))) as replies:
            async for reply in replies:
                await call.write(reply)
        return
        yield  # so that this is a generator, as Serve wants it

    async def check_health(self) -> None:
        """Called by Serve every few seconds; a replica that raises is replaced."""
        if not self._replica.engine.running:
            raise InternalError("the engine's thread has ended")

    async def __del__(self) -> None:
        """Called by Serve once, when the replica's streams have ended or had time to."""
        if not getattr(self, "_running", False):
            return
        self._running = False
        if self._announcement is not None:
            self._announcement.unlink(missing_ok=True)
        if self._metrics_server is not None:
            self._metrics_server.close()
        await self._formers.stop()
        await self._replica.stop()
        await self._quotas.stop()
        await self._store.close()

    def _announce(self, metrics: MetricsConfig) -> None:
        if metrics.folder is None:
            return
        self._metrics_server = start_http(self._replica.metrics.registry, host=metrics.listen)
        self._announcement = Announcement(
            world=self._replica.hosted.name,
            version=self._replica.hosted.contract.spec.version,
            replica=get_replica_context().replica_id.unique_id,
            target=f"{metrics.announce}:{self._metrics_server.port}",
            pid=os.getpid(),
        ).write(Path(metrics.folder))
