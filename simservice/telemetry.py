"""Every metric's name, labels and help text, once; the only file that knows prometheus_client.

Rooms inside return counters; only the surfaces (serving, monitor) hold one of the objects here and publish them. Labels
are bounded: worlds, calls, codes, horizons. Never a session, a seed or free text.
"""

from __future__ import annotations

import math
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from wsgiref.simple_server import WSGIServer

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families

from simservice.errors import PortInUse

# One `_created` series per counter child would double the count and nobody reads them.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]

LATENCY_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
CALLS = ("ListWorlds", "GetWorld", "open", "resume", "reset", "step", "render", "close")
OTHER_CALL = "other"
SCRAPE_TIMEOUT_S = 2.0


@dataclass(frozen=True)
class Name:
    """A metric as it is written in dashboards and alerts."""

    name: str
    help: str
    labels: tuple[str, ...] = ()


RPC_DURATION = Name(
    "simservice_env_rpc_duration_seconds", "Time one call spent in the server, from its arrival.", ("world", "call")
)
RPC_TOTAL = Name("simservice_env_rpc_total", "Calls answered, by gRPC status code.", ("world", "call", "code"))
JOURNAL_APPEND = Name(
    "simservice_journal_append_duration_seconds", "Time until the store had a request in its journal.", ("world",)
)
RESTORES = Name("simservice_session_restores_total", "Sessions brought back from the store.", ("world",))
LANE_STEPS = Name("simservice_imagined_steps_total", "Environment steps made, over all lanes.", ("world",))
BATCH_SIZE = Name("simservice_tick_batch_lanes", "Lanes that one tick stepped together.", ("world",))
TICK_DURATION = Name("simservice_tick_duration_seconds", "Time of one tick of the engine.", ("world",))
LANES_IN_USE = Name("simservice_lanes_in_use", "Lanes held by sessions.", ("world",))
LANES_CAPACITY = Name("simservice_lanes_capacity", "Lanes there are room for.", ("world",))
SESSIONS_OPEN = Name("simservice_sessions_open", "Sessions with lanes in this process.", ("world",))
REPLICA_UP = Name("simservice_replica_up", "1: the replica's metrics were read; 0: they could not be.", ("world",))

ERROR_RATIO = Name(
    "simservice_fidelity_error_ratio",
    "Open-loop error h steps ahead over the spread of reality then; 1: no better than the average future.",
    ("world", "model_version", "horizon"),
)
ALIVE_RATIO = Name(
    "simservice_fidelity_alive_ratio",
    "Share of real starts still alive h steps ahead; the error is over these.",
    ("world", "model_version", "horizon"),
)
TRUST_HORIZON = Name(
    "simservice_trust_horizon_steps",
    "Steps ahead for which the upper bound of the error stays within tolerance.",
    ("world", "model_version"),
)
SERVED_HORIZON = Name(
    "simservice_served_horizon_steps", "Longest episode the service lets an agent imagine.", ("world",)
)
RETURN_GAP = Name(
    "simservice_return_gap_ratio",
    "Imagined minus real return of the probe policies over the range of real returns.",
    ("world", "model_version", "stat"),
)
LAST_SUCCESS = Name(
    "simservice_fidelity_last_success_timestamp_seconds", "When a probe last ran to its end.", ("world",)
)
REFERENCE_PROBES = Name(
    "simservice_fidelity_reference_probes", "Independent real episodes behind the newest figures.", ("world",)
)
REAL_TRANSITIONS = Name(
    "simservice_real_transitions_total", "Steps of the real environment that were spent.", ("world", "source")
)
FIDELITY_INFO = Name(
    "simservice_fidelity_info",
    "What the figures were measured on and by which convention; always 1.",
    ("world", "model_version", "data_hash", "convention"),
)


@dataclass(frozen=True)
class Distribution:
    """Counts by upper bound (the last count is of everything beyond the last bound) and the sum of what was counted."""

    bounds: Sequence[float]
    counts: Sequence[int]  # one more than bounds
    total: float

    def family(self, name: Name, labels: Sequence[str]) -> HistogramMetricFamily:
        """As Prometheus wants it: cumulative."""
        family = HistogramMetricFamily(name.name, name.help, labels=name.labels)
        cumulative, buckets = 0, []
        for bound, count in zip([*map(float, self.bounds), math.inf], self.counts, strict=True):
            cumulative += count
            buckets.append(("+Inf" if math.isinf(bound) else repr(bound), float(cumulative)))
        family.add_metric(list(labels), buckets, self.total)
        return family


