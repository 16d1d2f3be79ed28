"""Who comes in at the front door of a local server: tokens, quotas, certificates; and who does not."""

import os
import pickle
import subprocess
import sys
import time

import grpc
import gymnasium as gym
import numpy as np
import pytest
from certificates import Authority
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from serving_tools import tenants_file

from simservice.client.rllib import PPOSettings, served_config
from simservice.client.session import RemoteSession
from simservice.client.worlds import get_world, list_worlds
from simservice.errors import (
    CapacityExhausted,
    ConfigError,
    InvalidInput,
    QuotaExceeded,
    ServerUnavailable,
    Unauthenticated,
    UnknownSession,
)
from simservice.protocol.v1 import service_pb2 as pb
from simservice.serving.local import LocalConfig, LocalServer
from simservice.serving.settings import DoorSettings
from simservice.serving.wiring import ReplicaConfig
from simservice.sessions.embedded import EmbeddedStore
from simservice.types import Imagine

ACTION = {"action": np.ones(2, dtype=np.int64)}


@pytest.fixture(scope="module")
def guarded(toy_folder, tmp_path_factory):
    """A server with a real store and the tenants lab (2 sessions, 5 lanes), slow (40 steps a second) and shop."""
    folder = tmp_path_factory.mktemp("guarded")
    path, tokens = tenants_file(folder, lab={"sessions": 2, "lanes": 5}, slow={"steps_per_second": 40}, shop={})
    with EmbeddedStore(folder / "store") as store:
        config = LocalConfig(tenants=str(path), grace_s=0.1, store_url=store.url)
        with LocalServer([toy_folder], config=config) as server:
            yield server.address, tokens


@pytest.mark.parametrize("token", [None, "", "sim_guessed"])
def test_nobody_comes_in_without_a_token(guarded, token):
    address, _ = guarded
    for call in (
        lambda: list_worlds(address, token=token),
        lambda: get_world(address, "toy", token=token),
        lambda: RemoteSession(address, "toy", token=token),
    ):
        with pytest.raises(Unauthenticated, match="simservice token"):
            call()


def test_health_and_reflection_ask_for_no_token(guarded):
    with grpc.insecure_channel(guarded[0]) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        assert stub.Check(health_pb2.HealthCheckRequest()).status == health_pb2.HealthCheckResponse.SERVING
        watched = stub.Watch(health_pb2.HealthCheckRequest())
        assert next(watched).status == health_pb2.HealthCheckResponse.SERVING
        watched.cancel()
        assert "simservice.protocol.v1.WorldService" in ProtoReflectionDescriptorDatabase(channel).get_services()


def test_a_token_comes_from_the_environment_too(guarded, monkeypatch):
    address, tokens = guarded
    monkeypatch.setenv("SIMSERVICE_TOKEN", tokens["shop"])
    assert [world.spec.name for world in list_worlds(address)] == ["toy"]
    program = [sys.executable, "-m", "simservice", "worlds", "--address", address]
    assert "toy@" in subprocess.run(program, capture_output=True, text=True, check=True).stdout


def test_a_session_of_another_tenant_answers_like_one_that_never_was(guarded):
    address, tokens = guarded
    theirs = RemoteSession(address, "toy", token=tokens["shop"])
    never = "0" * 32
    answers = []
    for token in (theirs.token, never):
        session = RemoteSession(address, "toy", token=tokens["slow"])
        session._drop_stream()
        session.token = token
        with pytest.raises(UnknownSession) as refused:
            session.reset()
        answers.append((str(refused.value).replace(token[:8], "ID"), set(refused.value.details)))
        assert refused.value.details["session"] == token
    assert answers[0] == answers[1]
    theirs.reset()  # and is as it was
    theirs.close()


