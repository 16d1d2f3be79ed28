"""Makes lanes as cautious as their sessions asked for: ends episodes where their world is not to be trusted.

Knows no tensors. While no lane is cautious a tick asks for `active` and nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simservice.engine.batching import Span
from simservice.types import TRUSTING, Array, Caution

if TYPE_CHECKING:
    from simservice.engine.runner import Stepped

_NEVER = np.iinfo(np.int64).max


class Trust:
    """One entry a lane: after how many steps, beyond which uncertainty, and at what price."""

    def __init__(self, size: int) -> None:
        self.active = False  # whether any lane that was ever opened, and not since by another, is cautious
        self._cautious = np.zeros(size, dtype=np.bool_)
        self._horizon = np.full(size, _NEVER, dtype=np.int64)
        self._most = np.full(size, np.inf)
        self._penalty = np.zeros(size)

    def open(self, lanes: Array, caution: Caution, trust_horizon_steps: int | None) -> None:
        """Makes new lanes obey a caution, or none."""
        cautious = caution != TRUSTING
        if not (cautious or self.active):
            return
        horizon = trust_horizon_steps if caution.truncate_at_trust_horizon else None
        self._cautious[lanes] = cautious
        self._horizon[lanes] = _NEVER if horizon is None else horizon
        self._most[lanes] = np.inf if caution.max_uncertainty is None else caution.max_uncertainty
        self._penalty[lanes] = caution.uncertainty_penalty
        self.active = bool(self._cautious.any())

    def taken(self, lanes: Array) -> Trust:
        """The caution of some lanes, for copies of them."""
        taken = Trust(0)
        for name in ("_cautious", "_horizon", "_most", "_penalty"):
            setattr(taken, name, getattr(self, name)[lanes])
        taken.active = bool(taken._cautious.any())
        return taken

    def judge(self, where: Span, done: Stepped, elapsed: Array, resting: Array | None) -> Array:
        """Takes penalties off the rewards; returns the lanes that are truncated, and notes them in `done`."""
        distrusted: Array = elapsed >= self._horizon[where]
        if done.uncertainty is not None:
            known = ~np.isnan(done.uncertainty)
            doubt = np.where(known, done.uncertainty, 0.0).astype(np.float64)
            distrusted |= doubt > self._most[where]
            done.reward = done.reward - self._penalty[where] * doubt
        if resting is not None:
            distrusted &= ~resting
        if distrusted.any():
            done.distrusted = distrusted
        return distrusted
