"""How wrong a world's states are, so many steps ahead, and for how many steps they can be trusted.

Convention "climatology": the error h steps ahead is divided by the spread of reality h steps ahead, over the same
starts. 1 is no better than always predicting the average future, sqrt(2) no better than an unrelated real trajectory.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simservice.errors import InvalidInput
from simservice.fidelity.bootstrap import RESAMPLES, unit_weights
from simservice.fidelity.metric import Score, metric
from simservice.fidelity.traces import Traces, check_paired, per_unit
from simservice.types import Array

CONVENTION = "open loop from real states under real actions; lead-time climatology; bootstrap over episodes"
HORIZONS = (1, 2, 5, 10, 20, 50, 100)
"""Leads that are published."""

TAU = 0.3
"""The error up to which a world is trusted, by default."""

MIN_WINDOWS = 10
"""With fewer windows (or fewer than two episodes) alive at a lead, the error there is unknown."""

MOST_ENDED = 0.25
"""With more than this share of the windows alive in reality ended in the world, the error is unknown too."""

SPREAD_FLOOR = 1e-4
"""Least variance a dimension counts with at a lead, as a share of its variance over all leads: a sensor that is
still everywhere the same at a lead (a leg that has not touched ground) must not turn rounding into infinite error."""


@dataclass(frozen=True, kw_only=True)
class HorizonCurve:
    """The error at every lead h = 1 ... H (index h - 1); NaN where too little of reality was alive to say."""

    error: Array  # (H,) nE(h)
    lower: Array  # (H,) one-sided 95 % bounds from resampling episodes
    upper: Array  # (H,)
    alive: Array  # (H,) share of the real windows that were alive then
    windows: int
    episodes: int

    def at(self, lead: int) -> float:
        """The error at one lead; NaN beyond the curve."""
        return float(self.error[lead - 1]) if lead <= len(self.error) else float("nan")


@dataclass(frozen=True)
class _Sums:
    """Sums over the windows of each resample (or of all): leading axis (resamples,)."""

    count: Array  # (R, H)
    squared_error: Array  # (R, H, D)
    value: Array  # (R, H, D), about the overall mean
    squared_value: Array  # (R, H, D)

    def spread(self) -> Array:
        """(R, H, D) variance of reality at each lead."""
        count = np.maximum(self.count, 1.0)[..., None]
        return np.maximum(self.squared_value / count - (self.value / count) ** 2, 0.0)

    def error(self, floor: Array) -> Array:
        """(R, H) nE, infinite where a resample has no window."""
        count = np.maximum(self.count, 1.0)[..., None]
        varies = floor > 0
        ratio = (self.squared_error / count)[..., varies] / np.maximum(self.spread()[..., varies], floor[varies])
        error = np.sqrt(ratio.mean(axis=-1)) if varies.any() else np.full(self.count.shape, np.nan)
        return np.where(self.count > 0, error, np.inf)


def horizon_error_curve(real: Traces, imagined: Traces, *, resamples: int = RESAMPLES, seed: int = 0) -> HorizonCurve:
    """nE(h) = sqrt(mean over dimensions of mean squared error over the variance of reality, both at lead h).

    Only steps alive on both sides count; dimensions in which reality never varies do not. Whether an end was right is
    scored elsewhere (termination's precision, recall and calibration): where a world stopped says nothing of how well
    it imagines states, and that border lies so far from all that lives on that one window would rule the curve. But
    where more than MOST_ENDED of what lives in reality has ended in the world, the rest is a selection, and the error
    unknown. Of a stochastic world hand in the mean over several imagined copies.
    """
    check_paired(real, imagined)
    if not real.valid.any():
        raise InvalidInput("real", "has no step that was alive")
    alive = real.valid & imagined.valid
    truth, imagination = real.observation[:, 1:], imagined.observation[:, 1:]
    mean = truth[real.valid].mean(axis=0)
    floor = SPREAD_FLOOR * truth[real.valid].var(axis=0)
    mask = alive[:, :, None]
    centred = np.where(mask, truth - mean, 0.0)
    error = np.where(mask, imagination - truth, 0.0)
    parts = [per_unit(real.unit, part) for part in (alive.astype(float), error**2, centred, centred**2)]
    point = _Sums(*(part.sum(axis=0, keepdims=True) for part in parts)).error(floor)[0]
    weights = unit_weights(len(parts[0]), resamples, seed)
    resampled = _Sums(*(np.tensordot(weights, part, axes=1) for part in parts)).error(floor)
    lower, upper = np.quantile(resampled, [0.05, 0.95], axis=0, method="higher")
    known = (alive.sum(axis=0) >= MIN_WINDOWS) & ((parts[0] > 0).sum(axis=0) >= 2)
    known &= alive.sum(axis=0) >= (1 - MOST_ENDED) * real.valid.sum(axis=0)
    unknown = np.where(known, 0.0, np.nan)
    return HorizonCurve(
        error=np.where(known, point, np.nan),
        lower=np.minimum(lower, point) + unknown,
        upper=np.maximum(upper, point) + unknown,
        alive=real.valid.mean(axis=0),
        windows=real.windows,
        episodes=real.units,
    )


def trust_horizon(curve: HorizonCurve, tau: float = TAU) -> int:
    """The most steps h such that the upper bound of the error is at most tau at every lead up to h.

    Where the error is unknown trust ends; a result equal to the curve's length means "at least that many".
    """
    return _leading(curve.upper, tau)


def _leading(bound: Array, tau: float) -> int:
    within = np.nan_to_num(bound, nan=np.inf) <= tau
    return int(len(within) if within.all() else np.argmin(within))


def _register_error_at(lead: int) -> None:
    @metric(f"error_ratio_{lead}", level="L4", evidence="windows", unit="episode", perfect=0.0, convention=CONVENTION)
    def error_ratio(real: Traces, imagined: Traces) -> Score:
        curve = horizon_error_curve(real, imagined)
        if lead > len(curve.error):
            return Score(float("nan"), float("nan"), float("nan"), curve.episodes)
        place = lead - 1
        return Score(float(curve.error[place]), float(curve.lower[place]), float(curve.upper[place]), curve.episodes)


for _lead in HORIZONS:
    _register_error_at(_lead)


@metric(
    "trust_horizon_steps",
    level="L4",
    evidence="windows",
    unit="episode",
    perfect=float("inf"),
    convention=f"{CONVENTION}; upper bound <= {TAU} at every lead up to it",
)
def trust_horizon_steps(real: Traces, imagined: Traces) -> Score:
    """The trust horizon; its interval reaches from the upper bound's crossing to the lower bound's."""
    curve = horizon_error_curve(real, imagined)
    trusted = trust_horizon(curve)
    return Score(float(trusted), float(trusted), float(_leading(curve.lower, TAU)), curve.episodes)
