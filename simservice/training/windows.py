"""Cuts windows out of recorded episodes and has a world forecast them, open loop. Pictures stay bytes until pooled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from simservice.fidelity.pixels import is_picture, seen
from simservice.types import Array, Context, Episode, Leaves
from simservice.worlds.rollout import Rollout, imagine
from simservice.worlds.world import World

COPIES = 5  # of every window, each with luck of its own; the forecast is their mean
PICTURE_COPIES = 3  # a step of pictures costs a hundred of a vector
_BYTES_AT_ONCE = 2**26  # of imagined frames that are held before they are pooled


@dataclass(frozen=True)
class Windows:
    """Starts in recorded episodes and what followed, up to `horizon` steps: the reality a forecast is held against."""

    history: Context  # the frames up to and with each start; rows that have fewer repeat their first in front
    frames: Array  # (N,) how many of the history's frames each window has, its start among them
    action: dict[str, Array]  # (N, H, ...)
    truth: Array  # (N, H + 1, D) float64, pictures pooled; after a window's end the last row again
    reward: Array  # (N, H)
    terminated: Array  # (N, H) bool
    truncated: Array  # (N, H) bool
    valid: Array  # (N, H) bool
    unit: Array  # (N,) which episode

    def __len__(self) -> int:
        return len(self.unit)


def has_pictures(episodes: Sequence[Episode]) -> bool:
    """Whether an observation leaf holds frames."""
    return any(is_picture(array, 1) for array in episodes[0].observation.values())


def cut_windows(episodes: Sequence[Episode], horizon: int, limit: int, frames: int = 1) -> Windows:
    """At most `limit` windows, their starts evenly spread over all steps, each grounded in up to `frames` frames.

    A horizon beyond the longest episode is cut to it.
    """
    horizon = min(horizon, max(len(episode) for episode in episodes))
    starts = [(unit, step) for unit, episode in enumerate(episodes) for step in range(len(episode))]
    chosen = [
        starts[i] for i in np.unique(np.linspace(0, len(starts) - 1, min(limit, len(starts))).round().astype(int))
    ]
    unit = np.array([unit for unit, _ in chosen])
    first = np.array([step for _, step in chosen])
    last = np.array([len(episodes[i]) for i in unit])[:, None]  # of the observations; one more than the last action
    row = np.minimum(first[:, None] + np.arange(horizon + 1), last)
    step = np.minimum(first[:, None] + np.arange(horizon), last - 1)
    before = np.maximum(first[:, None] + np.arange(1 - frames, 1), 0)
    valid = first[:, None] + np.arange(horizon) < last
    ending = valid & (step == last - 1)
    at = list(zip(unit.tolist(), row, step, before, strict=True))
    return Windows(
        history=Context(
            {
                path: np.stack([episodes[i].observation[path][rows] for i, _, _, rows in at])
                for path in episodes[0].observation
            },
            {
                path: np.stack([episodes[i].action[path][rows[:-1]] for i, _, _, rows in at])
                for path in (episodes[0].action if frames > 1 else ())
            },
        ),
        frames=np.minimum(first + 1, frames),
        action={
            path: np.stack([episodes[i].action[path][steps] for i, _, steps, _ in at]) for path in episodes[0].action
        },
        truth=np.stack([seen(_rows(episodes[i].observation, rows), 1) for i, rows, _, _ in at]),
        reward=np.stack([episodes[i].reward[steps] for i, _, steps, _ in at]),
        terminated=ending & np.array([episodes[i].terminated for i in unit])[:, None],
        truncated=ending & np.array([episodes[i].truncated for i in unit])[:, None],
        valid=valid,
        unit=unit,
    )


def forecast(world: World, windows: Windows, copies: int = COPIES) -> tuple[Array, Rollout]:
    """The mean forecast (N, H + 1, D) of the observations over several copies of each window, and all copies.

    The rollout's observation is one leaf "seen", pooled; a window's copies follow one another.
    """
    lanes, parts = len(windows) * copies, list[tuple[Array, Rollout]]()
    frame = sum(array[0, 0].nbytes for array in windows.history.observation.values())
    at_once = max(16, _BYTES_AT_ONCE // (frame * windows.truth.shape[1]) // 16 * 16)
    for frames in np.unique(windows.frames).tolist():
        alike = np.flatnonzero(np.repeat(windows.frames, copies) == frames)
        for first in range(0, len(alike), at_once):
            chosen = alike[first : first + at_once]
            parts.append((chosen, _imagined(world, windows, chosen, copies, frames)))
    order = np.argsort(np.concatenate([chosen for chosen, _ in parts]))

    def joined(name: str) -> Array:
        whole: Array = np.concatenate([getattr(part, name) for _, part in parts])[order]
        return whole

    looked = np.concatenate([part.observation["seen"] for _, part in parts])[order]
    rollout = Rollout(
        observation={"seen": looked},
        reward=joined("reward"),
        terminated=joined("terminated"),
        termination_probability=joined("termination_probability"),
        uncertainty=joined("uncertainty"),
    )
    assert len(looked) == lanes
    return looked.reshape(len(windows), copies, *looked.shape[1:]).mean(axis=1), rollout


def _imagined(world: World, windows: Windows, lanes: Array, copies: int, frames: int) -> Rollout:
    """Some of the lanes, all with equally many frames of history; luck is the lane's number."""
    rows = lanes // copies
    context = Context(
        {path: value[rows, -frames:] for path, value in windows.history.observation.items()},
        {path: value[rows, value.shape[1] + 1 - frames :] for path, value in windows.history.action.items()},
    )
    actions = {path: value[rows] for path, value in windows.action.items()}
    rollout = imagine(world, actions, context=context, seeds=lanes.astype(np.int64))
    return Rollout(
        observation={"seen": seen(rollout.observation, 2)},
        reward=rollout.reward,
        terminated=rollout.terminated,
        termination_probability=rollout.termination_probability,
        uncertainty=rollout.uncertainty,
    )


