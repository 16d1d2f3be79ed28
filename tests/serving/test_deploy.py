"""The files of deploy/: what they name exists, and the Serve config serves a world on a Ray that others started."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from simservice.client.session import RemoteSession
from simservice.errors import SimserviceError
from simservice.serving.address import SINGLE_PORTS, PortRange, hold_ports
from simservice.serving.guardian import end_leftovers
from simservice.sessions.embedded import EmbeddedStore

DEPLOY = Path(__file__).parents[2] / "deploy"


def environment() -> dict[str, str]:
    """The settings of deploy/ray.env."""
    lines = (DEPLOY / "ray.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


@pytest.fixture
def ports() -> Iterator[PortRange]:
    """Ports that nobody else gets meanwhile."""
    held = hold_ports()
    yield held
    held.close()


@pytest.fixture
def config(noisy_folder: Path, ports: PortRange) -> Iterator[dict[str, Any]]:
    """deploy/serve.yaml with places of this machine put in."""
    found = yaml.safe_load((DEPLOY / "serve.yaml").read_text())
    found["http_options"] = {"host": "127.0.0.1", "port": ports.take()}
    found["grpc_options"]["port"] = ports.take()
    [application] = found["applications"]
    application["name"] = "noisy"
    with EmbeddedStore() as store:
        application["args"] |= {"folder": str(noisy_folder), "store_url": store.url, "cpus_per_replica": 0.1}
        yield found


def test_the_serve_config_serves_a_world(config, ports, tmp_path):
    path = tmp_path / "serve.yaml"
    path.write_text(yaml.safe_dump(config))
    names = ("HAPROXY_METRICS", "HAPROXY_STATS", "FALLBACK_PROXY_HTTP", "FALLBACK_PROXY_GRPC")
    own = {f"RAY_SERVE_{name}_PORT": str(ports.take()) for name in names}
    folder = Path(tempfile.mkdtemp(prefix="sim-ray-", dir="/tmp"))  # Ray's socket paths must be short
    for protocol, first in (("GRPC", ports.first + SINGLE_PORTS), ("HTTP", ports.first + 500)):
        own[f"RAY_SERVE_DIRECT_INGRESS_MIN_{protocol}_PORT"] = str(first)
        own[f"RAY_SERVE_DIRECT_INGRESS_MAX_{protocol}_PORT"] = str(first + 100)
    own |= {"RAY_TMPDIR": str(folder), "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "h" / "admin.sock")}
    command = [str(Path(sys.executable).parent / "serve"), "run", str(path)]
    with open(folder / "output", "w+") as output:
        process = subprocess.Popen(
            command, env={**os.environ, **environment(), **own}, stdout=output, stderr=output, start_new_session=True
        )
        try:
            address = f"127.0.0.1:{config['grpc_options']['port']}"
            session = connected(address, process, folder / "output")
            session.reset(seeds=np.arange(4, dtype=np.int64))
            assert session.step({"action": np.ones(4, dtype=np.int64)}).reward.shape == (4,)
            session.close()
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(60)
            finally:
                end_leftovers(folder, process.pid, 20.0)  # it leads a session of its own


def connected(address: str, process: subprocess.Popen[bytes], output: Path) -> RemoteSession:
    """A session, as soon as the world is up."""
    deadline = time.monotonic() + 200
    while True:
        try:
            return RemoteSession(address, "noisy", num_envs=4, connect_timeout_s=1.0)
        except SimserviceError:
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(output.read_text()[-3000:])


def test_the_containers_get_files_that_exist():
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    worlds = compose["services"]["worlds"]
    assert (DEPLOY / worlds["env_file"]).is_file()
    assert (DEPLOY / worlds["build"]["context"] / worlds["build"]["dockerfile"]).resolve() == DEPLOY / "Dockerfile"
    for line in (DEPLOY / "Dockerfile").read_text().splitlines():
        if line.startswith("COPY "):
            assert all((DEPLOY.parent / source).exists() for source in line.split()[1:-1]), line
    assert worlds["ports"] == ["127.0.0.1:50051:50051"]


def test_the_settings_of_a_foreign_cluster_are_our_own():
    code = "import json; from simservice.serving.cluster import serve_settings; print(json.dumps(serve_settings()))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert json.loads(found) == environment()
