"""Measures a world on recorded episodes it has not seen, beside persistence and a linear model. Changes nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from simservice.data.episodes import Dataset
from simservice.errors import InvalidInput
from simservice.fidelity.states import TAU, horizon_error_curve, trust_horizon
from simservice.fidelity.support import QUANTILE as SUPPORT_QUANTILE
from simservice.fidelity.traces import Traces, matrix, mean_while_running
from simservice.training.loader import HELD_OUT_SHARE, split
from simservice.training.windows import (
    COPIES,
    PICTURE_COPIES,
    Windows,
    cut_windows,
    forecast,
    has_pictures,
    nrmse,
    spread,
)
from simservice.types import Array, Episode, Provenance
from simservice.worlds import registry
from simservice.worlds.rollout import Rollout
from simservice.worlds.world import World

HORIZONS = (1, 5, 10, 25, 50)
MAX_WINDOWS = 200
MAX_TRANSITIONS = 4096
MAX_PICTURE_WINDOWS = 64
MAX_PICTURE_TRANSITIONS = 1024
_NOTHING = float("nan")


@dataclass(frozen=True, kw_only=True)
class KStepError:
    """NRMSE of the forecast k steps ahead: root mean square over features, each relative to its spread in the data."""

    world: float
    persistence: float  # "nothing will change"
    linear: float  # NaN where no linear model takes these spaces
    windows: int  # how many were alive k steps ahead


@dataclass(frozen=True, kw_only=True)
class TerminationScore:
    """How well the probability of termination tells true ends from all other steps (time limits are no ends)."""

    base_rate: float
    precision: float  # at a probability above one half; NaN if it never is
    recall: float  # NaN without an end in the data
    average_precision: float
    calibration_error: float  # expected, over 10 bins


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a world is worth on episodes it has not seen."""

    episodes: int
    steps: int
    errors: Mapping[int, KStepError]
    reward_r2: float  # NaN for a reward that never varies
    reward_rmse: float
    termination: TerminationScore
    uncertainty_rank_correlation: float  # Spearman's, with the true one-step error
    uncertainty_known: float  # the 0.99 quantile of what it says of these real steps; NaN where it says nothing
    trust_horizon_steps: int | None  # None: too few episodes to say

    def figures(self) -> dict[str, object]:
        """JSON values for provenance."""
        known = {str(k): error.world for k, error in self.errors.items() if math.isfinite(error.world)}
        head = {
            "reward_r2": self.reward_r2,
            "reward_rmse": self.reward_rmse,
            "uncertainty_known": self.uncertainty_known,
        }
        ends = {f"termination_{name}": value for name, value in vars(self.termination).items()}
        numbers = {name: value for name, value in {**head, **ends}.items() if math.isfinite(value)}
        return {
            "k_step_nrmse": known,
            "trust_horizon_steps": self.trust_horizon_steps,
            "trust_tau": TAU,
            "held_out_episodes": self.episodes,
            "held_out_steps": self.steps,
            **numbers,
        }


def evaluate(world: World, episodes: Sequence[Episode], training: Sequence[Episode]) -> Evaluation:
    """Holds the world against episodes it has not seen, nor the linear model, which is fitted on `training`.

    A world that cannot be started from an observation (the oracle of an environment whose state none tells) has no
    figures of its own: NaN, beside those of the two controls.
    """
    pictures = has_pictures(episodes)
    frames = world.context_frames
    windows = cut_windows(episodes, max(HORIZONS), MAX_PICTURE_WINDOWS if pictures else MAX_WINDOWS, frames)
    scale = spread([*training, *episodes])
    if "context" not in world.spec.capabilities:
        return _ungrounded(world, windows, episodes, training, scale)
    forecasts, rollout = forecast(world, windows, PICTURE_COPIES if pictures else COPIES)
    still = np.broadcast_to(windows.truth[:, :1], windows.truth.shape)
    columns = {
        "world": nrmse(forecasts, windows, scale),
        "persistence": nrmse(still, windows, scale),
        "linear": _linear_errors(world, windows, training, scale),
    }
    errors = _by_horizon(columns, windows)
    steps = cut_windows(episodes, 1, MAX_PICTURE_TRANSITIONS if pictures else MAX_TRANSITIONS, frames)
    predicted, ahead = forecast(world, steps, copies=1)
    missed = np.sqrt((((predicted - steps.truth) / scale)[:, 1] ** 2).mean(axis=-1))
    reward_r2, reward_rmse = _reward_fit(steps.reward[:, 0], ahead.reward[:, 0])
    return Evaluation(
        episodes=len(episodes),
        steps=sum(len(episode) for episode in episodes),
        errors=errors,
        reward_r2=reward_r2,
        reward_rmse=reward_rmse,
        termination=termination_score(steps.terminated[:, 0], ahead.termination_probability[:, 0]),
        uncertainty_rank_correlation=_rank_correlation(ahead.uncertainty[:, 0], missed),
        uncertainty_known=_quantile(ahead.uncertainty[:, 0]),
        trust_horizon_steps=_trust(windows, rollout),
    )


