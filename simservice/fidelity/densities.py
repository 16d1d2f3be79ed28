"""Whether a world's stated uncertainty of the next observation is honest: likelihood, CRPS, coverage, PIT.

One step ahead from real states; the world's deviation is taken for that of a normal distribution.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import ndtr, ndtri

from simservice.fidelity.bootstrap import bounds, unit_weights
from simservice.fidelity.metric import UNKNOWN, Level, Score, metric
from simservice.fidelity.outcomes import STEP_CONVENTION
from simservice.fidelity.traces import Traces, check_paired, per_unit
from simservice.types import Array

COVERED = 0.9
PIT_BINS = 100
CONVENTION = f"{STEP_CONVENTION}; normal with the world's stated deviation"


def normal_nll(error: Array, deviation: Array) -> Array:
    """-log density, in nats."""
    return np.asarray(0.5 * np.log(2.0 * np.pi) + np.log(deviation) + 0.5 * (error / deviation) ** 2)


def normal_crps(error: Array, deviation: Array) -> Array:
    """E|X - y| - E|X - X'| / 2 of a normal, in closed form."""
    z = error / deviation
    density = np.exp(-0.5 * z**2) / np.sqrt(2.0 * np.pi)
    return np.asarray(deviation * (z * (2.0 * ndtr(z) - 1.0) + 2.0 * density - 1.0 / np.sqrt(np.pi)))


def _rows(real: Traces, imagined: Traces) -> tuple[Array, Array, Array, Array] | None:
    """Errors (N, D), spreads of the real change (D,), units (N,), places of the rows; None where nothing is known."""
    check_paired(real, imagined)
    rows = np.flatnonzero(real.valid[:, 0] & imagined.valid[:, 0])
    if len(np.unique(real.unit[rows])) < 2:
        return None
    change = real.observation[rows, 1] - real.observation[rows, 0]
    spread = change.std(axis=0)
    error = imagined.observation[rows, 1] - real.observation[rows, 1]
    return error, spread, real.unit[rows], rows


def _mean(values: Array, unit: Array, finish: Callable[[Array], Array]) -> Score:
    """`finish` of the means over steps (R, K) of values (N, K), resampled over units."""
    sums = per_unit(unit, np.concatenate([values, np.ones((len(values), 1))], axis=1))
    total = sums.sum(axis=0, keepdims=True)
    resampled = unit_weights(len(sums)) @ sums
    value = float(finish(total[:, :-1] / total[:, -1:])[0])
    return Score(value, *bounds(finish(resampled[:, :-1] / resampled[:, -1:]), value), len(sums))


def one_step_error(real: Traces, imagined: Traces) -> Score:
    """The root mean square error over the spread of the change, of the worst dimension that changes at all."""
    found = _rows(real, imagined)
    if found is None:
        return UNKNOWN
    error, spread, unit, _ = found
    varies = spread > 1e-9
    if not varies.any():
        return UNKNOWN
    return _mean((error[:, varies] / spread[varies]) ** 2, unit, lambda mean: np.sqrt(mean.max(axis=1)))


def _density(real: Traces, imagined: Traces, of: Callable[[Array, Array, Array], Array]) -> Score:
    """The mean over steps and dimensions of a function of (error, deviation, spread)."""
    found = _rows(real, imagined)
    if found is None or imagined.deviation is None:
        return UNKNOWN
    error, spread, unit, rows = found
    deviation = np.maximum(imagined.deviation[rows, 0], 1e-12)
    values = of(error, deviation, np.maximum(spread, 1e-9)).mean(axis=1, keepdims=True)
    return _mean(values, unit, lambda mean: mean[:, 0])


def negative_log_likelihood(real: Traces, imagined: Traces) -> Score:
    """Nats a dimension."""
    return _density(real, imagined, lambda error, deviation, _: normal_nll(error, deviation))


def crps(real: Traces, imagined: Traces) -> Score:
    """Over the spread of the change."""
    return _density(real, imagined, lambda error, deviation, spread: normal_crps(error, deviation) / spread)


def coverage(real: Traces, imagined: Traces) -> Score:
    """The share of observations inside the central 90 %."""
    half = float(ndtri(0.5 + COVERED / 2.0))
    return _density(real, imagined, lambda error, deviation, _: (np.abs(error) <= half * deviation).astype(float))


def pit_distance(real: Traces, imagined: Traces) -> Score:
    """The Kolmogorov-Smirnov distance from uniform of the predicted distribution at what happened.

    A deterministic environment gives 0.13 to 0.6 although the coverage is right: read it beside the coverage.
    """
    found = _rows(real, imagined)
    if found is None or imagined.deviation is None:
        return UNKNOWN
    error, _, unit, rows = found
    pit = ndtr(-error / np.maximum(imagined.deviation[rows, 0], 1e-12))
    below = np.mean(pit[:, :, None] <= (np.arange(1, PIT_BINS) / PIT_BINS), axis=1)  # (N, PIT_BINS - 1)
    uniform = np.arange(1, PIT_BINS) / PIT_BINS
    return _mean(below, unit, lambda mean: np.abs(mean - uniform).max(axis=1))


def _register(name: str, measure: Callable[[Traces, Traces], Score], level: Level, perfect: float) -> None:
    metric(name, level=level, evidence="steps", unit="episode", perfect=perfect, convention=CONVENTION)(measure)


_register("one_step_error_ratio", one_step_error, "L4", 0.0)
_register("one_step_nll_nats", negative_log_likelihood, "L3", float("nan"))
_register("one_step_crps_ratio", crps, "L3", float("nan"))
_register("coverage90_ratio", coverage, "L3", float("nan"))
_register("pit_ks_ratio", pit_distance, "L3", float("nan"))
