"""How many series there are does not grow with sessions, tenants, versions or restarts, and none names anybody."""

from __future__ import annotations

import re
import secrets
import time
import uuid
from pathlib import Path

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families

import simservice.fidelity  # noqa: F401 - registers the metrics
from simservice.fidelity.metric import metrics
from simservice.fidelity.states import HORIZONS
from simservice.protocol.v1 import service_pb2 as pb
from simservice.protocol.v1.service_pb2_grpc import WorldServiceStub
from simservice.serving.announcement import Announcement, announced
from simservice.serving.local import LocalConfig, LocalServer
from simservice.serving.tenants import hash_line, new_token
from simservice.telemetry import (
    DriftMetrics,
    FidelityMetrics,
    FidelityReading,
    FleetMetrics,
    WatchReading,
    exposition,
    names,
)

SESSIONS, TENANTS, RESTARTS, VERSIONS = 1000, 20, 10, 3


def series(page: str) -> set[tuple[str, tuple[tuple[str, str], ...]]]:
    families = text_string_to_metric_families(page)
    return {(one.name, tuple(sorted(one.labels.items()))) for family in families for one in family.samples}


def play_sessions(address: str, tokens: list[str], count: int) -> list[str]:
    """Short sessions of the tenants in turn; their tokens."""
    opened = []
    with grpc.insecure_channel(address) as channel:
        stub = WorldServiceStub(channel)
        for number in range(count):
            calls = [
                pb.PlayRequest(open=pb.Open(world="toy", num_envs=1, open_key=secrets.token_bytes(16))),
                pb.PlayRequest(sequence=1, reset=pb.Reset()),
                pb.PlayRequest(sequence=2, step=pb.Step(action=pb.Values(leaves=[bytes(8)]))),
                pb.PlayRequest(close=pb.Close()),
            ]
            metadata = [("authorization", f"Bearer {tokens[number % len(tokens)]}")]
            replies = list(stub.Play(iter(calls), metadata=metadata))
            assert replies[-1].HasField("closed")
            opened.append(replies[0].opened.session)
    return opened


@pytest.fixture(scope="module")
def pages(save_toy, tmp_path_factory):
    """The replica's page and its announcement after each restart, tenants' tokens and names, sessions."""
    tenants = {f"tenant-{number}": new_token() for number in range(TENANTS)}
    file = tmp_path_factory.mktemp("tenants") / "tenants.toml"
    file.write_text("\n".join(f'[tenants.{name}]\ntokens = ["{hash_line(t)}"]' for name, t in tenants.items()))
    folder: Path = tmp_path_factory.mktemp("announced")
    worlds = [save_toy("toy", growth=1.0 + version / 10) for version in range(VERSIONS)]
    fleet = FleetMetrics(lambda: [one.metrics for one in announced(folder)])
    found, sessions = [], []
    for restart in range(RESTARTS):
        config = LocalConfig(tenants=str(file), grace_s=0.1, metrics_port=0)
        with LocalServer([worlds[restart % VERSIONS]], store_url="memory:", config=config) as server:
            replica, [url] = server.service.replicas[0], server.service.metrics_urls
            path = Announcement(
                world="toy",
                version=replica.hosted.contract.spec.version,
                replica=uuid.uuid4().hex,
                target=url.removeprefix("http://").removesuffix("/metrics"),
                pid=1,  # alive as long as this machine
            ).write(folder)
            sessions += play_sessions(server.address, list(tenants.values()), SESSIONS // RESTARTS)
            found.append(exposition(fleet.registry))
            path.unlink()
    return found, tenants, sessions


def monitors_page(version: str) -> str:
    """Everything that a monitor can publish of one world, at once."""
    kinds = [kind for kind in names.DRIFT_KINDS if kind != "golden"]
    fidelity = FidelityMetrics()
    for known in ("an older version", version):
        fidelity.publish(
            FidelityReading(
                world="toy",
                model_version=known,
                error_ratio=dict.fromkeys(HORIZONS, 0.1),
                alive_ratio=dict.fromkeys(HORIZONS, 1.0),
                trust_horizon_steps=10,
                served_horizon_steps=200,
                scores=dict.fromkeys(metrics(), 0.5),
                noise_ratio={name: 1.0 for name, metric in metrics().items() if metric.floor == "halves"},
                return_gap_floor=0.1,
                rank_units=8,
                reference_probes=32,
            )
        )
    for source in names.SOURCES:
        fidelity.add_real_transitions("toy", source, 1)
    reading = WatchReading(
        world="toy",
        state="ok",
        cause="nothing",
        log10_evidence=dict.fromkeys(kinds, 1.0),
        log10_threshold=dict.fromkeys(kinds, 6.0),
        alarms=dict.fromkeys(names.DRIFT_KINDS, 1),
        probes=dict.fromkeys(("probe", "golden", "reported"), 1),
        failures=dict.fromkeys(names.FAILURES, 1),
        detectable_shift=0.1,
        detectable_change={"dynamics": 0.1, "reward": 0.1},
        golden_deviation=0.0,
        last_heard_at=time.time(),
        last_probe_at=time.time(),
        interval_s=60.0,
        budget_left=100.0,
    )
    DriftMetrics(fidelity.registry, lambda: [reading])
    return exposition(fidelity.registry)


def test_a_thousand_sessions_twenty_tenants_three_versions_and_ten_restarts_make_no_new_series(pages):
    found, _, sessions = pages
    assert len(set(sessions)) == SESSIONS
    counts = [len(series(page)) for page in found]
    assert set(counts) == {counts[0]}
    shown = [{one for one in series(page) if one[0] != "simservice_world_info"} for page in found]
    assert all(one == shown[0] for one in shown)  # the very same ones: only the version that is served differs
    assert len({one for page in found for one in series(page) if one[0] == "simservice_world_info"}) == VERSIONS


def test_a_world_has_at_most_two_hundred_series_with_two_replicas_and_all_that_a_monitor_can_say(pages):
    found, _, _ = pages
    of_versions = [len(series(monitors_page(version))) for version in ("one", "two", "three")]
    assert set(of_versions) == {of_versions[0]}
    assert 2 * len(series(found[-1])) + of_versions[0] <= 200


def test_no_label_names_a_tenant_a_token_a_session_or_a_path(pages):
    found, tenants, sessions = pages
    text = found[-1] + monitors_page("v")
    secret = [*tenants, *tenants.values(), *sessions]
    assert not [word for word in secret if word in text]
    labels = {label for _, labels in series(text) for label, _ in labels}
    assert labels <= {label for name in names.NAMES for label in name.labels} | {"le", "replica"}
    assert not re.search(r'="[^"]*/[^"]*"', text)
