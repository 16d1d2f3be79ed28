"""One process without Ray: the same facade over several worlds under a plain grpc.aio server. For laptops and tests."""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import TracebackType

import grpc
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from simservice.errors import ConfigError, InternalError, PortInUse
from simservice.serving import interpreter
from simservice.serving.facade import WorldService
from simservice.serving.formers import Formers
from simservice.serving.registration import NAME, add_world_service
from simservice.serving.settings import MAX_MESSAGE_BYTES, DoorSettings
from simservice.serving.tenants import Tenants
from simservice.serving.tls import TlsFiles, read_tls
from simservice.serving.wiring import Replica, ReplicaConfig, build_replica, open_store
from simservice.sessions.embedded import store_from_url
from simservice.sessions.quotas import QuotaKeeper
from simservice.sessions.redis_leases import lease_store
from simservice.telemetry import start_http

OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.so_reuseport", 0),  # else two servers share a port and each gets half of the calls
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.http2.bdp_probe", 0),  # else windows grow to tens of megabytes, also of calls that nobody reads yet
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),  # clients ping to notice a dead server
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.keepalive_time_ms", 20_000),  # a client that vanished without a word is noticed, and its stream ends
    ("grpc.keepalive_timeout_ms", 10_000),
)


@dataclass(frozen=True, kw_only=True)
class LocalConfig(DoorSettings):
    """Where and how one process serves."""

    store_url: str | None = None  # None: REDIS_URL, else an embedded store
    store_folder: str | None = None  # of the embedded store; None: a temporary one, sessions end with the server
    metrics_port: int | None = None  # of a Prometheus page; 0: a free one
    grace_s: float = 1.0  # open streams are cut after this when the server stops
    replica: ReplicaConfig = field(default_factory=ReplicaConfig)


class LocalService:
    """Worlds served from the running event loop."""

    def __init__(self, folders: Sequence[str | Path], config: LocalConfig | None = None) -> None:
        if not folders:
            raise ConfigError("there is no world to serve; name at least one folder that `simservice train` wrote")
        self.config = config or LocalConfig()
        self.config.check_doors()
        self._tls = read_tls(self.config)
        self._tenants = Tenants(self.config.tenants, monitor=self.config.monitor)
        self.folders = tuple(folders)
        self.replicas: list[Replica] = []
        self.port = 0
        self.metrics_urls: list[str] = []
        self._stack = AsyncExitStack()

    @property
    def address(self) -> str:
        """host:port, once started."""
        return _place(self.config.host, self.port)

    async def start(self) -> None:
        """Loads the worlds, then listens. A failure (PortInUse, CorruptCheckpoint …) leaves nothing behind."""
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """No new sessions, streams are told to go on elsewhere or cut after the grace time, sessions are put down."""
        await self._stack.aclose()

    async def _start(self) -> None:
        stack = self._stack
        server = grpc.aio.server(options=OPTIONS)
        self.port = _listen(server, self.config.host, self.config.port, self._tls)
        stack.push_async_callback(server.stop, None)  # for a failure below; a started server is stopped before
        embedded = store_from_url(self.config.store_url, self.config.store_folder)
        url = await asyncio.to_thread(embedded.__enter__)
        stack.push_async_callback(asyncio.to_thread, embedded.__exit__, None, None, None)
        store = open_store(url, self.config.replica.sessions.idle_ttl_s)
        stack.push_async_callback(store.close)
        quotas = QuotaKeeper(lease_store(store))
        stack.push_async_callback(quotas.stop)
        self.replicas = [build_replica(folder, store, self.config.replica, quotas) for folder in self.folders]
        names = [built.hosted.name for built in self.replicas]
        if len(set(names)) < len(names):
            raise ConfigError(f"two of the worlds have one name ({', '.join(sorted(names))}); serve them apart")
        for built in self.replicas:
            await built.start()
            stack.push_async_callback(built.stop)
        build = partial(build_replica, store=store, config=self.config.replica, quotas=quotas)
        formers = Formers(self.config.replica.formers, build)
        stack.push_async_callback(formers.stop)
        for built in self.replicas:
            built.beside = partial(formers.of, built.hosted.name)
        facade = WorldService([built.hosted for built in self.replicas], store, self._tenants, formers)
        add_world_service(facade, server)
        servicer = _add_health_and_reflection(server)
        self._publish_metrics()
        await server.start()
        stack.push_async_callback(server.stop, self.config.grace_s)
        stack.push_async_callback(facade.drain, self.config.grace_s)
        stack.push_async_callback(servicer.enter_graceful_shutdown)

    def _publish_metrics(self) -> None:
        """One page a world: a registry holds each name once."""
        if self.config.metrics_port is None:
            return
        for place, built in enumerate(self.replicas):
            port = self.config.metrics_port + place if self.config.metrics_port else 0
            page = start_http(built.metrics.registry, port, self.config.host)
            self.metrics_urls.append(page.url)
            self._stack.push_async_callback(asyncio.to_thread, page.close)


