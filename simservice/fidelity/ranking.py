"""Whether the world would choose the right policy: rank statistics with what it takes to believe them.

A unit is an independent training run; checkpoints of one run count once. Below eight units nothing is said: with four,
the smallest p-value any order can reach is 0.042.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from simservice.errors import InvalidInput
from simservice.fidelity.bootstrap import bounds
from simservice.fidelity.metric import UNKNOWN, Score, metric
from simservice.fidelity.traces import Traces
from simservice.types import Array

LEAST_UNITS = 8
CORRELATION_CONVENTION = "of mean returns over training runs; Fisher z interval on runs; hidden below 8 runs"
MMRV_CONVENTION = "(1/N) sum_i max_j |R_i - R_j| [(S_i > S_j) != (R_i > R_j)], R real, S imagined, over the real range"


def mmrv(*, real: Array, imagined: Array) -> float:
    """Mean maximum rank violation of mean returns (N,): what the wrongly ordered pairs cost, in real return.

    By name only: it is not symmetric, and published code swaps the sides. A tie on one side only is a violation
    where the other side is greater.
    """
    cost = np.abs(real[:, None] - real[None, :])
    violated = (imagined[:, None] > imagined[None, :]) != (real[:, None] > real[None, :])
    return float(np.max(cost * violated, axis=1).mean())


@dataclass(frozen=True, kw_only=True)
class PolicyRanking:
    """Of k units; NaN below eight of them, or where all returns of a side are equal."""

    spearman: Score
    pearson: Score
    mmrv: Score  # over the range of real returns
    units: int
    spearman_drop_one: tuple[float, float]  # the range when any one unit is left out
    pearson_drop_one: tuple[float, float]
    permutation_floor: float  # 1 / k!: no order can be less likely by chance
    convention: str = MMRV_CONVENTION


def policy_ranking(
    real: Mapping[str, Array], imagined: Mapping[str, Array], *, runs: Mapping[str, str] | None = None, seed: int = 0
) -> PolicyRanking:
    """From episode returns by policy; `runs` names the training run of policies that share one.

    Raises InvalidInput for different policies on the two sides.
    """
    if set(real) != set(imagined):
        raise InvalidInput("returns", f"are of the policies {sorted(real)} in reality, {sorted(imagined)} imagined")
    grouped: dict[str, list[str]] = {}
    for name in sorted(real):
        grouped.setdefault((runs or {}).get(name, name), []).append(name)
    truths, dreams = (
        np.array([np.mean([side[name].mean() for name in names]) for names in grouped.values()])
        for side in (real, imagined)
    )
    units = len(grouped)
    nothing = (float("nan"), float("nan"))
    if units < LEAST_UNITS or truths.std() == 0 or dreams.std() == 0:
        unknown = Score(*(float("nan"),) * 3, units)
        return PolicyRanking(
            spearman=unknown,
            pearson=unknown,
            mmrv=unknown,
            units=units,
            spearman_drop_one=nothing,
            pearson_drop_one=nothing,
            permutation_floor=1.0 / math.factorial(units),
        )
    ranks = average_ranks(truths), average_ranks(dreams)
    return PolicyRanking(
        spearman=_fisher(_correlation(*ranks), units),
        pearson=_fisher(_correlation(truths, dreams), units),
        mmrv=_mmrv_score(truths, dreams, seed),
        units=units,
        spearman_drop_one=_drop_one(truths, dreams, by_rank=True),
        pearson_drop_one=_drop_one(truths, dreams, by_rank=False),
        permutation_floor=1.0 / math.factorial(units),
    )


def average_ranks(values: Array) -> Array:
    """(N,) from 1; equal values share the mean of their ranks."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(count) - (count - 1) / 2.0)[place])


def _correlation(one: Array, other: Array) -> float:
    """NaN where a side does not vary."""
    if one.std() == 0 or other.std() == 0:
        return float("nan")
    return float(np.clip(np.corrcoef(one, other)[0, 1], -1.0, 1.0))


def _fisher(value: float, units: int) -> Score:
    z, half = math.atanh(min(max(value, -1.0 + 1e-12), 1.0 - 1e-12)), 1.96 / math.sqrt(units - 3)
    return Score(value, min(math.tanh(z - half), value), max(math.tanh(z + half), value), units)


def _drop_one(truths: Array, dreams: Array, *, by_rank: bool) -> tuple[float, float]:
    values = []
    for left_out in range(len(truths)):
        pair = np.delete(truths, left_out), np.delete(dreams, left_out)
        values.append(_correlation(*(average_ranks(side) for side in pair)) if by_rank else _correlation(*pair))
    return min(values), max(values)


def _mmrv_score(truths: Array, dreams: Array, seed: int, resamples: int = 200) -> Score:
    generator, scale = np.random.default_rng(seed), float(np.ptp(truths))
    draws = generator.integers(0, len(truths), (resamples, len(truths)))
    value = mmrv(real=truths, imagined=dreams) / scale
    resampled = np.array([mmrv(real=truths[draw], imagined=dreams[draw]) / scale for draw in draws])
    return Score(value, *bounds(resampled, value), len(truths))


def _ranking(real: Traces, imagined: Traces) -> PolicyRanking | None:
    return policy_ranking(real.returns, imagined.returns, runs=real.runs) if real.returns else None


def _register(name: str, statistic: str, perfect: float, convention: str) -> None:
    @metric(
        name,
        level="L5",
        evidence="returns",
        unit="policy",
        perfect=perfect,
        convention=convention,
        floor="halves",
    )
    def measure(real: Traces, imagined: Traces) -> Score:
        found = _ranking(real, imagined)
        score: Score = getattr(found, statistic) if found is not None else UNKNOWN
        return score


_register("policy_rank_spearman", "spearman", 1.0, CORRELATION_CONVENTION)
_register("policy_rank_pearson", "pearson", 1.0, CORRELATION_CONVENTION)
_register("policy_mmrv_ratio", "mmrv", 0.0, MMRV_CONVENTION)
