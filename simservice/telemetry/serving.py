"""What one replica publishes: calls as they are observed, and the engine's counters as they are at a scrape."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from simservice.telemetry import names
from simservice.telemetry.names import Name

# One `_created` series per counter child would double the count and nobody reads them.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]


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
    store_bytes: Mapping[str, int] = field(default_factory=dict)  # of all sessions, by names.STORE_STATS
    world_errors: int = 0
    requests_waiting: int = 0
    episodes: Mapping[str, int] = field(default_factory=dict)  # that ended, by names.EPISODE_ENDS
    batch_lanes: Distribution | None = None
    tick_seconds: Distribution | None = None


class ServingMetrics:
    """What one replica publishes: observed calls, and counters read from the engine at every scrape."""

    def __init__(self, world: str, version: str = "") -> None:
        self.world = world
        self.version = version
        self.registry = CollectorRegistry(auto_describe=False)
        self._duration = _histogram(names.RPC_DURATION, names.LATENCY_BUCKETS_S, self.registry)
        self._total = _counter(names.RPC_TOTAL, self.registry)
        self._append = _histogram(names.JOURNAL_APPEND, names.WAITING_BUCKETS_S, self.registry).labels(world)
        # Children are looked up once: `labels` costs more than the observation itself.
        self._durations = {call: self._duration.labels(world, call) for call in names.TIMED_CALLS}
        self._totals: dict[tuple[str, str], Counter] = {}
        reported = _counter(names.REPORTED_EPISODES, self.registry)
        self._reported = {outcome: reported.labels(world, outcome) for outcome in names.REPORT_OUTCOMES}

    def observe_rpc(self, call: str, code: str, seconds: float) -> None:
        """Counts an answered call, one of CALLS (anything else is "other"), by gRPC status; times the frequent ones."""
        timed = self._durations.get(call)
        if timed is not None:
            timed.observe(seconds)
        elif call not in names.CALLS:
            call = names.OTHER_CALL
        child = self._totals.get((call, code))
        if child is None:
            child = self._totals[call, code] = self._total.labels(self.world, call, code)
        child.inc()

    def observe_journal_append(self, seconds: float) -> None:
        """Counts one acknowledged write to the journal."""
        self._append.observe(seconds)

    def count_reported(self, outcome: str, episodes: int) -> None:
        """Counts reported episodes; `outcome` is one of names.REPORT_OUTCOMES."""
        self._reported[outcome].inc(episodes)

    def watch(self, read: Callable[[], ServingReading]) -> None:
        """Publishes what `read` returns, anew at every scrape."""
        self.registry.register(_ReadingCollector(self.world, self.version, read))


class _ReadingCollector:
    def __init__(self, world: str, version: str, read: Callable[[], ServingReading]) -> None:
        self.world = world
        self.version = version
        self.read = read

    def collect(self) -> Iterator[Metric]:
        reading, labels = self.read(), (self.world,)
        counters = (
            (names.LANE_STEPS, {(): reading.lane_steps}),
            (names.RESTORES, {(): reading.restores}),
            (names.WORLD_ERRORS, {(): reading.world_errors}),
            (names.EPISODES, {(end,): count for end, count in reading.episodes.items()}),
        )
        for name, counts in counters:
            counter = CounterMetricFamily(name.name, name.help, labels=name.labels)
            for more, count in counts.items():
                counter.add_metric((*labels, *more), count)
            yield counter
        gauges = (
            (names.LANES_IN_USE, labels, reading.lanes_in_use),
            (names.LANES_CAPACITY, labels, reading.lanes_capacity),
            (names.SESSIONS_OPEN, labels, reading.sessions_open),
            (names.REQUESTS_WAITING, labels, reading.requests_waiting),
            *((names.STORE_BYTES, (self.world, stat), value) for stat, value in reading.store_bytes.items()),
            (names.WORLD_INFO, (self.world, self.version), 1),
        )
        families: dict[str, GaugeMetricFamily] = {}
        for name, values, value in gauges:
            gauge = families.setdefault(name.name, GaugeMetricFamily(name.name, name.help, labels=name.labels))
            gauge.add_metric(values, value)
        yield from families.values()
        for name, distribution in (
            (names.BATCH_SIZE, reading.batch_lanes),
            (names.TICK_DURATION, reading.tick_seconds),
        ):
            if distribution is not None:
                yield distribution.family(name, labels)


def _histogram(name: Name, buckets: Sequence[float], registry: CollectorRegistry) -> Histogram:
    return Histogram(name.name, name.help, name.labels, buckets=buckets, registry=registry)


def _counter(name: Name, registry: CollectorRegistry) -> Counter:
    return Counter(name.name, name.help, name.labels, registry=registry)
