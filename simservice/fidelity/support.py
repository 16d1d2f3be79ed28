"""How much of what agents do lies where the world knows nothing: distance to reference data, and the share beyond."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from simservice.errors import InvalidInput
from simservice.fidelity.bootstrap import bounds, unit_weights
from simservice.fidelity.metric import UNKNOWN, Score, metric
from simservice.fidelity.traces import Traces, per_unit
from simservice.types import Array

QUANTILE = 0.99
"""Of the uncertainty on reference data; what is beyond is out of support, so that reality itself has a share of 1 %."""

NEIGHBOUR = 5
MOST_REFERENCE_POINTS = 5000


@dataclass(frozen=True)
class SupportDistance:
    """Uncertainty for worlds that state none: the distance to the fifth nearest reference step, in spreads."""

    points: Array  # (N, D + A) standardised
    mean: Array
    scale: Array

    @classmethod
    def fitted(cls, observation: Array, action: Array, seed: int = 0) -> SupportDistance:
        """Of reference steps (N, D) and (N, A); of many, a part drawn at random."""
        inputs = np.concatenate([observation, action], axis=1)
        if len(inputs) <= NEIGHBOUR:
            raise InvalidInput("reference", f"holds {len(inputs)} steps; a distance needs more than {NEIGHBOUR}")
        spread = inputs.std(axis=0)
        mean, scale = inputs.mean(axis=0), np.where(spread > 1e-9, spread, 1.0)
        chosen = np.random.default_rng(seed).permutation(len(inputs))[:MOST_REFERENCE_POINTS]
        return cls((inputs[chosen] - mean) / scale, mean, scale)

    def __call__(self, observation: Array, action: Array) -> Array:
        """(N,)."""
        inputs = (np.concatenate([observation, action], axis=1) - self.mean) / self.scale
        return np.asarray(cKDTree(self.points).query(inputs, k=[NEIGHBOUR])[0][:, 0])

    def of(self, traces: Traces) -> Array:
        """(N, H) of the real steps; 0 where a window has none."""
        if traces.action is None:
            raise InvalidInput("action", "the traces do not tell what was done")
        found = np.zeros(traces.valid.shape)
        found[traces.valid] = self(traces.observation[:, :-1][traces.valid], traces.action[traces.valid])
        return found


def out_of_support(real: Traces, imagined: Traces, *, seed: int = 0) -> Score:
    """The share of imagined steps whose uncertainty exceeds the 0.99 quantile of that on real reference steps.

    Unknown where either side states none. 0.01 is what reality itself would get.
    """
    if real.uncertainty is None or imagined.uncertainty is None or not (real.valid.any() and imagined.valid.any()):
        return UNKNOWN
    known = float(np.quantile(real.uncertainty[real.valid], QUANTILE))
    beyond = (imagined.uncertainty > known) & imagined.valid
    sums = per_unit(imagined.unit, np.stack([beyond.sum(axis=1), imagined.valid.sum(axis=1)], axis=1).astype(float))
    sums = sums[sums[:, 1] > 0]
    resampled = unit_weights(len(sums), seed=seed) @ sums
    value = float(sums[:, 0].sum() / sums[:, 1].sum())
    return Score(value, *bounds(resampled[:, 0] / resampled[:, 1], value), len(sums))


@metric(
    "out_of_support_ratio",
    level="L4",
    evidence="windows",
    unit="episode",
    perfect=1.0 - QUANTILE,
    convention=f"share of imagined steps beyond the {QUANTILE} quantile of uncertainty on real steps",
    floor="halves",
)
def out_of_support_ratio(real: Traces, imagined: Traces) -> Score:
    """See out_of_support."""
    return out_of_support(real, imagined)
