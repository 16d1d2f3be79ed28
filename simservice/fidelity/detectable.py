"""The smallest change of a world that so many probes would find: published, so that silence is not taken for safety."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from simservice.errors import InvalidInput
from simservice.fidelity.probe_scores import ProbeScorer
from simservice.fidelity.sequential import detectable_shift
from simservice.fidelity.traces import Traces
from simservice.types import Array

LEARNING = 2.0
"""How much larger than by the planning rule a change must be whose direction is not known beforehand. Measured on a
noisy CartPole whose force falls by a tenth: the rule says 14 probes, half of the streams took 61: twice the size."""


@dataclass(frozen=True, kw_only=True)
class DetectableChange:
    """What half of all watches would find within so many probes; smaller changes may stay unseen."""

    probes: int
    score_shift: float  # of a probe score, in its standard deviations
    observation: Array  # (D,) lasting error of each dimension's next value, in the observation's units
    reward: float  # lasting error of the reward


def detectable_change(scorer: ProbeScorer, calm: Traces, probes: int, threshold: float) -> DetectableChange:
    """From probes of an unchanged world; `threshold` is the detector's.

    The noise of a world decides: no detector finds in it what is far below its own luck. Longer probes, other starts
    and policies that go where the change shows are the lever.
    """
    if probes < 1:
        raise InvalidInput("probes", f"must be at least 1, found {probes}")
    shift = detectable_shift(probes, threshold)
    observation, reward = scorer.model.deviations(calm)
    size = LEARNING * shift / math.sqrt(float(calm.valid.sum(axis=1).mean()))
    return DetectableChange(
        probes=probes,
        score_shift=shift,
        observation=size * np.median(observation, axis=0),
        reward=size * float(np.median(reward)),
    )