def spread(episodes: Sequence[Episode]) -> Array:
    """(D,) what errors are divided by: the standard deviation of every feature over the episodes; 1 where constant.

    The blocks of one picture have one scale, so that a block that hardly ever changes does not rule the error; beside
    other leaves a picture counts as one of them, not as hundreds of features.
    """
    parts, weights = list[Array](), list[float]()
    shares = has_pictures(episodes)
    for path, array in episodes[0].observation.items():
        rows = np.concatenate([seen({path: episode.observation[path]}, 1) for episode in episodes])
        deviation: Array = rows.std(axis=0)
        if is_picture(array, 1):
            deviation = np.full_like(deviation, np.sqrt(np.mean(deviation**2)))
        parts.append(np.where(deviation > 1e-9, deviation, 1.0))
        weights.append(1.0 / len(deviation) if shares else 1.0)
    width, total = sum(map(len, parts)), sum(len(part) * weight for part, weight in zip(parts, weights, strict=True))
    if not shares:
        return np.concatenate(parts)
    return np.concatenate([part / np.sqrt(weight * width / total) for part, weight in zip(parts, weights, strict=True)])


def nrmse(forecasts: Array, windows: Windows, scale: Array) -> Array:
    """(H,) error at every lead over the windows alive there; NaN where none is."""
    squared = (((forecasts - windows.truth) / scale)[:, 1:] ** 2).mean(axis=-1)
    alive = windows.valid.sum(axis=0)
    total = np.where(windows.valid, squared, 0.0).sum(axis=0)
    return np.sqrt(np.where(alive > 0, total / np.maximum(alive, 1), np.nan))


def open_loop_errors(world: World, windows: Windows, scale: Array, copies: int = 3) -> Array:
    """(H,) the error of the forecast 1 ... H steps ahead; NaN where no window is alive."""
    return nrmse(forecast(world, windows, copies)[0], windows, scale)


def overall(errors: Array) -> float:
    """One number to stop training by: the geometric mean of the errors 1 ... H steps ahead, lower is better."""
    known = errors[np.isfinite(errors)]
    return float(np.exp(np.log(np.maximum(known, 1e-12)).mean())) if len(known) else math.inf


def _rows(leaves: Leaves, rows: Array) -> Leaves:
    return {path: array[rows] for path, array in leaves.items()}
