"""A7d: rewards and ends, with their base rates; and whether time limits in the data leak into ends."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from simservice.data.episodes import Dataset, fingerprint
from simservice.proving.recipe import Check
from simservice.proving.rows.ground import Subject, check
from simservice.training.evaluate import termination_score
from simservice.training.trainer import TrainConfig, train
from simservice.training.windows import cut_windows, forecast
from simservice.worlds.checkpoint import load

STEPS = 4_000
LIMIT_STEPS, LIMIT_UPDATES = 600, 20  # what time limits are told in, and how long the two worlds learn from it
LUCKY = ("simservice/FlipBall-v0",)  # the truth itself, drawn once more, foretells this reward with precision .44
SPARSE = 0.5  # a reward that is one value more often than this is sparse


def reward_and_end(subject: Subject) -> list[Check]:
    """One step ahead of fresh real states."""
    windows = cut_windows(subject.fresh(STEPS), 1, 2_048, subject.world.context_frames)
    _, rollout = forecast(subject.world, windows, copies=1)
    reward, guess = windows.reward[:, 0], rollout.reward[:, 0]
    found: list[Check] = []
    values, counts = np.unique(reward, return_counts=True)
    if len(values) > 1 and counts.max() > SPARSE * len(reward):
        high = reward == values.max()
        shifted = (guess - guess.min()) / max(float(np.ptp(guess)), 1e-9)
        precision = termination_score(high, shifted).average_precision
        lucky = subject.env_id in LUCKY
        what = f"sparse reward, average precision (base rate {high.mean():.3f}{'; luck decides it' if lucky else ''})"
        found.append(check("A7d", what, precision, least=None if lucky else 0.95))
    elif len(values) > 1:
        left = 1 - ((guess - reward) ** 2).mean() / reward.var()
        found.append(check("A7d", "dense reward, R squared", float(left), least=0.95))
    ends = termination_score(windows.terminated[:, 0], rollout.termination_probability[:, 0])
    if ends.base_rate > 0:
        least = min(10 * ends.base_rate, 0.95)  # ten times a base rate above a tenth is more than there is
        what = f"ends, average precision (base rate {ends.base_rate:.3f})"
        found.append(check("A7d", what, ends.average_precision, least=least))
    return [*found, check("A7d", "ends, calibration error", ends.calibration_error, most=0.05)]


def time_limits(subject: Subject) -> list[Check]:
    """Two short trainings with this world's settings; see time_limits_leak()."""
    spec = subject.world.spec
    episodes = tuple(subject.fresh(LIMIT_STEPS))
    dataset = Dataset(
        episodes=episodes,
        observation_space=spec.observation_space,
        action_space=spec.action_space,
        env_id=subject.env_id,
        env_kwargs=dict(subject.env_kwargs),
        max_episode_steps=spec.max_episode_steps,
        hash=fingerprint(episodes),
        real_steps=LIMIT_STEPS,
    )
    with tempfile.TemporaryDirectory() as folder:
        return time_limits_leak(dataset, subject.world.family, asdict(subject.world.config), Path(folder))


def time_limits_leak(dataset: Dataset, family: str, overrides: Mapping[str, Any], folder: Path) -> list[Check]:
    """Trains twice, briefly: last steps told truncated, and told unfinished. The worlds must be equal, bit for bit."""
    cut = _relabelled(dataset, True)
    worlds = []
    for name, data in (("truncated", cut), ("unfinished", _relabelled(dataset, False))):
        train(data, family, folder / name, config=TrainConfig(overrides=overrides, most_updates=LIMIT_UPDATES))
        worlds.append(load(folder / name).world.weights())
    different = sum(not worlds[0][name].equal(worlds[1][name]) for name in worlds[0])
    return [check("A7d", "tensors changed by telling time limits otherwise", float(different), most=0)]


def _relabelled(dataset: Dataset, truncated: bool) -> Dataset:
    episodes = tuple(replace(episode, truncated=truncated) for episode in dataset.episodes)
    return replace(dataset, episodes=episodes, hash=fingerprint(episodes))
