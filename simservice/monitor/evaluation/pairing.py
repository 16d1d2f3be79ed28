"""From imagined copies to traces that belong, window by window, to real ones. Asks nothing of the service."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from simservice.fidelity.monitor_model import EXACTNESS
from simservice.fidelity.traces import Traces, mean_while_running
from simservice.monitor.imagine import Imagined


def average(real: Traces, dreamt: Imagined) -> Traces:
    """The mean over the copies of each start that still run; the window ends once all of them have."""
    runs = dreamt.valid  # (N, C, H)
    mean, some = mean_while_running(dreamt.observation, runs)
    never = np.zeros_like(real.valid)
    return Traces(
        observation=mean,
        reward=np.where(runs, dreamt.reward, 0.0).sum(axis=1) / np.maximum(runs.sum(axis=1), 1),
        terminated=never,
        truncated=never,
        valid=some,
        unit=real.unit,
    )


def with_ends(steps: Traces, dreamt: Imagined) -> Traces:
    """Single steps with what the world says of their end: the share of copies that ended, and what most did."""
    share = dreamt.terminated.mean(axis=1)
    return replace(steps, terminated=share >= 0.5, termination_probability=share)


def with_doubt(steps: Traces, dreamt: Imagined) -> Traces:
    """With the deviation of the next observation that the copies show, and the uncertainty that the world states.

    A world whose copies never differ predicts without spread, and has no deviation.
    """
    copies = dreamt.observation.shape[1]
    spread = dreamt.observation[:, :, 1:].std(axis=1, ddof=1) * np.sqrt(1.0 + 1.0 / copies)
    rounding = EXACTNESS * np.sqrt(np.mean(steps.observation**2, axis=(0, 1)))
    doubt = dreamt.uncertainty.mean(axis=1)
    return replace(
        steps,
        deviation=np.maximum(spread, rounding) if np.any(spread > 0) else None,
        uncertainty=doubt if np.isfinite(doubt).all() else None,
    )


def one_copy(real: Traces, dreamt: Imagined) -> Traces:
    """The first copy alone: what an agent would live through. For tests of distributions, which a mean would narrow."""
    return Traces(
        observation=dreamt.observation[:, 0],
        reward=np.where(dreamt.valid[:, 0], dreamt.reward[:, 0], 0.0),
        terminated=dreamt.terminated[:, 0],
        truncated=np.zeros_like(dreamt.terminated[:, 0]),
        valid=dreamt.valid[:, 0],
        unit=real.unit,
        action=real.action,
    )


def judged(real: Traces, imagined: Traces, dreamt: Imagined) -> tuple[Traces, Traces, float]:
    """Both sides with their successes by one judge, and the judge's bar.

    A window is a success when its rewards sum to at least the middle between the least and the most that any real
    window has. Where recording stopped before the episode's end, both sides are judged by the steps there are.
    """
    cut = ~np.any(real.terminated & real.valid, axis=1, keepdims=True)  # (N, 1)
    counted = real.valid | ~cut  # (N, H)
    truth = np.where(real.valid, real.reward, 0.0).sum(axis=1)
    runs = dreamt.valid & counted[:, None]
    dream = np.where(runs, dreamt.reward, 0.0).sum(axis=2).mean(axis=1)
    bar = float(truth.min() + truth.max()) / 2.0
    # Windows that were cut short of the bar by their recording were not judged a failure by anything that happened.
    undecided = cut[:, 0] & (real.valid.sum(axis=1) < real.horizon)
    truth = np.where(undecided, np.inf, truth)
    return replace(real, success=truth >= bar), replace(imagined, success=np.where(undecided, True, dream >= bar)), bar
