"""The bars of the front page, once: verdicts, alert rules and tests all read them here."""

from __future__ import annotations

import math

from simservice.fidelity.drift import SUSPECT_SHARE
from simservice.fidelity.exploitation import ALERT as EXPLOITATION
from simservice.fidelity.states import TAU

ERROR = TAU
"""Open-loop error up to which a step ahead is trusted."""

LEAST_STEPS = 15
"""Steps ahead that a world must be trusted for, where nobody says otherwise: the length of branch that agents which
learn from imagined steps usually take."""

RETURN_GAP = 0.10
"""Of the return range; or twice what two batches of reality differ by, if that is more."""

FLOOR_FACTOR = 2.0

RANK_CORRELATION = 0.6
"""Spearman's; below it a choice by imagined returns is hardly better than one at random."""

REWARD_ERROR = 0.2
"""Of the spread of real rewards."""

TERMINATION_F1 = 0.9
TERMINATION_ECE = 0.05
FALSE_SUCCESS = 0.05
OUT_OF_SUPPORT_WARN = 0.05
OUT_OF_SUPPORT = 0.20

DRIFT_LOG10 = 6.0
"""Evidence of a change of reality at which the default detector pages, before it is multiplied by the kinds watched."""

SUSPECT_LOG10 = -math.log10(SUSPECT_SHARE)
"""So far below its threshold evidence is worth a look."""

__all__ = [
    "DRIFT_LOG10",
    "ERROR",
    "EXPLOITATION",
    "FALSE_SUCCESS",
    "FLOOR_FACTOR",
    "LEAST_STEPS",
    "OUT_OF_SUPPORT",
    "OUT_OF_SUPPORT_WARN",
    "RANK_CORRELATION",
    "RETURN_GAP",
    "REWARD_ERROR",
    "SUSPECT_LOG10",
    "TERMINATION_ECE",
    "TERMINATION_F1",
]


def return_gap_bar(floor: float) -> float:
    """The bar of the largest return gap, from the median gap between two batches of reality (NaN: not known)."""
    return max(RETURN_GAP, FLOOR_FACTOR * floor) if floor == floor else RETURN_GAP
