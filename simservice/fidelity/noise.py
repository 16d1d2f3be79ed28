"""What no world can be better than: a metric between two halves of reality, and the thresholds that follow from it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from simservice.fidelity.metric import Metric
from simservice.fidelity.traces import Traces

SPLITS = 200


@dataclass(frozen=True)
class NoiseFloor:
    """Distances from the perfect score between halves of reality; NaN where there are none to compare."""

    median: float
    warn: float  # 0.99 quantile
    alert: float  # twice the median, or the 0.999 quantile if that is more
    splits: int

    def ratio(self, metric: Metric, value: float) -> float:
        """A score's distance from perfect over the median floor: 1 is two batches of reality. NaN for no floor."""
        return abs(value - metric.perfect) / self.median if self.median > 0 else float("nan")


def noise_floor(metric: Metric, real: Traces, *, splits: int = SPLITS, seed: int = 0) -> NoiseFloor:
    """From random splits of reality by whole episodes.

    A metric that compares windows of one start is divided by the spread of reality already, and has no floor here.
    """
    if metric.floor != "halves":
        return NoiseFloor(float("nan"), float("nan"), float("nan"), 0)
    distances = []
    for number in range(splits):
        one, other = _halves(real, np.random.default_rng([seed, number]))
        distances.append(abs(metric.measure(one, other).value - metric.perfect))
    found = np.array(distances)
    if np.isnan(found).any():
        return NoiseFloor(float("nan"), float("nan"), float("nan"), splits)
    median, high, highest = (float(quantile) for quantile in np.quantile(found, [0.5, 0.99, 0.999]))
    return NoiseFloor(median, high, max(2.0 * median, highest), splits)


def _halves(real: Traces, generator: np.random.Generator) -> tuple[Traces, Traces]:
    """Two disjoint sets of episodes, of windows as of returns."""
    units = np.unique(real.unit)
    first = np.isin(real.unit, generator.permutation(units)[: len(units) // 2])
    orders = {name: generator.permutation(len(returns)) for name, returns in real.returns.items()}
    sides = []
    for side in (0, 1):
        windows = np.flatnonzero(first if side == 0 else ~first)
        returns = {name: real.returns[name][order[side::2]] for name, order in orders.items()}
        exploited = real.exploited[side::2] if real.exploited is not None else None
        sides.append(replace(real[windows], returns=returns, exploited=exploited))
    return sides[0], sides[1]
