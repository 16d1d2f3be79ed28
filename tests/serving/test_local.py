"""One process without Ray: ports, health, reflection, ends."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
import urllib.request

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from simservice.errors import ConfigError, CorruptCheckpoint, PortInUse, StoreUnavailable
from simservice.protocol.v1 import service_pb2 as pb
from simservice.protocol.v1.service_pb2_grpc import WorldServiceStub
from simservice.serving.local import LocalConfig, LocalServer


def listed(address):
    with grpc.insecure_channel(address) as channel:
        return [world.name for world in WorldServiceStub(channel).ListWorlds(pb.ListWorldsRequest(), timeout=10).worlds]


def test_health_and_reflection_tell_what_runs_here(toy_server):
    with grpc.insecure_channel(toy_server.address) as channel:
        health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert health.status == health_pb2.HealthCheckResponse.SERVING
        assert "simservice.protocol.v1.WorldService" in ProtoReflectionDescriptorDatabase(channel).get_services()


def test_a_port_that_is_taken_is_told_and_the_other_server_is_left_alone(toy_server, toy_folder):
    port = int(toy_server.address.rpartition(":")[2])
    with pytest.raises(PortInUse, match=rf"127.0.0.1:{port} is in use by another process"):
        LocalServer([toy_folder], port=port, store_url="memory:").start()
    assert listed(toy_server.address) == ["noisy", "toy"]


def test_a_stopped_server_frees_its_port_and_may_be_stopped_twice(toy_folder):
    server = LocalServer([toy_folder], store_url="memory:").start()
    port = int(server.address.rpartition(":")[2])
    server.stop()
    server.stop()
    with socket.socket() as free:
        free.bind(("127.0.0.1", port))
    with LocalServer([toy_folder], port=port, store_url="memory:") as again:
        assert listed(again.address) == ["toy"]


def test_a_folder_that_is_no_world_is_told_before_anything_listens(tmp_path):
    with pytest.raises(CorruptCheckpoint, match=r"world\.json is missing"):
        LocalServer([tmp_path], store_url="memory:").start()
    with pytest.raises(ConfigError, match="there is no world to serve"):
        LocalServer([])


def test_two_worlds_of_one_name_are_refused(save_toy):
    with pytest.raises(ConfigError, match="two of the worlds have one name"):
        LocalServer([save_toy(), save_toy(noise=0.5)], store_url="memory:").start()


def test_a_store_that_nobody_runs_is_told(toy_folder, tmp_path):
    with pytest.raises(StoreUnavailable, match="REDIS_URL"):
        LocalServer([toy_folder], store_url=f"unix://{tmp_path}/nobody").start()


def test_metrics_have_a_page(toy_folder):
    with LocalServer([toy_folder], store_url="memory:", config=LocalConfig(metrics_port=0)) as server:
        listed(server.address)
        with urllib.request.urlopen(server.service.metrics_urls[0]) as answer:
            page = answer.read().decode()
    assert 'simservice_env_rpc_total{call="ListWorlds",code="OK",world="toy"} 1.0' in page
    assert 'simservice_lanes_capacity{world="toy"} 4096.0' in page


PROGRAM = textwrap.dedent("""
    import sys
    from simservice.serving.local import LocalConfig, serve_local
    serve_local([sys.argv[1]], LocalConfig(), ready=lambda service: print(service.address, flush=True))
    print("stopped", flush=True)
""")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_server_and_its_store_gracefully(toy_folder, number, tmp_path):
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    environment.pop("REDIS_URL", None)
    command = [sys.executable, "-c", PROGRAM, str(toy_folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert listed(process.stdout.readline().strip()) == ["toy"]
        process.send_signal(number)
        assert process.stdout.readline() == "stopped\n"
        assert process.wait(30) == 0
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("simservice-store")]


def test_an_ipv6_loopback_is_an_address_like_any_other(toy_folder):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    with LocalServer([toy_folder], store_url="memory:", config=LocalConfig(host="::1", grace_s=0.1)) as server:
        assert server.address.startswith("[::1]:")
        assert listed(server.address) == ["toy"]


def test_an_address_of_another_machine_is_not_called_in_use(toy_folder):
    server = LocalServer([toy_folder], store_url="memory:", config=LocalConfig(host="192.0.2.77", insecure=True))
    with pytest.raises(ConfigError, match=r"cannot listen at 192\.0\.2\.77:0"):
        server.start()