def test_ten_thousand_foreign_ids_leave_nothing_behind_and_tell_nothing(guarded, toy_folder):
    address, tokens = guarded
    theirs = RemoteSession(address, "toy", token=tokens["shop"])
    metadata = [("authorization", f"Bearer {tokens['slow']}")]
    with grpc.insecure_channel(address) as channel:
        play = channel.stream_stream(
            "/simservice.protocol.v1.WorldService/Play",
            request_serializer=pb.PlayRequest.SerializeToString,
            response_deserializer=pb.PlayReply.FromString,
        )
        seen = set()
        for number in range(FOREIGN_IDS):
            token = theirs.token if number % 100 == 0 else f"{number:032x}"
            call = play(iter([pb.PlayRequest(resume=pb.Resume(session=token))]), metadata=metadata)
            with pytest.raises(grpc.RpcError) as refused:
                next(call)
            seen.add((refused.value.code(), refused.value.details().replace(token[:8], "ID")))
    assert len(seen) == 1 and seen.pop()[0] is grpc.StatusCode.NOT_FOUND
    theirs.reset()
    theirs.close()


FOREIGN_IDS = int(os.environ.get("SIMSERVICE_FOREIGN_IDS", "300"))
"""10,000 where there is time; the suite does with fewer."""


def test_an_open_key_of_another_tenant_opens_nothing_of_theirs(guarded):
    address, tokens = guarded
    with grpc.insecure_channel(address) as channel:
        play = channel.stream_stream(
            "/simservice.protocol.v1.WorldService/Play",
            request_serializer=pb.PlayRequest.SerializeToString,
            response_deserializer=pb.PlayReply.FromString,
        )
        sessions = []
        for name in ("shop", "slow", "shop"):
            request = pb.PlayRequest(open=pb.Open(world="toy", num_envs=1, open_key=bytes(range(16))))
            metadata = [("authorization", f"Bearer {tokens[name]}")]
            sessions.append(next(play(iter([request]), metadata=metadata)).opened.session)
    assert sessions[0] == sessions[2] != sessions[1]


def test_sessions_and_lanes_have_quotas_that_a_close_gives_back(guarded):
    address, tokens = guarded

    def opened(lanes):
        return RemoteSession(address, "toy", num_envs=lanes, token=tokens["lab"], connect_timeout_s=0.5)

    one, two = opened(2), opened(2)
    with pytest.raises(QuotaExceeded, match="sessions") as refused:
        opened(1)
    assert refused.value.retry_after_s >= 1.0
    assert (refused.value.details["active"], refused.value.details["limit"]) == ("2", "2")
    two.close()
    with pytest.raises(QuotaExceeded, match="4 lanes, but 2 of its 5") as refused:
        opened(4)
    assert refused.value.retry_after_s is not None
    with pytest.raises(QuotaExceeded, match="6 lanes") as refused:
        opened(6)
    assert refused.value.retry_after_s is None  # no waiting helps
    three = opened(3)
    one.close()
    three.close()


def test_a_client_waits_for_its_quota_as_long_as_it_may(guarded):
    address, tokens = guarded
    held = [RemoteSession(address, "toy", token=tokens["lab"]) for _ in range(2)]
    ended = iter([lambda: None, held[0].close])

    def sleep(seconds):
        next(ended, lambda: None)()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("simservice.client.session.time.sleep", sleep)
        patient = RemoteSession(address, "toy", token=tokens["lab"], connect_timeout_s=60)
    patient.close()
    held[1].close()


def test_too_many_steps_are_put_off_not_lost(guarded):
    address, tokens = guarded
    session = RemoteSession(address, "toy", num_envs=2, token=tokens["slow"], patience_s=0.0)
    session.reset(seeds=np.arange(2))
    done = 0
    with pytest.raises(QuotaExceeded, match="steps a second") as refused:
        for _ in range(1000):
            session.step(ACTION)
            done += 1
    assert 0 < refused.value.retry_after_s < 1.0
    assert session.sequence == done + 1 and not session.closed
    session.patience_s = 60.0
    assert session.step(ACTION).reward.shape == (2,)  # waits, and is done once
    assert session.sequence == done + 2
    session.close()


