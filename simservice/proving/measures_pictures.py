"""Figures of a world of pictures, held against fresh real episodes: what is where, not how alike the frames look.

Each is given beside what persistence gets. Names that recipes use in their bars:

    catch_figures     shown_exact, frame_accuracy, open_loop_exact, reward_accuracy, end_accuracy, reward_ap, mse,
                      mse_of_persistence
    cartpole_figures  angle_correlation_10, angle_error_10_of_persistence, object_psnr_0, object_psnr_1
    action_figures    action_ratio: one-step error under shuffled actions over that under the true ones
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from simservice.fidelity.pixels import is_picture
from simservice.grounds import cartpole_pixels, catch
from simservice.proving.recipe import Figures, Trial
from simservice.training.evaluate import termination_score
from simservice.training.windows import cut_windows
from simservice.types import Array, Context, Episode
from simservice.worlds.rollout import Rollout, imagine
from simservice.worlds.world import World

CATCH_STEPS = 700  # 100 fresh episodes
CARTPOLE_STEPS = 1_500
WINDOWS = 96


@dataclass(frozen=True)
class Dreams:
    """Windows of reality and what a world dreams from their starts, under the same actions."""

    real: Array  # (N, H + 1, height, width, channels) uint8
    dreamt: Array  # the same shape; row 0 is what the world shows of the real start
    reward: Array  # (N, H)
    terminated: Array  # (N, H) bool
    valid: Array  # (N, H) bool
    rollout: Rollout

    @property
    def still(self) -> Array:
        """What persistence dreams."""
        return np.broadcast_to(self.real[:, :1], self.real.shape)


def dream(
    world: World,
    episodes: Sequence[Episode],
    horizon: int,
    limit: int = WINDOWS,
    *,
    from_begin: bool = False,
    shuffle: bool = False,
) -> Dreams:
    """Open loop from real frames, grounded in as many as the world asks for; from_begin: in the first ones only.

    shuffle deals the actions of all windows out anew.
    """
    path = next(path for path, array in episodes[0].observation.items() if is_picture(array, 1))
    windows = cut_windows(episodes, horizon, 10**9 if from_begin else limit, world.context_frames)
    horizon = windows.reward.shape[1]
    firsts = np.r_[0, np.flatnonzero(np.diff(windows.unit)) + 1]
    rows = firsts if from_begin else np.arange(len(windows))
    starts = np.concatenate([np.arange(len(episode)) for episode in episodes])
    place = starts[np.unique(np.linspace(0, len(starts) - 1, min(len(windows), len(starts))).round().astype(int))]
    real = np.stack([_frames(episodes[windows.unit[i]], path, int(place[i]), horizon) for i in rows])
    chance = np.random.default_rng(0)
    order = chance.permutation(len(rows)) if shuffle else np.arange(len(rows))
    parts: list[tuple[Array, Rollout]] = []
    for frames in np.unique(windows.frames[rows]).tolist():
        alike = np.flatnonzero(windows.frames[rows] == frames)
        chosen = rows[alike]
        context = Context(
            {name: value[chosen, -frames:] for name, value in windows.history.observation.items()},
            {name: value[chosen, value.shape[1] + 1 - frames :] for name, value in windows.history.action.items()},
        )
        actions = {name: value[rows[order[alike]]] for name, value in windows.action.items()}
        parts.append((alike, imagine(world, actions, context=context, seeds=alike.astype(np.int64))))
    back = np.argsort(np.concatenate([alike for alike, _ in parts]))

    def joined(name: str) -> Array:
        whole: Array = np.concatenate([getattr(rollout, name) for _, rollout in parts])[back]
        return whole

    dreamt = np.concatenate([rollout.observation[path] for _, rollout in parts])[back]
    rollout = Rollout(
        observation={path: dreamt},
        reward=joined("reward"),
        terminated=joined("terminated"),
        termination_probability=joined("termination_probability"),
        uncertainty=joined("uncertainty"),
    )
    return Dreams(real, dreamt, windows.reward[rows], windows.terminated[rows], windows.valid[rows], rollout)


def catch_figures(trial: Trial) -> Figures:
    """Catch: cells of ball and paddle one step ahead and through whole episodes; reward and end."""
    episodes = trial.fresh(CATCH_STEPS)
    step, whole = dream(trial.world, episodes, 1, 10**9), dream(trial.world, episodes, catch.STEPS, from_begin=True)
    exact = _same_cells(whole)
    dream_error, still_error = _squared(whole.real, whole.dreamt), _squared(whole.real, whole.still)
    probability = whole.rollout.termination_probability
    ends = termination_score(whole.terminated[whole.valid], probability[whole.valid])
    caught = termination_score((whole.reward > 0.5)[whole.valid], _unit(whole.rollout.reward)[whole.valid])
    return {
        "shown_exact": float(_same(step.real[:, 0], step.dreamt[:, 0]).mean()),
        "frame_accuracy": float(_same_cells(step)[:, 0].mean()),
        "open_loop_exact": float(exact[whole.valid].mean()),
        "open_loop_exact_last": float(exact[:, -1].mean()),
        "persistence_exact_last": float(_same_cells(_still(whole))[:, -1].mean()),
        "reward_accuracy": float((np.abs(whole.rollout.reward - whole.reward) < 0.5)[whole.valid].mean()),
        "end_accuracy": float(((probability > 0.5) == whole.terminated)[whole.valid].mean()),
        "end_base_rate": ends.base_rate,
        "end_average_precision": ends.average_precision,
        "end_calibration_error": ends.calibration_error,
        "reward_ap": caught.average_precision,
        "mse": dream_error,
        "mse_of_persistence": dream_error / still_error,
    }


def cartpole_figures(trial: Trial) -> Figures:
    """CartPole in pictures: the angle read from dreamt frames ten steps on; frames on the mask of cart and pole."""
    episodes = trial.fresh(CARTPOLE_STEPS)
    found = dream(trial.world, episodes, 10)
    alive = found.valid[:, -1]
    real, dreamt, still = (
        cartpole_pixels.read(frames[alive, -1]) for frames in (found.real, found.dreamt, found.still)
    )
    # A frame without a pole is as wrong as one can be: it counts as an upright pole in the middle.
    angles = np.nan_to_num(dreamt["angle"])
    error, persistence = (
        float(np.sqrt(np.mean((np.nan_to_num(guess["angle"]) - real["angle"]) ** 2))) for guess in (dreamt, still)
    )
    return {
        "angle_correlation_10": float(np.corrcoef(angles, real["angle"])[0, 1]) if np.ptp(angles) > 0 else 0.0,
        "angle_error_10": error,
        "angle_error_10_persistence": persistence,
        "angle_error_10_of_persistence": error / persistence,
        "pole_seen_10": float(np.isfinite(dreamt["angle"]).mean()),
        "object_psnr_0": object_psnr(found.real[:, 0], found.dreamt[:, 0]),
        "object_psnr_1": object_psnr(found.real[:, 1], found.dreamt[:, 1]),
        "object_psnr_1_persistence": object_psnr(found.real[:, 1], found.still[:, 1]),
    }


def action_figures(trial: Trial, steps: int = 1_000) -> Figures:
    """Whether the world obeys: pixel error one step ahead under shuffled actions, over that under the true ones."""
    episodes = trial.fresh(steps)
    true, dealt = (dream(trial.world, episodes, 1, 512, shuffle=shuffle) for shuffle in (False, True))
    own, others = _squared(true.real[:, 1:], true.dreamt[:, 1:]), _squared(dealt.real[:, 1:], dealt.dreamt[:, 1:])
    still = _squared(true.real[:, 1:], true.still[:, 1:])
    return {"action_ratio": others / max(own, 1e-12), "mse_1": own, "mse_1_of_persistence": own / max(still, 1e-12)}


def object_psnr(real: Array, dreamt: Array) -> float:
    """Decibels on the pixels where cart or pole are, in reality or in the dream, over all frames."""
    mask = cartpole_pixels.objects(real) | cartpole_pixels.objects(dreamt)
    error = (real[..., -3:].astype(np.float64) - dreamt[..., -3:])[mask]
    return float(10 * np.log10(255.0**2 / max(float(np.mean(error**2)), 1e-9)))


def _frames(episode: Episode, path: str, first: int, horizon: int) -> Array:
    """(H + 1, ...) frames from `first` on; after the episode's end its last one again."""
    frames: Array = episode.observation[path][np.minimum(first + np.arange(horizon + 1), len(episode))]
    return frames


def _same_cells(found: Dreams) -> Array:
    """(N, H) bool of the frames after the start."""
    return _same(found.real[:, 1:], found.dreamt[:, 1:])


def _same(real: Array, dreamt: Array) -> Array:
    """(...) bool of frames (..., 32, 32, 3): ball and paddle where they are in reality, one of each."""
    truth, seen = catch.read(real), catch.read(dreamt)
    same: Array = seen["clean"] & np.all(
        [seen[name] == truth[name] for name in ("ball_row", "ball_column", "paddle")], axis=0
    )
    return same


def _still(found: Dreams) -> Dreams:
    return Dreams(found.real, found.still, found.reward, found.terminated, found.valid, found.rollout)


def _squared(real: Array, dreamt: Array) -> float:
    """Mean squared error of frames in [0, 1]."""
    total = sum(float(np.mean((a.astype(np.float32) - b) ** 2)) for a, b in zip(real, dreamt, strict=True))
    return total / len(real) / 255.0**2


def _unit(reward: Array) -> Array:
    """A reward between -1 and 1 as a score in [0, 1]."""
    return np.clip((reward + 1) / 2, 0.0, 1.0)
