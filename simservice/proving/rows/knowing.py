"""A7c: does a world know what it does not know? Uncertainty against true errors, far states, and long dreams."""

from __future__ import annotations

import numpy as np
from scipy import stats

from simservice.proving.recipe import Check
from simservice.proving.rows.ground import RIGHT, Subject, auroc, check, remark
from simservice.training.windows import cut_windows, forecast, spread

LEAD = 25
STEPS = 3_000
FAR = 2.0  # metres; random play of CartPole never gets there


def uncertainty(subject: Subject) -> list[Check]:
    """Rank correlation with one-step errors; far states told; what is left when dreams stop where doubt begins."""
    world = subject.world
    if "uncertainty" not in world.spec.capabilities:
        return [remark("A7c", "the family tells no uncertainty")]
    episodes = subject.fresh(STEPS)
    scale = spread(episodes)
    ones = cut_windows(episodes, 1, 1024, world.context_frames)
    guess, rollout = forecast(world, ones, copies=1)
    error = np.sqrt((((guess - ones.truth) / scale)[:, 1] ** 2).mean(-1))
    unsure = rollout.uncertainty[:, 0]
    rank = stats.spearmanr(unsure, error).statistic if np.ptp(unsure) > 0 and np.ptp(error) > 0 else np.nan
    # Of errors that are all alike, such as none at all, there is no order to tell.
    least = 0.5 if np.ptp(error) > RIGHT else None
    what = f"rank correlation with the true one-step error ({(error > RIGHT).mean():.3f} of steps have one)"
    found = [check("A7c", what, float(rank), least=least)]
    found += _far(subject, float(np.median(unsure)))
    return found + _cut_short(subject, float(np.quantile(unsure, 0.95)))


def _far(subject: Subject, typical: float) -> list[Check]:
    """CartPole, a world of random play: far states are in doubt."""
    if subject.env_id != "CartPole-v1":
        return []
    near, far = subject.fresh(1_000, "random"), subject.fresh(6_000, "mixed")
    both = [cut_windows(episodes, 1, 4_000, subject.world.context_frames) for episodes in (near, far)]
    outside = np.abs(both[1].truth[:, 0, 0]) > FAR
    doubts = [forecast(subject.world, windows, copies=1)[1].uncertainty[:, 0] for windows in both]
    score = np.concatenate([doubts[0], doubts[1][outside]])
    label = np.repeat([False, True], [len(doubts[0]), int(outside.sum())])
    what = f"states beyond {FAR:g} m told from random play's, AUROC ({int(outside.sum())} states)"
    # A bar only for a world that never saw such states: one of mixed play knows them.
    return [check("A7c", what, auroc(score, label), least=0.9 if subject.behaviour == "random" else None)]


def _cut_short(subject: Subject, limit: float) -> list[Check]:
    """Dreams that stop at their first step beyond the 95 % quantile: the error that is left 25 steps on.

    Judged where doubt has something to find: a world of random play that dreams of what it never saw. Of the ensemble
    that saw mixed play stopping saves a tenth, for none of its dreams goes far wrong; that is told.
    """
    episodes = subject.fresh(STEPS, "mixed" if subject.env_id == "CartPole-v1" else None)
    windows = cut_windows(episodes, LEAD, 256, subject.world.context_frames)
    if windows.valid.shape[1] < LEAD or windows.valid[:, -1].sum() < 20:
        return []
    guess, rollout = forecast(subject.world, windows, copies=1)
    error = (((guess - windows.truth) / spread(episodes))[:, -1] ** 2).mean(-1)
    whole = windows.valid[:, -1]
    if error[whole].max() <= RIGHT**2:
        return [remark("A7c", f"no dream of {LEAD} steps is wrong")]
    trusted = whole & (rollout.uncertainty <= limit).all(axis=1)
    if not trusted.any():
        return [remark("A7c", f"no dream of {LEAD} steps stays below the 95 % quantile")]
    saved = 1 - np.sqrt(error[trusted].mean() / error[whole].mean())
    least = 0.3 if subject.behaviour == "random" else None
    what = f"error {LEAD} steps on saved by stopping in doubt ({trusted.sum()} of {whole.sum()} dreams go on)"
    return [check("A7c", what, float(saved), least=least)]
