"""Bets against "nothing has changed": p-values in, evidence out. Knows no model and no world, only p-values.

Each p-value is bet on in several ways; each bet e has mean at most 1 as long as nothing has changed. One
Shiryaev-Roberts process M := (M + 1) e a bet has then mean at most t after t p-values, and so has the average of all of
them: P(average >= c within T) <= T / c, and the mean time to a false alarm is at least c.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import ndtri

from simservice.types import Array

TILTS = np.array([0.1, 0.2, 0.4, 0.8, 1.5, 2.5])
"""Shifts of the score, in standard deviations, for which one bet each is the best."""

SPIKE = 0.005
STAKES = np.array([0.5, 0.15])
"""Shares of the wealth bet on a p-value below SPIKE: the best bets on faults that hit some probes hard and most not."""

TAIL = 0.05
"""P-values below which a finite calibration is not taken at its word."""

BETS = len(TILTS) + 1 + len(STAKES)

LARGEST = 1e150
"""Evidence is cut here: far beyond any threshold, and far from overflow."""


def bets(p_value: Array) -> Array:
    """(..., BETS) e-values of p-values (...): exp(tilt z - tilt^2 / 2) for each tilt, one without a parameter, spikes.

    A p-value that is NaN (nothing was scored) bets nothing: 1.
    """
    known = ~np.isnan(p_value)
    p = np.clip(np.where(known, p_value, 0.5), 1e-12, 1.0 - 1e-12)
    z = ndtri(1.0 - p)[..., None]
    logarithm = np.log(p)
    # (1 - p + p ln p) / (p (ln p)^2), whose limit at p = 1 is 1/2 and is not reached by its formula
    near_one = p > 1.0 - 1e-4
    safe = np.where(near_one, -1.0, logarithm)
    free = np.where(near_one, 0.5, (1.0 - p + p * logarithm) / (p * safe**2))
    spikes = 1.0 - STAKES + STAKES / SPIKE * (p[..., None] <= SPIKE)
    found = np.concatenate([np.exp(TILTS * z - TILTS**2 / 2.0), free[..., None], spikes], axis=-1)
    return np.where(known[..., None], found, 1.0)


def advance(processes: Array, p_values: Array) -> Array:
    """The processes (..., scores, BETS) after one more p-value (..., scores) each."""
    return np.minimum((processes + 1.0) * bets(p_values), LARGEST)


def evidence(processes: Array) -> Array:
    """(...) the average over all processes of (..., scores, BETS)."""
    return np.asarray(processes.mean(axis=(-2, -1)))


def conformal_p_values(scores: Array, sorted_calibration: Array, luck: Array) -> Array:
    """P-values of scores (N,) that are large when something has changed, against scores of times when nothing had.

    `luck` (N,) in [0, 1) breaks ties. A score that is NaN has the p-value NaN.
    """
    count = len(sorted_calibration)
    above = count - np.searchsorted(sorted_calibration, scores, side="right")
    equal = count - np.searchsorted(sorted_calibration, scores, side="left") - above
    return np.where(np.isnan(scores), np.nan, ranked(above, equal, luck, count))


def ranked(above: Array, equal: Array, luck: Array, count: int) -> Array:
    """P-values of scores with so many calibration scores above them and so many equal ones, of `count` in all.

    None is below 2 / (n + 1), and the tail is held back by a standard deviation of its own count: which few scores a
    finite calibration holds there is luck, and bets on the tail would win by it in every stream that shares it.
    """
    rank = np.maximum(above + luck * (1 + equal), 1.0)
    tail = np.maximum(1.0 - rank / (TAIL * count), 0.0)
    return np.asarray(np.minimum((rank + np.sqrt(rank) * tail) / (count + 1), 1.0))


def probes_until_alarm(shift: float, threshold: float) -> float:
    """The planning rule: about 2 ln(c) / shift^2 probes find a shift of so many standard deviations of a score."""
    return 2.0 * math.log(threshold) / shift**2


def detectable_shift(probes: float, threshold: float) -> float:
    """The planning rule read backwards: the shift of a score that so many probes find."""
    return math.sqrt(2.0 * math.log(threshold) / probes)
