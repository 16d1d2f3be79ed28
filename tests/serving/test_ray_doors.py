"""The front door of worlds on Ray Serve: HAProxy with certificates, tokens and quotas over two replicas."""

import contextlib
import os
import re
import secrets
import socket
import subprocess
import sys
from pathlib import Path

import grpc
import numpy as np
import pytest
from certificates import Authority
from google.rpc import status_pb2
from grpc_status import rpc_status
from processes import descendants, listening_addresses
from serving_tools import tenants_file

from simservice.client.channel import STREAMS_VARIABLE
from simservice.client.chunked_wire import ChunkedWire
from simservice.client.session import RemoteSession
from simservice.client.wire import _OwnWire
from simservice.client.worlds import list_worlds
from simservice.errors import QuotaExceeded, ServerUnavailable, Unauthenticated, UnknownSession
from simservice.protocol.status import error_from_status
from simservice.protocol.v1 import service_pb2 as pb
from simservice.protocol.v1.service_pb2_grpc import WorldServiceStub
from simservice.serving.haproxy_launcher import PLAY, hide_http, lock_front
from simservice.serving.service import RayService

CONFIG = (
    "frontend http_frontend\n    bind 0.0.0.0:8000\n    mode http\nfrontend grpc_frontend\n    # why\n    # so\n"
    "    bind 0.0.0.0:50051 proto h2\n    mode http\nbackend x\n    bind 1.2.3.4:5 proto h2\n"
)


def test_certificates_are_put_on_the_front_door_alone():
    locked = lock_front(CONFIG, "ssl crt a.pem alpn h2", "/run/front")
    assert (
        "    bind 0.0.0.0:50051 ssl crt a.pem alpn h2\n    bind unix@/run/front mode 600 proto h2\n    mode" in locked
    )
    assert "bind 1.2.3.4:5 proto h2\n" in locked
    assert lock_front(CONFIG, "", "") == CONFIG
    both = lock_front(CONFIG, "", "/run/front", http1=True)
    assert "    bind 0.0.0.0:50051\n    bind unix@/run/front mode 600\n    timeout http-request 10s\n" in both
    assert "bind 1.2.3.4:5 proto h2\n" in both
    assert "bind 127.0.0.1:8000\n    mode http\nfrontend grpc" in hide_http(CONFIG, "127.0.0.1")


STREAM = (f"POST {PLAY} HTTP/1.1", "host: x", "content-type: application/grpc", "te: trailers")


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (STREAM, b"200"),
        (STREAM[:3], b"415"),  # all that a web page can have a browser send
        ((*STREAM[:2], "content-type: text/plain", STREAM[3]), b"415"),
        ((STREAM[0].replace("Play", "ListWorlds"), *STREAM[1:]), b"415"),
        (("GET / HTTP/1.1", *STREAM[1:]), b"415"),
        ((STREAM[0].replace("POST", "GET"), *STREAM[1:]), b"415"),
        ((STREAM[0].replace("Play HTTP/1.1", "ListWorlds HTTP/2.0"), *STREAM[1:]), b"415"),  # whatever it calls itself
    ],
)
def test_http1_is_taken_for_streams_alone_and_never_from_a_browser(ray_service, lines, status):
    host, port = ray_service.address.split(":")
    with socket.create_connection((host, int(port)), 10) as connection:
        connection.sendall("\r\n".join((*lines, "transfer-encoding: chunked", "\r\n")).encode())
        assert connection.recv(100).split()[1] == status


def test_sessions_step_by_http1_or_grpc_alike(ray_service, monkeypatch):
    seen = []
    for ways, wire in (("", ChunkedWire), ("grpc", _OwnWire)):
        monkeypatch.setenv(STREAMS_VARIABLE, ways)
        with contextlib.closing(RemoteSession(ray_service.address, "noisy", num_envs=3)) as session:
            assert isinstance(session._stream._wire, wire)
            session.reset(seeds=np.arange(3))
            results = [session.step({"action": np.full(3, step % 3)}) for step in range(20)]
        seen.append([(r.observation["observation"].tobytes(), r.reward.tobytes()) for r in results])
    assert seen[0] == seen[1]


