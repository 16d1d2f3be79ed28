"""A real Prometheus reads two replicas and a monitor's page: every query of dashboard and rules returns data."""

from __future__ import annotations

import json
import math
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator

import numpy as np
import pytest
import yaml
from deploy_tools import prometheus_tool

from deploy.generator.__main__ import DEPLOY
from deploy.generator.alerts import ALERTS
from deploy.generator.dashboards import PANELS
from deploy.generator.rules import RECORDED
from simservice.client.session import RemoteSession
from simservice.fidelity.metric import metrics
from simservice.serving.address import hold_ports
from simservice.telemetry import DriftMetrics, FidelityMetrics, FidelityReading, WatchReading, names, start_http

QUERIES = {
    **{f"rule {name}": expression for name, expression in RECORDED.items()},
    **{f"alert {alert.name}": alert.signal for alert in ALERTS},
    **{f"panel {panel.title}, {legend}": query.replace("$world", ".*")
       for panel in PANELS for legend, query in panel.queries.items()},
}  # fmt: skip
PATIENCE_S = 90.0


@pytest.fixture(scope="module")
def monitor_page() -> Iterator[str]:
    """host:port of a page with everything that a monitor can know of the world "noisy"."""
    fidelity = FidelityMetrics()
    scores = {name: 0.5 for name in metrics()}
    fidelity.publish(
        FidelityReading(
            world="noisy",
            model_version="0" * 12,
            error_ratio={1: 0.01, 10: 0.1},
            alive_ratio={1: 1.0, 10: 0.8},
            trust_horizon_steps=30,
            served_horizon_steps=200,
            scores=scores,
            noise_ratio={"return_gap_max_abs": 1.2},
            return_gap_floor=0.05,
            rank_units=10,
            reference_probes=160,
            data_hash="abc",
            convention="climatology",
        )
    )
    fidelity.add_real_transitions("noisy", "probe", 100)
    now = time.time()
    reading = WatchReading(
        world="noisy",
        state="ok",
        cause="nothing",
        log10_evidence=dict.fromkeys(names.REALITY_KINDS, 0.4),
        log10_threshold=dict.fromkeys(names.REALITY_KINDS, 6.5),
        alarms=dict.fromkeys(names.REALITY_KINDS, 0),
        probes={"probe": 20},
        failures=dict.fromkeys(names.FAILURES, 0),
        detectable_shift=0.2,
        golden_deviation=0.0,
        last_heard_at=now,
        last_probe_at=now,
        interval_s=60.0,
    )
    DriftMetrics(fidelity.registry, lambda: [reading])
    page = start_http(fidelity.registry)
    yield f"127.0.0.1:{page.port}"
    page.close()


@pytest.fixture(scope="module")
def prometheus(ray_service, monitor_page, tmp_path_factory) -> Iterator[str]:
    """The address of a Prometheus with the committed rules and settings, all of it faster and on this machine."""
    program = prometheus_tool("prometheus")
    folder = tmp_path_factory.mktemp("prometheus")
    announced = next(ray_service.folder.rglob("noisy-0.json")).parent
    settings = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
    settings["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    jobs = {job["job_name"]: job for job in settings["scrape_configs"]}
    jobs["simservice"]["file_sd_configs"] = [{"files": [f"{announced}/*.json"], "refresh_interval": "1s"}]
    jobs["simservice-monitor"]["static_configs"] = [{"targets": [monitor_page]}]
    rules = (DEPLOY / "prometheus/rules.yml").read_text().replace("interval: 30s", "interval: 1s")
    (folder / "rules.yml").write_text(rules)
    (folder / "prometheus.yml").write_text(yaml.safe_dump(settings))
    held = hold_ports()
    address = f"127.0.0.1:{held.take()}"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}",
             f"--web.listen-address={address}", "--log.level=warn"],
            stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        yield address
    finally:
        process.terminate()
        process.wait(20)
        held.close()


def ask(address: str, query: str) -> list[float]:
    """The values of an instant query that are numbers."""
    url = f"http://{address}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    with urllib.request.urlopen(url, timeout=10) as answer:
        found = json.load(answer)["data"]["result"]
    return [value for series in found if not math.isnan(value := float(series["value"][1]))]


def drive(address: str, until) -> None:
    """Steps both replicas' lanes until a condition holds or patience ends; new sessions, so that both get some."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        sessions = [RemoteSession(address, "noisy", num_envs=4) for _ in range(3)]
        try:
            for session in sessions:
                session.reset(seeds=np.arange(4))
            for _ in range(25):
                for session in sessions:
                    session.step({"action": np.zeros(4, dtype=np.int64)})
        finally:
            for session in sessions:
                session.close()
        if until():
            return


@pytest.fixture(scope="module")
def empty(ray_service, prometheus) -> set[str]:
    """The queries that never returned data."""
    left = set(QUERIES)

    def answered() -> bool:
        try:
            left.difference_update([name for name in left if ask(prometheus, QUERIES[name])])
        except OSError:  # it is not up yet
            return False
        return not left

    drive(ray_service.address, answered)
    return left


@pytest.mark.parametrize("kind", ["rule", "alert", "panel"])
def test_every_query_returns_data(kind, empty):
    missing = sorted(name for name in empty if name.startswith(kind))
    assert not missing, "\n".join(f"{name}: {QUERIES[name]}" for name in missing)


def test_every_replica_and_the_monitor_are_seen(empty, prometheus):
    assert ask(prometheus, 'count(count by (instance) (up{job="simservice"} == 1))') == [2.0]
    assert ask(prometheus, 'up{job="simservice-monitor"}') == [1.0]
    assert ask(prometheus, f"count by (world) ({names.LANES_CAPACITY.name})") == [2.0]


def test_every_rule_is_healthy_and_only_what_should_fire_does(empty, prometheus):
    with urllib.request.urlopen(f"http://{prometheus}/api/v1/rules", timeout=10) as answer:
        groups = json.load(answer)["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) == len(RECORDED) + len(ALERTS)
    assert {rule["health"] for rule in rules} == {"ok"}, [rule for rule in rules if rule["health"] != "ok"]
    firing = {rule["name"] for rule in rules if rule.get("state") == "firing"}
    assert not firing  # those that wait some minutes may be pending


def test_a_world_has_at_most_two_hundred_series_over_both_replicas_and_its_monitor_and_no_label_tells_who(
    empty, prometheus
):
    counts = ask(prometheus, 'count by (world) ({__name__=~"simservice_.+", world!=""})')
    assert counts and max(counts) <= 200
    url = f"http://{prometheus}/api/v1/labels"
    with urllib.request.urlopen(url, timeout=10) as answer:
        labels = set(json.load(answer)["data"])
    assert not labels & {"tenant", "token", "session", "path", "seed", "pid"}
