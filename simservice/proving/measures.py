"""Figures of a world of vectors on fresh real episodes: errors beside persistence and ridge regression; ends."""

from __future__ import annotations

from simservice.proving.recipe import Figures, Trial
from simservice.training.evaluate import HORIZONS, TerminationScore, evaluate, termination_score
from simservice.training.windows import cut_windows, forecast

TEST_STEPS = 4_000
END_STEPS = 12_000  # ends are rare: of 4,000 steps of mixed play some 80


def vector_figures(trial: Trial) -> Figures:
    """error_K, error_K_of_persistence, error_K_of_linear; reward_r2; end_precision, end_recall, end_base_rate."""
    found = evaluate(trial.world, trial.fresh(TEST_STEPS), trial.training)
    figures: Figures = {}
    for lead in HORIZONS:
        error = found.errors[lead]
        figures[f"error_{lead}"] = error.world
        figures[f"error_{lead}_of_persistence"] = error.world / error.persistence
        figures[f"error_{lead}_of_linear"] = error.world / error.linear
    ends = _ends(trial)
    return figures | {
        "reward_r2": found.reward_r2,
        "end_precision": ends.precision,
        "end_recall": ends.recall,
        "end_average_precision": ends.average_precision,
        "end_calibration_error": ends.calibration_error,
        "end_base_rate": ends.base_rate,
        "uncertainty_rank_correlation": found.uncertainty_rank_correlation,
    }


def _ends(trial: Trial) -> TerminationScore:
    """One step ahead of every step of fresh episodes."""
    windows = cut_windows(trial.fresh(END_STEPS), 1, END_STEPS, trial.world.context_frames)
    _, rollout = forecast(trial.world, windows, copies=1)
    return termination_score(windows.terminated[:, 0], rollout.termination_probability[:, 0])
