"""Intervals from resampling whole episodes. Never resamples transitions: those of one episode are not independent."""

from __future__ import annotations

import numpy as np

from simservice.types import Array

RESAMPLES = 500


def unit_weights(units: int, resamples: int = RESAMPLES, seed: int = 0) -> Array:
    """(resamples, units) float64: how often each episode is drawn in each resample; each row sums to `units`."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(units, np.full(units, 1.0 / units), size=resamples).astype(np.float64)


def resampled_means(values: Array, resamples: int = RESAMPLES, seed: int = 0) -> Array:
    """(resamples,) means of `values` (units,), each over as many draws with replacement."""
    return unit_weights(len(values), resamples, seed) @ values / len(values)


def bounds(resampled: Array, value: float, confidence: float = 0.95) -> tuple[float, float]:
    """The two-sided percentile interval, widened to hold the value itself; NaN if a resample has none."""
    if np.isnan(resampled).any() or np.isnan(value):
        return float("nan"), float("nan")
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(resampled, [tail, 1.0 - tail])
    return min(float(low), value), max(float(high), value)
