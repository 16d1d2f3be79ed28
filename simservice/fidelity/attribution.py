"""Why the numbers moved: reality, the served model, the policy or the rig. Knows evidence, not where it comes from.

| monitor's residual | served model's | out of support | cause                        |
|--------------------|----------------|----------------|------------------------------|
| alarm              | up             | any            | reality changed              |
| ok                 | up             | ok             | the served model regressed   |
| ok                 | up             | up             | the policy left the support  |
| alarm              | ok             | any            | tolerated change, or the rig |
| ok                 | ok             | up             | a policy shift only          |
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from simservice.errors import InvalidInput
from simservice.fidelity.drift import DriftReading
from simservice.fidelity.probe_scores import ProbeStatistics
from simservice.fidelity.traces import Traces
from simservice.types import Array

SERVED_MODEL = "served_model"
POLICY_SHIFT = "policy_shift"
SUPPORT_QUANTILE = 0.99
"""Of the uncertainty on reference data: what is beyond counts as out of support."""

TOLERANCE = 0.01
"""Of the spread of one-step changes: a served world that errs by less errs by nothing an agent could mind."""

COARSE = 0.1  # in the logarithm of an error: what differs by less is a tie, and errors within the tolerance all are


class Cause(StrEnum):
    """What moved."""

    NOTHING = "nothing"
    REALITY = "reality changed"
    SERVED_MODEL = "the served model regressed or a replica is broken"
    POLICY = "the policy moved outside the support"
    RIG = "the change is tolerated by the served model, or the probe rig changed"
    POLICY_SHIFT = "the policy shifted, and the model bears it"


ACTIONS = {
    Cause.NOTHING: "none",
    Cause.REALITY: "page; train again on new data; mark sessions as of a stale world",
    Cause.SERVED_MODEL: "roll the model version back; compare replicas",
    Cause.POLICY: "warn the tenant; shorten the horizon",
    Cause.RIG: "open a ticket; look at the probe rig first",
    Cause.POLICY_SHIFT: "note it",
}


@dataclass(frozen=True)
class Attribution:
    """A verdict and what to do."""

    cause: Cause
    action: str


def attribute(*, reality_alarm: bool, served_up: bool, outside_support: bool) -> Attribution:
    """The row of the matrix."""
    if reality_alarm:
        cause = Cause.REALITY if served_up else Cause.RIG
    elif served_up:
        cause = Cause.POLICY if outside_support else Cause.SERVED_MODEL
    else:
        cause = Cause.POLICY_SHIFT if outside_support else Cause.NOTHING
    return Attribution(cause, ACTIONS[cause])


def attribute_readings(reality: DriftReading, served: DriftReading) -> Attribution:
    """From a detector of reality's kinds and one of the served world's (SERVED_MODEL and POLICY_SHIFT)."""
    return attribute(
        reality_alarm=bool(reality.alarmed),
        served_up=SERVED_MODEL in served.alarmed,
        outside_support=POLICY_SHIFT in served.alarmed,
    )


@dataclass(frozen=True)
class ServedScorer:
    """Statistics of probes that tell of the served world instead of reality.

    Not ranked within strata of uncertainty: a world that errs more where it knows less does err more.
    """

    scale: Array  # (D,) the spread of one-step changes
    known: float  # uncertainty up to which a step is within the support

    @classmethod
    def fitted(cls, reference: Traces, uncertainty: Array) -> ServedScorer:
        """From reference steps and how uncertain (N, H) the served world is about each."""
        change = np.diff(reference.observation, axis=1)[reference.valid]
        spread = change.std(axis=0)
        largest = float(spread.max())
        if not largest > 0:
            raise InvalidInput("reference", "never changes; there is nothing to compare errors with")
        return cls(
            np.maximum(spread, 1e-6 * largest), float(np.quantile(uncertainty[reference.valid], SUPPORT_QUANTILE))
        )

    def measure(self, real: Traces, prediction: Array, uncertainty: Array) -> ProbeStatistics:
        """Of each window, from one-step predictions (N, H, D) at its real states and uncertainties (N, H)."""
        valid, length = real.valid, real.valid.sum(axis=1)
        if not length.all():
            raise InvalidInput("probe", "has no step")
        error = np.mean(((prediction - real.observation[:, 1:]) / self.scale) ** 2, axis=2)
        logarithm = np.log(np.where(valid, error, 1.0) + TOLERANCE**2)
        size = np.where(valid, np.round(logarithm / COARSE) * COARSE, 0.0)
        outside = np.where(valid, uncertainty > self.known, False)
        windows = len(length)
        return ProbeStatistics(
            scores={
                SERVED_MODEL: np.stack([size.sum(axis=1) / length, np.where(valid, size, -np.inf).max(axis=1)], axis=1),
                POLICY_SHIFT: (outside.sum(axis=1) / length)[:, None],
            },
            design=np.zeros((windows, 0, 0)),
            moment={SERVED_MODEL: np.zeros((windows, 0, 0)), POLICY_SHIFT: np.zeros((windows, 0, 0))},
        )
