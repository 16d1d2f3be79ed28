"""What is normal: probes of the real environment from before any change, kept as a Minari dataset and learned from.

The first probes of each policy are the reference that the monitor model is fitted to, the others calibrate it and are
used for nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym

from simservice.data.episodes import Dataset
from simservice.data.minari import free_version, save_dataset
from simservice.errors import InvalidInput
from simservice.fidelity.banks import Calibration
from simservice.fidelity.probe_scores import ProbeScorer
from simservice.fidelity.traces import Traces
from simservice.monitor.rig import MOST_AT_ONCE, RealRig
from simservice.monitor.shadow import probe_traces
from simservice.types import Episode

NORMAL_NUMBERS = 2**40
"""Numbers of the probes that tell what is normal begin here, apart from those that are evidence."""

Progress = Callable[[int, int], None]
"""Called with the probes played since the last call and those there will be."""


@dataclass(frozen=True, kw_only=True)
class NormalConfig:
    """How many real probes of at most `horizon` steps it takes to know what is normal."""

    horizon: int = 20
    reference_probes: int = 1080  # of all policies together
    calibration_probes: int = 2000  # of each policy; fewer, and the rate of false alarms is no longer quite as stated


@dataclass(frozen=True)
class Normal:
    """The monitor model and its calibration, and the episodes they are from."""

    scorer: ProbeScorer
    calibration: Calibration
    reference: Traces
    calm: Traces  # some calibration probes, of all policies
    episodes: dict[str, list[Episode]]  # of the calibration, by policy
    action_space: gym.Space[Any]
    horizon: int
    data_hash: str


def play_normal(
    rig: RealRig, config: NormalConfig, folder: Path, epoch: int, told: Progress = lambda new, total: None
) -> Dataset:
    """Plays all probes in reality as it is now and keeps them as the dataset simservice/monitor-v<epoch>, or above."""
    policies = rig.policies
    each = -(-config.reference_probes // len(policies)) + config.calibration_probes
    total = each * len(policies)
    plays = [rig.plan(NORMAL_NUMBERS * (epoch + 1) + number) for number in range(total)]
    episodes: list[Episode] = []
    for first in range(0, total, MOST_AT_ONCE):
        found = rig.play(plays[first : first + MOST_AT_ONCE])
        episodes += found
        told(len(found), total)
    return save_dataset(
        episodes,
        free_version(f"simservice/monitor-v{epoch}", folder),
        env_id=rig.config.env_id,
        env_kwargs=rig.config.env_kwargs,
        env_attributes=rig.config.attributes,
        root=folder,
        metadata={"epoch": epoch, "horizon": config.horizon, "reference": each - config.calibration_probes},
    )


def learn_normal(dataset: Dataset, config: NormalConfig, seed: int = 0) -> Normal:
    """Fits and calibrates; the same dataset gives the same numbers. Takes any Minari dataset with enough episodes.

    An episode counts with its first `horizon` steps, and under the policy that the dataset names.
    """
    by_policy: dict[str, list[Episode]] = {}
    for episode in dataset.episodes:
        by_policy.setdefault(episode.policy or "unknown", []).append(episode)
    share = int(dataset.metadata.get("reference", -(-config.reference_probes // len(by_policy))))
    fewest = min(len(played) for played in by_policy.values())
    if fewest <= share:
        problem = f"{dataset.dataset_id} has {fewest} episodes of a policy; more than {share} are needed"
        raise InvalidInput("calibration", problem)
    horizon, space = config.horizon, dataset.action_space
    reference = probe_traces([one for played in by_policy.values() for one in played[:share]], space, horizon)
    scorer = ProbeScorer.fitted(reference, seed)
    calm = {name: probe_traces(played[share:], space, horizon) for name, played in by_policy.items()}
    return Normal(
        scorer=scorer,
        calibration=Calibration({name: scorer.measure(traces) for name, traces in calm.items()}),
        reference=reference,
        calm=next(iter(calm.values()))[:500],
        episodes={name: played[share:] for name, played in by_policy.items()},
        action_space=space,
        horizon=horizon,
        data_hash=dataset.hash,
    )
