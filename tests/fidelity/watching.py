"""A small watch over CartPole, fitted once for all tests that need one."""

from __future__ import annotations

from functools import cache

from drift_streams import CARTPOLE, Watch


@cache
def watch() -> Watch:
    return Watch.fitted(CARTPOLE, reference=360, calibration=200, seed=0)