@dataclass(frozen=True, kw_only=True)
class ServingReading:
    """The counters of one world's engine and sessions at one moment."""

    lane_steps: int
    lanes_in_use: int
    lanes_capacity: int
    sessions_open: int
    restores: int
    batch_lanes: Distribution | None = None
    tick_seconds: Distribution | None = None


class ServingMetrics:
    """What one replica publishes: observed calls, and counters read from the engine at every scrape."""

    def __init__(self, world: str) -> None:
        self.world = world
        self.registry = CollectorRegistry(auto_describe=False)
        self._duration = _histogram(RPC_DURATION, LATENCY_BUCKETS_S, self.registry)
        self._total = Counter(RPC_TOTAL.name, RPC_TOTAL.help, RPC_TOTAL.labels, registry=self.registry)
        self._append = _histogram(JOURNAL_APPEND, LATENCY_BUCKETS_S, self.registry).labels(world)
        # Children are looked up once: `labels` costs more than the observation itself.
        self._durations = {call: self._duration.labels(world, call) for call in (*CALLS, OTHER_CALL)}
        self._totals: dict[tuple[str, str], Counter] = {}

    def observe_rpc(self, call: str, code: str, seconds: float) -> None:
        """Counts one answered call; `call` is one of CALLS (anything else counts as "other"), `code` a gRPC status."""
        call = call if call in self._durations else OTHER_CALL
        self._durations[call].observe(seconds)
        child = self._totals.get((call, code))
        if child is None:
            child = self._totals[call, code] = self._total.labels(self.world, call, code)
        child.inc()

    def observe_journal_append(self, seconds: float) -> None:
        """Counts one acknowledged write to the journal."""
        self._append.observe(seconds)

    def watch(self, read: Callable[[], ServingReading]) -> None:
        """Publishes what `read` returns, anew at every scrape."""
        self.registry.register(_ReadingCollector(self.world, read))


class _ReadingCollector:
    def __init__(self, world: str, read: Callable[[], ServingReading]) -> None:
        self.world = world
        self.read = read

    def collect(self) -> Iterator[Metric]:
        reading, labels = self.read(), (self.world,)
        for name, value in ((LANE_STEPS, reading.lane_steps), (RESTORES, reading.restores)):
            counter = CounterMetricFamily(name.name, name.help, labels=name.labels)
            counter.add_metric(labels, value)
            yield counter
        gauges = (
            (LANES_IN_USE, reading.lanes_in_use),
            (LANES_CAPACITY, reading.lanes_capacity),
            (SESSIONS_OPEN, reading.sessions_open),
        )
        for name, value in gauges:
            gauge = GaugeMetricFamily(name.name, name.help, labels=name.labels)
            gauge.add_metric(labels, value)
            yield gauge
        for name, distribution in ((BATCH_SIZE, reading.batch_lanes), (TICK_DURATION, reading.tick_seconds)):
            if distribution is not None:
                yield distribution.family(name, labels)


@dataclass(frozen=True, kw_only=True)
class FidelityReading:
    """The result of one finished probe of one world. What was not measured is left out and shows as unknown."""

    world: str
    model_version: str
    error_ratio: Mapping[int, float] = field(default_factory=dict)  # by horizon in steps
    alive_ratio: Mapping[int, float] = field(default_factory=dict)  # by horizon in steps
    trust_horizon_steps: int | None = None
    served_horizon_steps: int | None = None
    return_gap: Mapping[str, float] = field(default_factory=dict)  # by stat: max_abs, mean
    reference_probes: int = 0
    data_hash: str = ""
    convention: str = ""


