"""What the monitor publishes of whether reality has moved, as it is at the moment of a scrape.

Silence is not success: a world of which nothing new has been heard in time is in the state "unknown", and its evidence
has no series until something is heard again. An alarm stays, heard or not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from simservice.telemetry import names
from simservice.telemetry.names import CAUSES, DRIFT_NAMES, DRIFT_STATES, MONITOR_WORLDS, Name

GROWS_STALE = ("ok", "suspect", "calibrating", "acknowledged")
"""States that are claims about now; an alarm is one about what has happened."""


@dataclass(frozen=True, kw_only=True)
class WatchReading:
    """What is known of one world; what is not is left out."""

    world: str
    state: str = "unknown"  # of DRIFT_STATES
    cause: str | None = None  # of CAUSES
    epoch: int = 0
    log10_evidence: Mapping[str, float] = field(default_factory=dict)  # by kind
    log10_threshold: Mapping[str, float] = field(default_factory=dict)
    alarms: Mapping[str, int] = field(default_factory=dict)
    probes: Mapping[str, int] = field(default_factory=dict)  # by source
    failures: Mapping[str, int] = field(default_factory=dict)  # by reason
    detectable_shift: float | None = None
    detectable_change: Mapping[str, float] = field(default_factory=dict)  # by kind
    golden_deviation: float | None = None
    corroborating_tenants: int = 0
    last_heard_at: float | None = None  # Unix seconds: a probe, or a step of a calibration under way
    last_probe_at: float | None = None
    interval_s: float | None = None
    stale_after_s: float = 3600.0  # silence after which nothing is known any more
    budget_left: float | None = None

    def state_at(self, now: float) -> str:
        """The state that may be claimed."""
        stale = self.last_heard_at is None or now - self.last_heard_at > self.stale_after_s
        return "unknown" if stale and self.state in GROWS_STALE else self.state


class DriftMetrics:
    """Publishes what `read` returns, anew at every scrape."""

    def __init__(
        self,
        registry: CollectorRegistry,
        read: Callable[[], Sequence[WatchReading]],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._read = read
        self._now = now
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """All worlds' series."""
        readings = self._read()
        families: dict[Name, CounterMetricFamily | GaugeMetricFamily] = {
            name: (CounterMetricFamily if name.kind == "counter" else GaugeMetricFamily)(
                name.name, name.help, labels=name.labels
            )
            for name in DRIFT_NAMES
        }
        for reading in readings:
            for name, labels, value in _series(reading, self._now()):
                if value is not None:
                    families[name].add_metric((reading.world, *labels), float(value))
        yield from families.values()
        yield GaugeMetricFamily(MONITOR_WORLDS.name, MONITOR_WORLDS.help, value=len(readings))


def _series(reading: WatchReading, now: float) -> Iterator[tuple[Name, tuple[str, ...], float | None]]:
    state = reading.state_at(now)
    for known in DRIFT_STATES:
        yield names.DRIFT_STATE, (known,), float(known == state)
    for cause in CAUSES if reading.cause is not None and state != "unknown" else ():
        yield names.DRIFT_CAUSE, (cause,), float(cause == reading.cause)
    for kind, value in reading.log10_evidence.items() if state != "unknown" else ():
        yield names.DRIFT_EVIDENCE, (kind,), value
    for kind, value in reading.log10_threshold.items():
        yield names.DRIFT_THRESHOLD, (kind,), value
    for kind, value in reading.detectable_change.items():
        yield names.DETECTABLE_CHANGE, (kind,), value
    counted = (
        (names.DRIFT_ALARMS, names.DRIFT_KINDS, reading.alarms),
        (names.DRIFT_PROBES, names.EVIDENCE_SOURCES, reading.probes),
        (names.PROBE_FAILURES, names.FAILURES, reading.failures),
    )
    for name, labels, counts in counted:  # zeros as well: what has no series yet cannot be seen to rise
        for label in labels:
            yield name, (label,), counts.get(label, 0)
    yield names.DRIFT_EPOCH, (), reading.epoch
    yield names.DETECTABLE_SHIFT, (), reading.detectable_shift
    yield names.GOLDEN_DEVIATION, (), reading.golden_deviation
    yield names.LAST_PROBE, (), reading.last_probe_at
    yield names.PROBE_INTERVAL, (), reading.interval_s
    yield names.BUDGET_LEFT, (), reading.budget_left
    yield names.CORROBORATING_TENANTS, (), reading.corroborating_tenants