def test_saves_and_forks_cost_as_many_steps_as_there_are_lanes(guarded):
    address, tokens = guarded
    session = RemoteSession(address, "toy", num_envs=30, token=tokens["slow"])
    began = time.monotonic()
    points = [session.save() for _ in range(3)]  # 40 steps a second, and one second's worth at once
    assert time.monotonic() - began >= 0.4
    assert points == [1, 2, 3]
    session.close()


def test_imagined_steps_are_steps(guarded):
    address, tokens = guarded
    session = RemoteSession(address, "toy", num_envs=2, token=tokens["slow"], patience_s=0.0)
    session.reset()
    command = Imagine(steps=30, actions={"action": np.ones((30, 2), np.int64)})
    with pytest.raises(QuotaExceeded, match="60 steps a second") as refused:
        for _ in range(3):  # what is left of a second's worth, and at most one debt
            session.imagine(command)
    assert refused.value.retry_after_s > 0.1
    session.patience_s = 60.0
    began = time.monotonic()
    assert len(session.imagine(command)) == 30  # when the debt is paid
    assert time.monotonic() - began > 0.1
    session.close()


def test_a_token_never_shows_itself(guarded):
    address, tokens = guarded
    secret = tokens["shop"]
    env = gym.make("simservice.client:simservice/World-v0", address=address, world="toy", token=secret)
    several = gym.make_vec(
        "simservice.client:simservice/World-v0",
        num_envs=2,
        vectorization_mode="vector_entry_point",
        address=address,
        world="toy",
        token=secret,
    )
    connection = env.unwrapped.session._connection
    shown = [repr(env), repr(env.spec), str(env.spec), repr(several.unwrapped.spec), repr(vars(env.unwrapped))]
    shown += [repr(connection), repr(env.unwrapped.session)]
    assert not [text for text in shown if secret in text]
    assert pickle.loads(pickle.dumps(env.spec)).kwargs["token"] == secret  # it can still be made again
    config = served_config(address, "toy", PPOSettings(), env_config={"token": secret})
    assert secret not in repr(config.to_dict()) and config.env_config["token"] == secret
    env.close()
    several.close()
    with pytest.raises(InvalidInput) as refused:
        RemoteSession(address, "toy", token=f"{secret}\n")
    assert secret not in str(refused.value)


# ---- certificates ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def secured(toy_folder, authority):
    """A server with TLS."""
    certificate, key = authority.certificate("server")
    config = LocalConfig(tls_cert=certificate, tls_key=key, grace_s=0.1, store_url="memory:")
    with LocalServer([toy_folder], config=config) as server:
        yield server.address


def test_tls_by_argument_and_by_address(secured, authority, monkeypatch):
    session = RemoteSession(secured, "toy", num_envs=2, tls=authority.ca)
    session.reset()
    assert session.step(ACTION).reward.shape == (2,)
    session.close()
    monkeypatch.setenv("SIMSERVICE_CA", authority.ca)
    assert [world.spec.name for world in list_worlds(f"grpcs://{secured}")] == ["toy"]
    port = secured.rpartition(":")[2]
    assert list_worlds(f"grpcs://localhost:{port}")


def test_a_client_that_speaks_plaintext_or_trusts_another_authority_stays_outside(secured, tmp_path):
    stranger = Authority(tmp_path / "stranger")
    for tls in (None, stranger.ca, True):
        with pytest.raises(ServerUnavailable):
            list_worlds(secured, timeout_s=0.5, tls=tls)


