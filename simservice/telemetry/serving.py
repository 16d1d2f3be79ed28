"""What one replica publishes: calls as they are observed, and the engine's counters as they are at a scrape."""

from __future__ import annotations

import math
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import prometheus_client
from prometheus_client import CollectorRegistry, Counter
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
        """A family that holds nothing else."""
        family = HistogramMetricFamily(name.name, name.help, labels=name.labels)
        self.add_to(family, labels)
        return family

    def add_to(self, family: HistogramMetricFamily, labels: Sequence[str]) -> None:
        """Adds itself as Prometheus wants it: cumulative."""
        cumulative, buckets = 0, []
        for bound, count in zip([*map(float, self.bounds), math.inf], self.counts, strict=True):
            cumulative += count
            buckets.append(("+Inf" if math.isinf(bound) else repr(bound), float(cumulative)))
        family.add_metric(list(labels), buckets, self.total)


class Tally:
    """A histogram that is only counted into between two scrapes: a step is counted at a tenth of the library's cost."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Counts one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def distribution(self) -> Distribution:
        """What was counted so far."""
        return Distribution(self.bounds, tuple(self.counts), self.total)


@dataclass(frozen=True, kw_only=True)
class ServingReading:
    """The counters of one world's engine and sessions at one moment."""

    lane_steps: int
    lanes_in_use: int
    lanes_capacity: int
    sessions_open: int
    restores: int
    store_bytes: Mapping[str, int] = field(default_factory=dict)  # of all sessions, by names.STORE_STATS
    out_of_support: int | None = None  # of the lane steps; None: this world does not say
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
        self._began = time.time()
        self.registry = CollectorRegistry(auto_describe=False)
        self._timed = {call: Tally(names.LATENCY_BUCKETS_S) for call in names.TIMED_CALLS}
        self._answered: dict[tuple[str, str], int] = {}  # by call and code
        self._append = Tally(names.APPEND_BUCKETS_S)
        self.registry.register(_Collector(self._collect))
        reported = _counter(names.REPORTED_EPISODES, self.registry)
        self._reported = {outcome: reported.labels(world, outcome) for outcome in names.REPORT_OUTCOMES}

    def observe_rpc(self, call: str, code: str, seconds: float) -> None:
        """Counts an answered call, one of CALLS (anything else is "other"), by gRPC status; times the frequent ones."""
        timed = self._timed.get(call)
        if timed is not None:
            timed.add(seconds)
        elif call not in names.CALLS:
            call = names.OTHER_CALL
        self._answered[call, code] = self._answered.get((call, code), 0) + 1

    def observe_journal_append(self, seconds: float) -> None:
        """Counts one acknowledged write to the journal."""
        self._append.add(seconds)

    def count_reported(self, outcome: str, episodes: int) -> None:
        """Counts reported episodes; `outcome` is one of names.REPORT_OUTCOMES."""
        self._reported[outcome].inc(episodes)

    def watch(self, read: Callable[[], ServingReading]) -> None:
        """Publishes what `read` returns, anew at every scrape."""
        self.registry.register(_Collector(lambda: self._collect_reading(read())))

    def _collect(self) -> Iterator[Metric]:
        """What was observed."""
        name = names.RPC_DURATION
        durations = HistogramMetricFamily(name.name, name.help, labels=name.labels)
        for call, tally in self._timed.items():
            tally.distribution().add_to(durations, (self.world, call))
        yield durations
        name = names.RPC_TOTAL
        answered = CounterMetricFamily(name.name, name.help, labels=name.labels)
        for (call, code), count in list(self._answered.items()):
            answered.add_metric((self.world, call, code), count)
        yield answered
        began = GaugeMetricFamily(names.REPLICA_START.name, names.REPLICA_START.help, labels=names.REPLICA_START.labels)
        began.add_metric((self.world,), self._began)
        yield began
        yield self._append.distribution().family(names.JOURNAL_APPEND, (self.world,))

    def _collect_reading(self, reading: ServingReading) -> Iterator[Metric]:
        """What is read from engine and sessions."""
        labels = (self.world,)
        counters = (
            (names.LANE_STEPS, {(): reading.lane_steps}),
            (names.RESTORES, {(): reading.restores}),
            (names.OOD_STEPS, {} if reading.out_of_support is None else {(): reading.out_of_support}),
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


class _Collector:
    def __init__(self, collect: Callable[[], Iterator[Metric]]) -> None:
        self.collect = collect


def _counter(name: Name, registry: CollectorRegistry) -> Counter:
    return Counter(name.name, name.help, name.labels, registry=registry)