def test_certificates_tokens_and_quotas_hold_over_all_replicas(noisy_folder, tmp_path):
    authority = Authority(tmp_path / "authority")
    certificate, key = authority.certificate("server")
    own, own_key = authority.certificate("client")
    path, tokens = tenants_file(tmp_path, lab={"sessions": 4, "lanes": 16, "steps_per_second": 1e6}, shop={})
    settings = {"tls_cert": certificate, "tls_key": key, "tls_client_ca": authority.ca, "tenants": str(path)}
    ray_token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}  # as deploy/README.md tells
    with RayService(
        [noisy_folder], replicas=(2, 2), lanes_per_replica=32, environment=ray_token, **settings
    ) as service:
        address = f"grpcs://{service.address}"
        tls = {"ca": authority.ca, "certificate": own, "key": own_key}
        lab = {"token": tokens["lab"], "tls": tls}
        assert service.worlds == [world.spec.full_name for world in list_worlds(address, **lab)]
        with pytest.raises(Unauthenticated):
            list_worlds(address, tls=tls)
        status = status_of_a_stranger(service.address, tls)
        assert type(error_from_status(status)) is Unauthenticated  # Serve and HAProxy carry the standard details
        for wrong in (None, authority.ca):
            with pytest.raises(ServerUnavailable):
                list_worlds(service.address, timeout_s=1.0, token=tokens["lab"], tls=wrong)

        sessions = [RemoteSession(address, "noisy", num_envs=4, **lab) for _ in range(4)]
        for session in sessions:
            session.reset(seeds=np.arange(4))
            assert session.step({"action": np.ones(4, dtype=np.int64)}).reward.shape == (4,)
        with pytest.raises(QuotaExceeded) as refused:  # whichever replica is asked
            RemoteSession(address, "noisy", connect_timeout_s=0.5, **lab)
        assert refused.value.details["active"] == "4" and refused.value.retry_after_s
        stranger = RemoteSession(address, "noisy", token=tokens["shop"], tls=tls)
        stranger._drop_stream()
        stranger.token = sessions[0].token
        with pytest.raises(UnknownSession):
            stranger.reset()
        for session in sessions:
            session.close()
        RemoteSession(address, "noisy", num_envs=16, **lab).close()
        haproxies = [process.pid for process in descendants(service.pid) if "/haproxy -db" in process.command]
        assert set().union(*map(listening_addresses, haproxies)) == {"127.0.0.1"}
        raylet = next(process for process in descendants(service.pid) if "/raylet " in process.command)
        found = re.search(r"--gcs-address=(\S+)", raylet.command)
        assert found and ray_answers(found[1], ray_token)
        assert not ray_answers(found[1], {"RAY_AUTH_MODE": "disabled"})
        assert not ray_answers(found[1], {**ray_token, "RAY_AUTH_TOKEN": secrets.token_hex(32)})


def status_of_a_stranger(address: str, tls: dict[str, str]) -> status_pb2.Status:
    """How a call without a token ends, as gRPC's own library reads it."""
    ca, key, certificate = (Path(tls[part]).read_bytes() for part in ("ca", "key", "certificate"))
    credentials = grpc.ssl_channel_credentials(ca, key, certificate)
    with grpc.secure_channel(address, credentials) as channel, pytest.raises(grpc.RpcError) as refused:
        WorldServiceStub(channel).ListWorlds(pb.ListWorldsRequest(), timeout=10)
    return rpc_status.from_call(refused.value)


def ray_answers(address: str, environment: dict[str, str]) -> bool:
    """Whether Ray's own control plane takes this token."""
    command = [str(Path(sys.executable).parent / "ray"), "health-check", "--address", address]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, timeout=60)
    return done.returncode == 0
