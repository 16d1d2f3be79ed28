"""Whether what a world promises comes true: returns of whole episodes, rewards and terminations step by step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from simservice.errors import InvalidInput
from simservice.fidelity.bootstrap import RESAMPLES, bounds, resampled_means, unit_weights
from simservice.fidelity.metric import Score, metric
from simservice.fidelity.traces import Traces, check_paired, per_unit
from simservice.types import Array

RETURN_CONVENTION = "imagined minus real mean return over the return range; bootstrap over episodes of both"
STEP_CONVENTION = "one step ahead from real states under real actions; bootstrap over episodes"
BINS = 10  # of the calibration error


@dataclass(frozen=True)
class PolicyGap:
    """One policy's imagined and real returns. A positive gap: the world promises more than reality gives."""

    policy: str
    imagined_mean: float
    real_mean: float
    gap: Score  # of the return range


@dataclass(frozen=True, kw_only=True)
class ReturnGap:
    """The gaps of a suite of policies."""

    policies: tuple[PolicyGap, ...]
    max_abs: Score
    mean: Score
    floor: float  # median of max_abs between two batches of reality of the same sizes: no world can do better
    low: float
    high: float


def return_gap(
    real: Mapping[str, Array],
    imagined: Mapping[str, Array],
    *,
    return_range: tuple[float, float] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> ReturnGap:
    """Compares episode returns (episodes,) by policy, from the same law of starts and with the same cap on steps.

    `return_range` is (J_min, J_max); by default the lowest and highest mean real return of the suite, or of single
    episodes when all means are equal. Raises InvalidInput for different suites or fewer than two episodes.
    """
    if not real or set(real) != set(imagined):
        raise InvalidInput("returns", f"are of the policies {sorted(real)} in reality, {sorted(imagined)} imagined")
    for name in real:
        if min(len(real[name]), len(imagined[name])) < 2:
            raise InvalidInput("returns", f"of policy {name!r} need at least two episodes on either side")
    low, high = return_range if return_range is not None else _range(real)
    scale = high - low if high > low else float("nan")
    gaps: list[PolicyGap] = []
    samples, null_samples = [], []
    for number, name in enumerate(sorted(real)):
        truths = [resampled_means(real[name], resamples, seed + 4 * number + i) for i in (0, 1)]
        dreams = resampled_means(imagined[name], resamples, seed + 4 * number + 2)
        value = float(imagined[name].mean() - real[name].mean()) / scale
        sample = (dreams - truths[0]) / scale
        score = Score(value, *bounds(sample, value), min(len(real[name]), len(imagined[name])))
        gaps.append(PolicyGap(name, float(imagined[name].mean()), float(real[name].mean()), score))
        samples.append(sample)
        null_samples.append((truths[1] - truths[0]) / scale)
    units = sum(len(returns) for returns in real.values())
    values, resampled = np.array([gap.gap.value for gap in gaps]), np.array(samples)  # (P,), (P, resamples)
    worst, mean = float(np.abs(values).max()), float(values.mean())
    return ReturnGap(
        policies=tuple(gaps),
        max_abs=Score(worst, *bounds(np.abs(resampled).max(axis=0), worst), units),
        mean=Score(mean, *bounds(resampled.mean(axis=0), mean), units),
        floor=float(np.median(np.abs(np.array(null_samples)).max(axis=0))),
        low=low,
        high=high,
    )


def reward_error(real: Traces, imagined: Traces, *, seed: int = 0) -> Score:
    """Mean absolute error of the reward one step ahead over the standard deviation of real rewards.

    Where all real rewards are equal, over their size instead (or over 1 if that is 0).
    """
    check_paired(real, imagined)
    both = real.valid[:, 0] & imagined.valid[:, 0]
    truth, error = real.reward[both, 0], np.abs(imagined.reward[both, 0] - real.reward[both, 0])
    if not both.any():
        return Score(float("nan"), float("nan"), float("nan"), 0)
    spread = float(truth.std())
    scale = spread if spread > 1e-9 else abs(float(truth.mean())) or 1.0
    sums = per_unit(real.unit[both], np.stack([error, np.ones_like(error)], axis=1))
    resampled = unit_weights(len(sums), seed=seed) @ sums
    value = float(error.mean()) / scale
    return Score(value, *bounds(resampled[:, 0] / resampled[:, 1] / scale, value), len(sums))


@dataclass(frozen=True)
class TerminationScores:
    """How well ends are predicted one step ahead; NaN where there was nothing to predict."""

    precision: float
    recall: float
    f1: Score
    brier: float  # of the stated probability; NaN where the world states none
    calibration_error: float  # expected, over ten bins
    ends: int  # real ends among the steps


def termination_scores(real: Traces, imagined: Traces, *, seed: int = 0) -> TerminationScores:
    """Precision, recall and F1 of `terminated` one step ahead, Brier and calibration error of its probability.

    With no real end among the steps F1 is unknown, not good: hand in windows that start just before ends, too.
    """
    check_paired(real, imagined)
    both = real.valid[:, 0] & imagined.valid[:, 0]
    truth, said = real.terminated[both, 0], imagined.terminated[both, 0]
    counts = np.stack([truth & said, ~truth & said, truth & ~said], axis=1).astype(float)  # hit, false alarm, miss
    hit, alarm, miss = counts.sum(axis=0)
    if hit + miss == 0:
        unknown = Score(float("nan"), float("nan"), float("nan"), 0)
        return TerminationScores(float("nan"), float("nan"), unknown, *_calibration(imagined, both, truth), 0)
    resampled = unit_weights(len(np.unique(real.unit[both])), seed=seed) @ per_unit(real.unit[both], counts)
    resampled = resampled[resampled[:, 0] + resampled[:, 2] > 0]  # a resample without ends says nothing of them
    f1 = float(_f1(counts.sum(axis=0)[None])[0])
    return TerminationScores(
        precision=float(hit / (hit + alarm)) if hit + alarm else 0.0,
        recall=float(hit / (hit + miss)),
        f1=Score(f1, *bounds(_f1(resampled), f1), real.units),
        brier=_calibration(imagined, both, truth)[0],
        calibration_error=_calibration(imagined, both, truth)[1],
        ends=int(hit + miss),
    )


def _f1(counts: Array) -> Array:
    hit, alarm, miss = counts.T
    return np.asarray(2 * hit / (2 * hit + alarm + miss))


def _calibration(imagined: Traces, both: Array, truth: Array) -> tuple[float, float]:
    if imagined.termination_probability is None or not both.any():
        return float("nan"), float("nan")
    probability = imagined.termination_probability[both, 0]
    place = np.minimum((probability * BINS).astype(int), BINS - 1)
    sizes = np.bincount(place, minlength=BINS)
    gaps = np.bincount(place, probability, BINS) - np.bincount(place, truth.astype(float), BINS)
    return float(np.mean((probability - truth) ** 2)), float(np.abs(gaps).sum() / sizes.sum())


def _range(real: Mapping[str, Array]) -> tuple[float, float]:
    means = [float(returns.mean()) for returns in real.values()]
    if max(means) > min(means):
        return min(means), max(means)
    every = np.concatenate(list(real.values()))
    return float(every.min()), float(every.max())


def _unknown_without_returns(real: Traces) -> Score | None:
    return None if real.returns else Score(float("nan"), float("nan"), float("nan"), 0)


@metric(
    "return_gap_max_abs",
    level="L5",
    evidence="returns",
    unit="episode",
    perfect=0.0,
    convention=RETURN_CONVENTION,
    floor="halves",
)
def return_gap_max_abs(real: Traces, imagined: Traces) -> Score:
    """The largest gap of the suite, without its sign."""
    unknown = _unknown_without_returns(real)
    return unknown or return_gap(real.returns, imagined.returns, return_range=real.return_range).max_abs


@metric(
    "return_gap_mean",
    level="L5",
    evidence="returns",
    unit="episode",
    perfect=0.0,
    convention=RETURN_CONVENTION,
    floor="halves",
)
def return_gap_mean(real: Traces, imagined: Traces) -> Score:
    """The mean gap of the suite: positive when the world is too kind."""
    unknown = _unknown_without_returns(real)
    return unknown or return_gap(real.returns, imagined.returns, return_range=real.return_range).mean


@metric("reward_error_ratio", level="L4", evidence="steps", unit="episode", perfect=0.0, convention=STEP_CONVENTION)
def reward_error_ratio(real: Traces, imagined: Traces) -> Score:
    """See reward_error."""
    return reward_error(real, imagined)


@metric("termination_f1_ratio", level="L4", evidence="steps", unit="episode", perfect=1.0, convention=STEP_CONVENTION)
def termination_f1_ratio(real: Traces, imagined: Traces) -> Score:
    """See termination_scores."""
    return termination_scores(real, imagined).f1