def _by_horizon(columns: Mapping[str, Array], windows: Windows) -> dict[int, KStepError]:
    alive = windows.valid.sum(axis=0)
    nothing = KStepError(**dict.fromkeys(columns, _NOTHING), windows=0)  # longer than every episode
    return {
        k: KStepError(**{name: float(column[k - 1]) for name, column in columns.items()}, windows=int(alive[k - 1]))
        if k <= len(alive)
        else nothing
        for k in HORIZONS
    }


def _ungrounded(
    world: World, windows: Windows, episodes: Sequence[Episode], training: Sequence[Episode], scale: Array
) -> Evaluation:
    columns = {
        "world": np.full(windows.valid.shape[1], np.nan),
        "persistence": nrmse(np.broadcast_to(windows.truth[:, :1], windows.truth.shape), windows, scale),
        "linear": _linear_errors(world, windows, training, scale),
    }
    ends, steps = sum(episode.terminated for episode in episodes), sum(len(episode) for episode in episodes)
    return Evaluation(
        episodes=len(episodes),
        steps=steps,
        errors=_by_horizon(columns, windows),
        reward_r2=_NOTHING,
        reward_rmse=_NOTHING,
        termination=TerminationScore(
            base_rate=ends / steps,
            precision=_NOTHING,
            recall=_NOTHING,
            average_precision=_NOTHING,
            calibration_error=_NOTHING,
        ),
        uncertainty_rank_correlation=_NOTHING,
        uncertainty_known=_NOTHING,
        trust_horizon_steps=None,
    )


def evaluate_on(world: World, provenance: Provenance, dataset: Dataset) -> Evaluation:
    """Evaluates on a dataset: its held-out part if the world was trained on it, else half of its episodes.

    Raises InvalidInput if its spaces are not the world's.
    """
    for name in ("observation_space", "action_space"):
        found, wanted = getattr(dataset, name), getattr(world.spec, name)
        if found != wanted:
            raise InvalidInput("dataset", f"its {name} {found} is not the world's {wanted}")
    trained_on_it = dataset.hash == provenance.dataset_hash
    training, held_out = split(dataset.episodes, HELD_OUT_SHARE if trained_on_it else 0.5)
    return evaluate(world, held_out, training)


def _linear_errors(world: World, windows: Windows, training: Sequence[Episode], scale: Array) -> Array:
    try:
        linear = registry.create("linear", world.spec)
    except InvalidInput:
        return np.full(windows.valid.shape[1], np.nan)
    linear.prepare(training)
    return nrmse(forecast(linear, windows)[0], windows, scale)


def _reward_fit(true: Array, predicted: Array) -> tuple[float, float]:
    squared = float(((predicted - true) ** 2).mean())
    variance = float(true.var())
    return (1 - squared / variance if variance > 1e-12 else _NOTHING), math.sqrt(squared)


def termination_score(true: Array, probability: Array) -> TerminationScore:
    """Scores probabilities (N,) against true ends (N,) bool."""
    said = probability > 0.5
    hits, ends = int((said & true).sum()), int(true.sum())
    order = np.argsort(-probability, kind="stable")
    found = np.cumsum(true[order])
    average = float((found / np.arange(1, len(true) + 1))[true[order]].mean()) if ends else _NOTHING
    bins = np.minimum((probability * 10).astype(int), 9)
    gaps = np.bincount(bins, weights=probability - true, minlength=10)
    return TerminationScore(
        base_rate=ends / len(true),
        precision=hits / int(said.sum()) if said.any() else _NOTHING,
        recall=hits / ends if ends else _NOTHING,
        average_precision=average,
        calibration_error=float(np.abs(gaps).sum() / len(true)),
    )


def _quantile(uncertainty: Array) -> float:
    """Beyond which a step counts as outside the support; NaN where the world says nothing."""
    return float(np.quantile(uncertainty, SUPPORT_QUANTILE)) if np.isfinite(uncertainty).all() else _NOTHING


def _rank_correlation(left: Array, right: Array) -> float:
    if len(left) < 3 or not np.isfinite(left).all() or np.ptp(left) == 0 or np.ptp(right) == 0:
        return _NOTHING
    ranks = [np.argsort(np.argsort(values, kind="stable"), kind="stable") for values in (left, right)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _trust(windows: Windows, rollout: Rollout) -> int | None:
    """The trust horizon on these windows, of the mean over the copies that still run."""
    copies = len(rollout.reward) // len(windows)
    imagined, runs = matrix(rollout.observation, 2), rollout.alive
    observation, valid = mean_while_running(
        imagined.reshape(len(windows), copies, *imagined.shape[1:]), runs.reshape(len(windows), copies, -1)
    )
    reality = Traces(
        observation=windows.truth,
        reward=windows.reward,
        terminated=windows.terminated,
        truncated=windows.truncated,
        valid=windows.valid,
        unit=windows.unit,
    )
    nothing = np.zeros(windows.valid.shape, dtype=bool)
    dream = Traces(
        observation=observation,
        reward=np.zeros_like(windows.reward),
        terminated=nothing,
        truncated=nothing,
        valid=valid,
        unit=windows.unit,
    )
    curve = horizon_error_curve(reality, dream)
    return None if np.isnan(curve.error[0]) else trust_horizon(curve)