def _listen(server: grpc.aio.Server, host: str, port: int, tls: TlsFiles | None) -> int:
    place = _place(host, port)
    try:
        if tls is None:
            return int(server.add_insecure_port(place))
        pair = ((tls.key, tls.certificate),)
        return int(
            server.add_secure_port(place, grpc.ssl_server_credentials(pair, tls.client_ca, tls.client_ca is not None))
        )
    except RuntimeError as error:  # gRPC tells no more than that it could not bind
        problem = _bind_problem(host, port)
        if problem is None or problem.errno == errno.EADDRINUSE:
            raise PortInUse(place) from error
        raise ConfigError(f"cannot listen at {place}: {problem.strerror}; choose another --host or --port") from error


def _place(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _bind_problem(host: str, port: int) -> OSError | None:
    """What the operating system says to listening there; None when it would do it now."""
    try:
        family, kind, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as tried:
            tried.bind(where)
    except OSError as error:
        return error
    return None


def _add_health_and_reflection(server: grpc.aio.Server) -> health.aio.HealthServicer:
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    reflection.enable_server_reflection((NAME, reflection.SERVICE_NAME, health.SERVICE_NAME), server)
    return servicer


def serve_local(
    folders: Sequence[str | Path],
    config: LocalConfig | None = None,
    *,
    ready: Callable[[LocalService], None] = lambda service: None,
) -> None:
    """Serves until SIGINT or SIGTERM, then stops gracefully; calls `ready` once it listens. For the main thread."""
    asyncio.run(_serve_until_signal(LocalService(folders, config), ready))


async def _serve_until_signal(service: LocalService, ready: Callable[[LocalService], None]) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    await service.start()
    interpreter.settle()
    try:
        ready(service)
        await stopped.wait()
    finally:
        await service.stop()


class LocalServer:
    """A LocalService in a background thread with an event loop of its own.

    with LocalServer(["runs/cartpole"]) as server:
        env = gym.make("simservice.client:simservice/World-v0", address=server.address, world="cartpole")
    """

    def __init__(
        self,
        folders: Sequence[str | Path],
        *,
        port: int = 0,
        store_url: str | None = None,
        config: LocalConfig | None = None,
    ) -> None:
        config = config or LocalConfig()
        self.service = LocalService(
            folders, replace(config, port=port or config.port, store_url=store_url or config.store_url)
        )
        self._thread = threading.Thread(target=self._run, name="local server", daemon=True)
        self._settled = threading.Event()  # listening, or failed
        self._failure: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped: asyncio.Event | None = None

    @property
    def address(self) -> str:
        """host:port."""
        return self.service.address

    def start(self) -> LocalServer:
        """Returns once the server listens; raises what kept it from that."""
        self._thread.start()
        self._settled.wait()
        if self._failure is not None:
            self._thread.join()
            raise self._failure
        return self

    def stop(self) -> None:
        """Stops gracefully; a second stop is no error."""
        if self._loop is not None and self._stopped is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopped.set)
            self._thread.join()

    def __enter__(self) -> LocalServer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except Exception as error:  # raised in start(), by the thread that asked
            self._failure = error if not self._settled.is_set() else InternalError(f"the server failed: {error}")
        finally:
            self._settled.set()

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopped = asyncio.Event()
        await self.service.start()
        self._settled.set()
        try:
            await self._stopped.wait()
        finally:
            await self.service.stop()
