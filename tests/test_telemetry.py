"""Metrics as Prometheus reads them: every page goes through its own parser."""

import math
import socket
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from simservice.errors import PortInUse
from simservice.telemetry import (
    NAMES,
    Distribution,
    DriftMetrics,
    FidelityMetrics,
    FidelityReading,
    FleetMetrics,
    ServingMetrics,
    ServingReading,
    Target,
    WatchReading,
    exposition,
    start_http,
)
from simservice.telemetry.names import BATCH_BUCKETS, CALLS, DRIFT_STATES, TICK_BUCKETS_S


def samples(page: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    found = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found, f"{key} stands twice on the page"
            found[key] = sample.value
    return found


def value(page: str, name: str, **labels: str) -> float:
    return samples(page)[name, tuple(sorted(labels.items()))]


def reading(**changes) -> ServingReading:
    counters = dict(lane_steps=640, lanes_in_use=64, lanes_capacity=1024, sessions_open=2, restores=1)
    return ServingReading(**(counters | changes))


def test_calls_are_counted_by_code_and_timed():
    metrics = ServingMetrics("toy")
    metrics.observe_rpc("step", "OK", 0.0007)
    metrics.observe_rpc("step", "INVALID_ARGUMENT", 0.0001)
    page = exposition(metrics.registry)
    assert value(page, "simservice_env_rpc_total", world="toy", call="step", code="OK") == 1
    assert value(page, "simservice_env_rpc_total", world="toy", call="step", code="INVALID_ARGUMENT") == 1
    assert value(page, "simservice_env_rpc_duration_seconds_count", world="toy", call="step") == 2
    assert value(page, "simservice_env_rpc_duration_seconds_sum", world="toy", call="step") == pytest.approx(0.0008)
    assert value(page, "simservice_env_rpc_duration_seconds_bucket", world="toy", call="step", le="0.0005") == 1


def test_an_unknown_call_makes_no_new_series():
    metrics = ServingMetrics("toy")
    before = len(samples(exposition(metrics.registry)))
    for name in ("Evil", "session-123", "x" * 100):
        metrics.observe_rpc(name, "OK", 0.1)
    assert len(samples(exposition(metrics.registry))) == before + 1  # one code of "other"
    assert value(exposition(metrics.registry), "simservice_env_rpc_total", world="toy", call="other", code="OK") == 3


def test_the_engine_is_read_at_every_scrape():
    metrics = ServingMetrics("toy")
    now = [reading(lane_steps=10)]
    metrics.watch(lambda: now[0])
    assert value(exposition(metrics.registry), "simservice_imagined_steps_total", world="toy") == 10
    now[0] = reading(lane_steps=30, lanes_in_use=0)
    assert value(exposition(metrics.registry), "simservice_imagined_steps_total", world="toy") == 30
    assert value(exposition(metrics.registry), "simservice_lanes_in_use", world="toy") == 0


def test_a_distribution_is_cumulative_on_the_page_and_keeps_its_exact_sum():
    metrics = ServingMetrics("toy")
    lanes = Distribution(bounds=(16, 64), counts=(3, 4, 1), total=500.0)
    metrics.watch(lambda: reading(batch_lanes=lanes))
    page = exposition(metrics.registry)
    assert value(page, "simservice_tick_batch_lanes_bucket", world="toy", le="16.0") == 3
    assert value(page, "simservice_tick_batch_lanes_bucket", world="toy", le="64.0") == 7
    assert value(page, "simservice_tick_batch_lanes_bucket", world="toy", le="+Inf") == 8
    assert value(page, "simservice_tick_batch_lanes_count", world="toy") == 8
    assert value(page, "simservice_tick_batch_lanes_sum", world="toy") == 500.0


def test_a_replica_that_answers_every_call_and_some_with_errors_stays_within_sixty_series():
    metrics = ServingMetrics("toy")
    metrics.watch(
        lambda: reading(
            batch_lanes=Distribution(BATCH_BUCKETS, (1,) * 3, 5.0),
            tick_seconds=Distribution(TICK_BUCKETS_S, (1,) * 3, 5.0),
        )
    )
    for call in CALLS:
        metrics.observe_rpc(call, "OK", 0.001)
    for code in ("INVALID_ARGUMENT", "FAILED_PRECONDITION", "CANCELLED"):
        metrics.observe_rpc("step", code, 0.001)
    assert len(samples(exposition(metrics.registry))) <= 60


def test_a_probe_is_published_whole():
    metrics = FidelityMetrics()
    metrics.publish(
        FidelityReading(
            world="cartpole",
            model_version="abc",
            error_ratio={1: 0.01, 10: 0.2},
            alive_ratio={1: 1.0},
            trust_horizon_steps=31,
            served_horizon_steps=500,
            scores={"return_gap_max_abs": 0.12, "return_gap_mean": -0.03, "coverage90_ratio": 0.9},
            reference_probes=20,
            data_hash="beef",
            convention="F1-F3",
        ),
        at=1000.0,
    )
    metrics.add_real_transitions("cartpole", "probe", 400)
    metrics.add_real_transitions("cartpole", "probe", 100)
    page = exposition(metrics.registry)
    model = dict(world="cartpole", model_version="abc")
    assert value(page, "simservice_fidelity_error_ratio", **model, horizon="10") == 0.2
    assert value(page, "simservice_fidelity_alive_ratio", **model, horizon="1") == 1.0
    assert value(page, "simservice_trust_horizon_steps", **model) == 31
    assert value(page, "simservice_served_horizon_steps", world="cartpole") == 500
    assert value(page, "simservice_return_gap_ratio", **model, stat="mean") == -0.03
    assert value(page, "simservice_fidelity_score", **model, metric="coverage90_ratio") == 0.9
    assert value(page, "simservice_fidelity_reference_probes", world="cartpole") == 20
    assert value(page, "simservice_fidelity_last_success_timestamp_seconds", world="cartpole") == 1000.0
    assert value(page, "simservice_fidelity_info", **model, data_hash="beef", convention="F1-F3") == 1
    assert value(page, "simservice_real_transitions_total", world="cartpole", source="probe") == 500


def test_a_new_version_replaces_the_old_ones_series_and_leaves_other_worlds():
    metrics = FidelityMetrics()
    metrics.publish(FidelityReading(world="a", model_version="1", error_ratio={1: 0.1, 50: 0.9}))
    metrics.publish(FidelityReading(world="b", model_version="7", error_ratio={1: 0.3}))
    metrics.publish(FidelityReading(world="a", model_version="2", error_ratio={1: 0.2}))
    shown = {
        (dict(labels)["world"], dict(labels)["model_version"], dict(labels)["horizon"])
        for name, labels in samples(exposition(metrics.registry))
        if name == "simservice_fidelity_error_ratio"
    }
    assert shown == {("a", "2", "1"), ("b", "7", "1")}


def test_what_was_not_measured_has_no_series():
    metrics = FidelityMetrics()
    metrics.publish(FidelityReading(world="a", model_version="1", error_ratio={1: math.nan, 5: 0.4}))
    names = {(name, dict(labels).get("horizon")) for name, labels in samples(exposition(metrics.registry))}
    assert ("simservice_fidelity_error_ratio", "1") not in names
    assert ("simservice_fidelity_error_ratio", "5") in names
    assert not any(name == "simservice_trust_horizon_steps" for name, _ in names)
    assert not any(name == "simservice_return_gap_ratio" for name, _ in names)


def watched(now: float, **changes) -> str:
    """The page of a watch that was heard of at 1000, as it is at this moment."""
    known = {"world": "a", "state": "ok", "last_heard_at": 1000.0, "stale_after_s": 300.0, "cause": "nothing"}
    reading = WatchReading(**{**known, "log10_evidence": {"dynamics": 0.5}, **changes})
    registry = FidelityMetrics().registry
    DriftMetrics(registry, lambda: [reading], now=lambda: now)
    return exposition(registry)


def states(page: str) -> dict[str, float]:
    found = samples(page).items()
    return {dict(labels)["state"]: value for (name, labels), value in found if name == "simservice_drift_state"}


def test_silence_is_unknown_and_never_green():
    """Trap 10: the probe job died, and the dashboard must not stay as it was."""
    fresh, old = watched(1200.0), watched(1301.0)
    assert states(fresh) == {**dict.fromkeys(DRIFT_STATES, 0.0), "ok": 1.0}
    assert states(old) == {**dict.fromkeys(DRIFT_STATES, 0.0), "unknown": 1.0}
    assert value(fresh, "simservice_drift_log10_evalue", world="a", kind="dynamics") == 0.5
    assert not any(name == "simservice_drift_log10_evalue" for name, _ in samples(old))
    assert not any(name == "simservice_drift_cause" for name, _ in samples(old))
    assert states(watched(0.0, last_heard_at=None))["unknown"] == 1.0  # never heard of


def test_an_alarm_stays_however_silent_it_is():
    assert states(watched(99_999.0, state="drift"))["drift"] == 1.0


def test_one_scrape_shows_every_replica_and_marks_the_silent_one():
    servers, targets = [], []
    for number in range(2):
        metrics = ServingMetrics("toy")
        metrics.observe_rpc("step", "OK", 0.001 * (number + 1))
        metrics.watch(lambda steps=number: reading(lane_steps=100 + steps))
        servers.append(start_http(metrics.registry))
        targets.append(Target(url=servers[-1].url, world="toy", replica=f"r{number}"))
    servers[0].close()
    fleet = FleetMetrics(lambda: targets)
    page = exposition(fleet.registry)
    assert value(page, "simservice_replica_up", world="toy", replica="r0") == 0
    assert value(page, "simservice_replica_up", world="toy", replica="r1") == 1
    assert value(page, "simservice_imagined_steps_total", world="toy", replica="r1") == 101
    servers.append(start_http(ServingMetrics("toy").registry))
    targets[0] = Target(url=servers[-1].url, world="toy", replica="r9")
    page = exposition(fleet.registry)
    assert value(page, "simservice_env_rpc_total", world="toy", replica="r1", call="step", code="OK") == 1
    assert value(page, "simservice_replica_up", world="toy", replica="r9") == 1
    for server in servers[1:]:
        server.close()


def test_the_page_is_served_over_http_and_a_taken_port_is_named():
    server = start_http(ServingMetrics("toy").registry)
    with urllib.request.urlopen(server.url, timeout=5) as answer:
        assert "simservice_journal_append_duration_seconds_count" in answer.read().decode()
    with pytest.raises(PortInUse, match=str(server.port)):
        start_http(ServingMetrics("toy").registry, server.port)
    server.close()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", server.port)) != 0


def test_every_name_follows_the_convention():
    assert len(NAMES) == len({name.name for name in NAMES}) >= 40
    for name in NAMES:
        assert name.name.startswith("simservice_") and name.help.endswith(".")
        assert name.labels[:1] in (("world",), ())
        assert not name.name.endswith(("_ms", "_milliseconds"))
        assert name.name.endswith("_total") == (name.kind == "counter")


def test_counters_are_there_before_anything_was_counted():
    page = watched(1000.0, alarms={"dynamics": 2})
    assert value(page, "simservice_drift_alarms_total", world="a", kind="dynamics") == 2
    assert value(page, "simservice_drift_alarms_total", world="a", kind="reward") == 0
    assert value(page, "simservice_monitor_failures_total", world="a", reason="environment") == 0
    assert value(page, "simservice_drift_probes_total", world="a", source="probe") == 0