def test_mutual_tls_asks_for_the_clients_certificate(toy_folder, authority, tmp_path):
    certificate, key = authority.certificate("server")
    own, own_key = authority.certificate("client")
    foreign, foreign_key = Authority(tmp_path / "foreign").certificate("client")
    config = LocalConfig(tls_cert=certificate, tls_key=key, tls_client_ca=authority.ca, store_url="memory:")
    with LocalServer([toy_folder], config=config) as server:
        known = {"ca": authority.ca, "certificate": own, "key": own_key}
        assert list_worlds(server.address, tls=known)
        for tls in (authority.ca, {"ca": authority.ca, "certificate": foreign, "key": foreign_key}):
            with pytest.raises(ServerUnavailable):
                list_worlds(server.address, timeout_s=0.5, tls=tls)


@pytest.mark.parametrize(
    ("tls", "problem"),
    [
        ({"certificate": "x"}, "go together"),
        ({"cert": "x"}, "no part 'cert'"),
        ("/nowhere.pem", "cannot be read"),
    ],
)
def test_wrong_arguments_of_tls_are_told(tls, problem):
    with pytest.raises(InvalidInput, match=problem):
        list_worlds("127.0.0.1:1", tls=tls)


def test_tls_cannot_be_asked_for_and_refused_at_once():
    with pytest.raises(InvalidInput, match="contradicts"):
        list_worlds("grpcs://127.0.0.1:1", tls=False)


def test_certificates_that_cannot_work_are_told_before_anything_listens(toy_folder, authority, tmp_path):
    certificate, key = authority.certificate("one")
    _, other_key = authority.certificate("two")
    torn = tmp_path / "torn.pem"
    torn.write_text("no certificate")
    for fields, problem in [
        (dict(tls_cert=certificate), "needs both"),
        (dict(tls_client_ca=certificate), "needs both"),
        (dict(tls_cert=certificate, tls_key=other_key), "belong together"),
        (dict(tls_cert=certificate, tls_key=str(torn)), "belong together"),
        (dict(tls_cert=certificate, tls_key="/nowhere.key"), "cannot be read"),
        (dict(tls_cert=certificate, tls_key=key, tls_client_ca=str(torn)), "no certificate authority"),
    ]:
        with pytest.raises(ConfigError, match=problem):
            LocalServer([toy_folder], config=LocalConfig(**fields))


def test_an_open_door_to_other_machines_must_be_asked_for():
    there = "192.0.2.1"
    for fields, problem in [
        (dict(), "plaintext"),
        (dict(tenants="t.toml"), "plaintext"),
        (dict(tls_cert="c", tls_key="k"), "whoever reaches"),
    ]:
        with pytest.raises(ConfigError, match=problem):
            DoorSettings(host=there, **fields).check_doors()
    for fields in (
        dict(insecure=True),
        dict(tls_cert="c", tls_key="k", tenants="t.toml"),
        dict(tls_cert="c", tls_key="k", tls_client_ca="ca"),
    ):
        DoorSettings(host=there, **fields).check_doors()
    DoorSettings(host="127.0.0.1").check_doors()


# ---- capacity -------------------------------------------------------------------------------------------------------


def test_what_is_over_capacity_is_refused_at_once_with_a_time_to_come_again_and_the_others_go_on(toy_folder):
    config = LocalConfig(store_url="memory:", grace_s=0.1, replica=ReplicaConfig(capacity=16))
    with LocalServer([toy_folder], config=config) as server:
        inside = [RemoteSession(server.address, "toy", num_envs=2) for _ in range(8)]
        for session in inside:
            session.reset()
        for _ in range(16):  # three times what fits
            with pytest.raises(CapacityExhausted) as refused:
                RemoteSession(server.address, "toy", num_envs=2, connect_timeout_s=0.5)
            assert 1.0 <= refused.value.retry_after_s <= 30.0
            assert refused.value.details["limit"] == "16"
            for session in inside:
                session.step(ACTION)
        with pytest.raises(CapacityExhausted, match="17 lanes") as refused:
            RemoteSession(server.address, "toy", num_envs=17)
        assert refused.value.retry_after_s is None  # no waiting helps
        inside.pop().close()
        RemoteSession(server.address, "toy", num_envs=2).close()
        for session in inside:
            session.close()
