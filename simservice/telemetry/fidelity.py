"""What the monitor publishes of how far worlds can be trusted: the newest finished probe of each."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from simservice.telemetry import names
from simservice.telemetry.names import FIDELITY_NAMES, REAL_TRANSITIONS, Name

FRONT_PAGE: Mapping[str, tuple[Name, tuple[str, ...]]] = {
    "return_gap_max_abs": (names.RETURN_GAP, ("max_abs",)),
    "return_gap_mean": (names.RETURN_GAP, ("mean",)),
    "policy_rank_spearman": (names.RANK_CORRELATION, ("spearman",)),
    "policy_rank_pearson": (names.RANK_CORRELATION, ("pearson",)),
    "policy_mmrv_ratio": (names.RANK_MMRV, ()),
    "reward_error_ratio": (names.REWARD_ERROR, ()),
    "termination_f1_ratio": (names.TERMINATION_F1, ()),
    "termination_ece_ratio": (names.TERMINATION_ECE, ()),
    "false_success_ratio": (names.FALSE_SUCCESS, ()),
    "out_of_support_ratio": (names.OUT_OF_SUPPORT, ()),
    "exploitation_gap_ratio": (names.EXPLOITATION_GAP, ()),
}
"""Registered metrics that have a name of their own, and its further label; all others are scores of the details."""

SHOWN_OTHERWISE = ("error_ratio_", "trust_horizon_steps")
"""How the names of metrics begin that are on the page as horizons already."""


@dataclass(frozen=True, kw_only=True)
class FidelityReading:
    """The result of one finished probe of one world. What was not measured is left out and shows as unknown."""

    world: str
    model_version: str
    error_ratio: Mapping[int, float] = field(default_factory=dict)  # by horizon in steps
    alive_ratio: Mapping[int, float] = field(default_factory=dict)  # by horizon in steps
    trust_horizon_steps: int | None = None
    served_horizon_steps: int | None = None
    scores: Mapping[str, float] = field(default_factory=dict)  # by the name of the registered metric
    noise_ratio: Mapping[str, float] = field(default_factory=dict)  # the same, over two halves of reality
    return_gap_floor: float | None = None
    rank_units: int | None = None  # independent policies of the suite
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
        """Counts real steps; `source` is one of names.SOURCES."""
        self._transitions[world, source] = self._transitions.get((world, source), 0) + count

    def collect(self) -> Iterator[Metric]:
        """What was not measured, or is not a number, has no series: no data must never look like a good value."""
        families = {name: GaugeMetricFamily(name.name, name.help, labels=name.labels) for name in FIDELITY_NAMES}
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
    world, model = reading.world, (reading.world, reading.model_version)
    for horizon, value in reading.error_ratio.items():
        yield names.ERROR_RATIO, (*model, str(horizon)), value
    for horizon, value in reading.alive_ratio.items():
        yield names.ALIVE_RATIO, (*model, str(horizon)), value
    for metric, value in reading.scores.items():
        if metric in FRONT_PAGE:
            name, labels = FRONT_PAGE[metric]
            yield name, (*model, *labels), value
        elif not metric.startswith(SHOWN_OTHERWISE):
            yield names.SCORE, (*model, metric), value
    for metric, value in reading.noise_ratio.items():
        yield names.NOISE_RATIO, (*model, metric), value
    yield names.TRUST_HORIZON, model, reading.trust_horizon_steps
    yield names.SERVED_HORIZON, (world,), reading.served_horizon_steps
    yield names.RETURN_GAP_FLOOR, model, reading.return_gap_floor
    yield names.RANK_UNITS, model, reading.rank_units
    yield names.REFERENCE_PROBES, (world,), reading.reference_probes
    yield names.FIDELITY_INFO, (*model, reading.data_hash, reading.convention), 1
    yield names.LAST_SUCCESS, (world,), at
