"""Whether the learning signals are right: bias of rewards, calibration and misses of ends, successes that are not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simservice.fidelity.bootstrap import bounds, unit_weights
from simservice.fidelity.metric import UNKNOWN, Score, metric
from simservice.fidelity.outcomes import BINS, STEP_CONVENTION
from simservice.fidelity.traces import Traces, check_paired, per_unit
from simservice.types import Array


def share(unit: Array, hit: Array, seen: Array, *, factor: float = 1.0, seed: int = 0) -> Score:
    """Hits over chances (N,) each, times `factor`, resampled over units; unknown without a chance or a second unit."""
    sums = per_unit(unit, np.stack([hit, seen], axis=1).astype(float))
    sums = sums[sums[:, 1] > 0]
    if len(sums) < 2:
        return UNKNOWN
    resampled = unit_weights(len(sums), seed=seed) @ sums
    value = factor * float(sums[:, 0].sum() / sums[:, 1].sum())
    return Score(value, *bounds(factor * resampled[:, 0] / resampled[:, 1], value), len(sums))


def false_success(real: Traces, imagined: Traces) -> Score:
    """P(the world says success | reality fails), over windows; unknown where nothing fails or nobody judged."""
    check_paired(real, imagined)
    if real.success is None or imagined.success is None:
        return UNKNOWN
    return share(real.unit, ~real.success & imagined.success, ~real.success)


def missed_terminations(real: Traces, imagined: Traces) -> Score:
    """Real ends that the world did not see, in 1000 steps."""
    check_paired(real, imagined)
    both = real.valid[:, 0] & imagined.valid[:, 0]
    missed = both & real.terminated[:, 0] & ~imagined.terminated[:, 0]
    return share(real.unit, missed, both, factor=1000.0)


def reward_bias(real: Traces, imagined: Traces) -> Score:
    """Signed mean error of the reward one step ahead, over the spread of real rewards (or their size, if none)."""
    check_paired(real, imagined)
    both = real.valid[:, 0] & imagined.valid[:, 0]
    if not both.any():
        return UNKNOWN
    truth = real.reward[both, 0]
    scale = float(truth.std()) if truth.std() > 1e-9 else abs(float(truth.mean())) or 1.0
    error = np.where(both, imagined.reward[:, 0] - real.reward[:, 0], 0.0)
    return share(real.unit, error, both, factor=1.0 / scale)


def termination_calibration(real: Traces, imagined: Traces, *, seed: int = 0) -> Score:
    """Expected calibration error of the probability of an end, over ten bins; unknown where none is stated."""
    check_paired(real, imagined)
    both = real.valid[:, 0] & imagined.valid[:, 0]
    if imagined.termination_probability is None or len(np.unique(real.unit[both])) < 2:
        return UNKNOWN
    probability, truth = imagined.termination_probability[both, 0], real.terminated[both, 0]
    place = np.minimum((probability * BINS).astype(int), BINS - 1)
    gaps = np.zeros((len(probability), BINS + 1))
    gaps[np.arange(len(probability)), place] = probability - truth
    gaps[:, BINS] = 1.0
    sums = per_unit(real.unit[both], gaps)
    resampled = unit_weights(len(sums), seed=seed) @ sums
    value = float(np.abs(sums[:, :BINS].sum(axis=0)).sum() / sums[:, BINS].sum())
    return Score(value, *bounds(np.abs(resampled[:, :BINS]).sum(axis=1) / resampled[:, BINS], value), len(sums))


@dataclass(frozen=True)
class SparseReward:
    """Of steps whose reward reaches the threshold; NaN where there was none."""

    precision: float
    recall: float
    f1: float


def sparse_reward(real: Traces, imagined: Traces, threshold: float) -> SparseReward:
    """How well rewards of at least `threshold` are predicted one step ahead."""
    check_paired(real, imagined)
    both = real.valid[:, 0] & imagined.valid[:, 0]
    truth, said = real.reward[both, 0] >= threshold, imagined.reward[both, 0] >= threshold
    hit, nan = float((truth & said).sum()), float("nan")
    if not truth.any():
        return SparseReward(nan, nan, nan)
    precision = hit / said.sum() if said.any() else 0.0
    return SparseReward(float(precision), float(hit / truth.sum()), float(2 * hit / (truth.sum() + said.sum())))


@metric(
    "false_success_ratio",
    level="L5",
    evidence="windows",
    unit="episode",
    perfect=0.0,
    convention="P(world says success | reality fails) over windows, by one judge; bootstrap over episodes",
)
def false_success_ratio(real: Traces, imagined: Traces) -> Score:
    """See false_success."""
    return false_success(real, imagined)


@metric(
    "missed_terminations_per_1000_steps",
    level="L4",
    evidence="steps",
    unit="episode",
    perfect=0.0,
    convention=STEP_CONVENTION,
)
def missed_terminations_per_1000_steps(real: Traces, imagined: Traces) -> Score:
    """See missed_terminations."""
    return missed_terminations(real, imagined)


@metric("reward_bias_ratio", level="L4", evidence="steps", unit="episode", perfect=0.0, convention=STEP_CONVENTION)
def reward_bias_ratio(real: Traces, imagined: Traces) -> Score:
    """See reward_bias."""
    return reward_bias(real, imagined)


@metric("termination_ece_ratio", level="L4", evidence="steps", unit="episode", perfect=0.0, convention=STEP_CONVENTION)
def termination_ece_ratio(real: Traces, imagined: Traces) -> Score:
    """See termination_calibration."""
    return termination_calibration(real, imagined)