class FidelityMetrics:
    """What the monitor publishes: the newest probe of each world. Only one version of a world is shown at a time."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(self)
        self._readings: dict[str, tuple[FidelityReading, float]] = {}
        self._transitions: dict[tuple[str, str], int] = {}

    def publish(self, reading: FidelityReading, *, at: float | None = None) -> None:
        """Replaces everything shown of the reading's world; `at` is the probe's end in Unix seconds (default: now)."""
        self._readings[reading.world] = (reading, time.time() if at is None else at)

    def forget(self, world: str) -> None:
        """Takes a world's figures down, its count of real transitions excepted."""
        self._readings.pop(world, None)

    def add_real_transitions(self, world: str, source: str, count: int) -> None:
        """Counts real steps; `source` is probe, reported or dataset."""
        self._transitions[world, source] = self._transitions.get((world, source), 0) + count

    def collect(self) -> Iterator[Metric]:
        """What was not measured, or is not a number, has no series: no data must never look like a good value."""
        names = (
            ERROR_RATIO, ALIVE_RATIO, TRUST_HORIZON, SERVED_HORIZON,
            RETURN_GAP, LAST_SUCCESS, REFERENCE_PROBES, FIDELITY_INFO,
        )  # fmt: skip
        families = {name: GaugeMetricFamily(name.name, name.help, labels=name.labels) for name in names}
        for reading, at in list(self._readings.values()):
            for name, labels, value in _series(reading, at):
                if value is not None and not math.isnan(value):
                    families[name].add_metric(labels, value)
        yield from families.values()
        spent = CounterMetricFamily(REAL_TRANSITIONS.name, REAL_TRANSITIONS.help, labels=REAL_TRANSITIONS.labels)
        for key, count in list(self._transitions.items()):
            spent.add_metric(key, count)
        yield spent


def _series(reading: FidelityReading, at: float) -> Iterator[tuple[Name, tuple[str, ...], float | None]]:
    world, version = reading.world, reading.model_version
    for horizon, value in reading.error_ratio.items():
        yield ERROR_RATIO, (world, version, str(horizon)), value
    for horizon, value in reading.alive_ratio.items():
        yield ALIVE_RATIO, (world, version, str(horizon)), value
    for stat, value in reading.return_gap.items():
        yield RETURN_GAP, (world, version, stat), value
    yield TRUST_HORIZON, (world, version), reading.trust_horizon_steps
    yield SERVED_HORIZON, (world,), reading.served_horizon_steps
    yield REFERENCE_PROBES, (world,), reading.reference_probes
    yield FIDELITY_INFO, (world, version, reading.data_hash, reading.convention), 1
    yield LAST_SUCCESS, (world,), at


@dataclass(frozen=True)
class Target:
    """One replica's metrics page and the labels that tell it from the others."""

    url: str
    world: str
    replica: str


class FleetMetrics:
    """All replicas' metrics on one page, each series with its replica's label; read anew at every scrape."""

    def __init__(self, targets: Callable[[], Sequence[Target]]) -> None:
        self.targets = targets
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Reads every target at the same time; one that cannot be read shows as `simservice_replica_up 0`."""
        targets = self.targets()
        families: dict[str, Metric] = {}
        up = GaugeMetricFamily(REPLICA_UP.name, REPLICA_UP.help, labels=(*REPLICA_UP.labels, "replica"))
        with ThreadPoolExecutor(max_workers=max(1, min(16, len(targets)))) as pool:
            for target, page in zip(targets, pool.map(_read_page, targets), strict=True):
                up.add_metric((target.world, target.replica), float(page is not None))
                for family in text_string_to_metric_families(page or ""):
                    merged = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                    for sample in family.samples:
                        labels = {**sample.labels, "replica": target.replica}
                        merged.samples.append(sample._replace(labels=labels))
        yield up
        yield from families.values()


class MetricsServer:
    """Serves one registry's page over HTTP from a thread of its own."""

    def __init__(self, server: WSGIServer, thread: threading.Thread, host: str) -> None:
        self._server = server
        self._thread = thread
        self.port = server.server_port
        self.url = f"http://{host}:{self.port}/metrics"

    def close(self) -> None:
        """Stops answering and frees the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def start_http(registry: CollectorRegistry, port: int = 0, host: str = "127.0.0.1") -> MetricsServer:
    """Serves a registry at http://host:port/metrics; port 0 takes a free one. PortInUse when somebody listens there."""
    try:
        server, thread = prometheus_client.start_http_server(port, host, registry)
    except OSError as error:
        raise PortInUse(f"{host}:{port}") from error
    return MetricsServer(server, thread, host)


def exposition(registry: CollectorRegistry) -> str:
    """The page as text, for reports and tests."""
    return generate_latest(registry).decode()


def _read_page(target: Target) -> str | None:
    try:
        with urllib.request.urlopen(target.url, timeout=SCRAPE_TIMEOUT_S) as answer:
            return str(answer.read().decode())
    except (urllib.error.URLError, OSError):
        return None


def _histogram(name: Name, buckets: Sequence[float], registry: CollectorRegistry) -> Histogram:
    return Histogram(name.name, name.help, name.labels, buckets=buckets, registry=registry)
