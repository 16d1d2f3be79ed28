"""Users report real episodes: whole ones, once each, checked against the world's spaces, and read by who may."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import grpc
import numpy as np
import pytest
import toy_reality
from mutations import mutated

from simservice.client.reports import read_reports, report
from simservice.client.worlds import get_world
from simservice.data.collect import collect_episodes
from simservice.errors import InvalidInput, UnknownWorld
from simservice.protocol.reports import encode_episode
from simservice.protocol.status import error_from_metadata
from simservice.protocol.v1 import service_pb2 as pb
from simservice.protocol.v1.service_pb2_grpc import WorldServiceStub
from simservice.serving.local import LocalConfig, LocalServer
from simservice.serving.tenants import hash_line, new_token
from simservice.telemetry import exposition


@pytest.fixture(scope="module")
def episodes():
    with toy_reality.registered() as env_id:
        return collect_episodes(env_id, episodes=6, seed=0, policy="random")


@pytest.fixture
def contract(toy_server):
    return get_world(toy_server.address, "toy")


def message(contract, episode, **changes):
    spec = contract.spec
    found = encode_episode(episode, spec.observation_space, spec.action_space)
    for name, value in changes.items():
        if isinstance(value, pb.Values):
            getattr(found, name).CopyFrom(value)
        else:
            setattr(found, name, value)
    return found


def refused(toy_server, *messages, world="toy"):
    """The error that a request of these episodes ends with."""
    with grpc.insecure_channel(toy_server.address) as channel:
        with pytest.raises(grpc.RpcError) as found:
            WorldServiceStub(channel).Report(pb.ReportRequest(world=world, episodes=messages), timeout=10)
        return next(filter(None, (error_from_metadata(*pair) for pair in found.value.trailing_metadata())))


def test_what_is_reported_is_read_as_it_was_and_counted_once(toy_folder, episodes):
    with LocalServer([toy_folder], store_url="memory:") as server:
        contract = get_world(server.address, "toy")
        first = report(server.address, "toy", episodes[:4], environment_version="rig-7")
        again = report(server.address, "toy", episodes)
        assert (first.accepted, first.repeated) == (4, 0)
        assert (again.accepted, again.repeated) == (2, 4)
        found, last = read_reports(server.address, contract)
        assert len(found) == 6
        assert len({one.reporter for one in found}) == 1
        assert [one.environment_version for one in found] == ["rig-7"] * 4 + [""] * 2
        for one, episode in zip(found, episodes, strict=True):
            np.testing.assert_array_equal(one.episode.observation["observation"], episode.observation["observation"])
            np.testing.assert_array_equal(one.episode.action["action"], episode.action["action"])
            np.testing.assert_array_equal(one.episode.reward, episode.reward)
            assert (one.episode.terminated, one.episode.policy) == (episode.terminated, "random")
        assert read_reports(server.address, contract, last) == ([], last)
        page = exposition(server.service.replicas[0].metrics.registry)
        assert 'simservice_reported_episodes_total{outcome="accepted",world="toy"} 6.0' in page
        assert 'simservice_reported_episodes_total{outcome="repeated",world="toy"} 4.0' in page


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("episodes[1].id", {"id": b"short"}),
        ("episodes[1].steps", {"steps": 0}),
        ("episodes[1].steps", {"steps": 100_001}),
        ("episodes[1].observation", {"observation": pb.Values()}),
        ("episodes[1].observation", {"observation": pb.Values(leaves=[b"123"])}),
        ("episodes[1].action", {"action": pb.Values(leaves=[b""])}),
        ("episodes[1].rewards", {"rewards": b"12345678"}),
        ("episodes[1].terminated", {"terminated": False, "truncated": False}),
        ("episodes[1].policy", {"policy": "two\nlines"}),
        ("episodes[1].environment_version", {"environment_version": "x" * 65}),
    ],
)
def test_a_wrong_field_is_named_with_its_place_and_nothing_is_kept(toy_server, contract, episodes, field, changes):
    error = refused(toy_server, message(contract, episodes[0]), message(contract, episodes[1], **changes))
    assert isinstance(error, InvalidInput)
    assert error.details["field"] == field
    assert read_reports(toy_server.address, contract)[0] == []


def test_values_outside_the_spaces_are_refused(toy_server, contract, episodes):
    rows = len(episodes[0])
    outside = pb.Values(leaves=[np.full(rows, 3, "<i8").tobytes()])
    assert refused(toy_server, message(contract, episodes[0], action=outside)).details["field"] == "episodes[0].action"
    wrong = episodes[0].observation["observation"].copy()
    wrong[2, 1] = np.nan
    holed = pb.Values(leaves=[wrong.tobytes()])
    error = refused(toy_server, message(contract, episodes[0], observation=holed))
    assert error.details["field"] == "episodes[0].observation"
    unknown = np.full(rows, np.inf, "<f8").tobytes()
    assert refused(toy_server, message(contract, episodes[0], rewards=unknown)).details["field"].endswith("rewards")


def test_an_unknown_world_too_many_episodes_and_unknown_fields_are_refused(toy_server, contract, episodes):
    assert isinstance(refused(toy_server, message(contract, episodes[0]), world="tay"), UnknownWorld)
    many = [message(contract, episodes[0])] * 65
    assert refused(toy_server, *many).details["field"] == "episodes"
    assert refused(toy_server).details["field"] == "episodes"
    strange = pb.RealEpisode.FromString(message(contract, episodes[0]).SerializeToString() + b"\xf8\x07\x01")
    assert refused(toy_server, strange).details["field"] == "request.episodes[0]"


def test_an_episode_that_has_not_ended_is_refused_before_anything_is_sent(toy_server, contract, episodes):
    with pytest.raises(InvalidInput, match=r"episodes\[1\].*has not ended"):
        report(toy_server.address, "toy", [episodes[0], replace(episodes[1], terminated=False, truncated=False)])
    assert read_reports(toy_server.address, contract)[0] == []


def test_a_tenant_reads_its_own_and_a_monitor_everybodys_under_pseudonyms(toy_folder, episodes, tmp_path):
    lab, shop, watcher = new_token(), new_token(), new_token()
    file = tmp_path / "tenants.toml"
    rows = [("lab", lab, ""), ("shop", shop, ""), ("watcher", watcher, "monitor = true")]
    file.write_text("\n".join(f'[tenants.{name}]\ntokens = ["{hash_line(t)}"]\n{more}' for name, t, more in rows))
    config = LocalConfig(tenants=str(file), grace_s=0.1)
    with LocalServer([toy_folder], store_url="memory:", config=config) as server:
        contract = get_world(server.address, "toy", token=lab)
        assert report(server.address, "toy", episodes[:2], token=lab).accepted == 2
        assert report(server.address, "toy", episodes[:3], token=shop).accepted == 3  # each tenant's own
        assert len(read_reports(server.address, contract, token=lab)[0]) == 2
        seen = read_reports(server.address, contract, token=watcher)[0]
        assert len(seen) == 5
        assert len({one.reporter for one in seen}) == 2
        assert not any(name in one.reporter for one in seen for name in ("lab", "shop"))


def test_mutated_reports_never_end_in_internal_or_unknown(toy_server, contract, episodes):
    rng = random.Random(0)
    good = pb.ReportRequest(world="toy", episodes=[message(contract, one) for one in episodes[:2]]).SerializeToString()
    reading = pb.ReadReportsRequest(world="toy", after=3).SerializeToString()
    codes = Counter()
    with grpc.insecure_channel(toy_server.address) as channel:
        for number in range(400):
            name, raw = ("Report", good) if number % 4 else ("ReadReports", reading)
            call = channel.unary_unary(f"/simservice.protocol.v1.WorldService/{name}")
            try:
                call(mutated(rng, raw), timeout=10)
                codes["OK"] += 1
            except grpc.RpcError as error:
                codes[error.code().name] += 1
    assert not {"INTERNAL", "UNKNOWN"} & set(codes)
    assert codes["INVALID_ARGUMENT"] > 50
