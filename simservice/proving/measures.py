"""Figures of a world of vectors on fresh real episodes: errors beside persistence and ridge regression; ends."""

from __future__ import annotations

from simservice.proving.recipe import Figures, Trial
from simservice.training.evaluate import HORIZONS, evaluate

TEST_STEPS = 4_000


def vector_figures(trial: Trial) -> Figures:
    """error_K, error_K_of_persistence, error_K_of_linear; reward_r2; end_precision, end_recall, end_base_rate."""
    found = evaluate(trial.world, trial.fresh(TEST_STEPS), trial.training)
    figures: Figures = {}
    for lead in HORIZONS:
        error = found.errors[lead]
        figures[f"error_{lead}"] = error.world
        figures[f"error_{lead}_of_persistence"] = error.world / error.persistence
        figures[f"error_{lead}_of_linear"] = error.world / error.linear
    ends = found.termination
    return figures | {
        "reward_r2": found.reward_r2,
        "end_precision": ends.precision,
        "end_recall": ends.recall,
        "end_average_precision": ends.average_precision,
        "end_calibration_error": ends.calibration_error,
        "end_base_rate": ends.base_rate,
        "uncertainty_rank_correlation": found.uncertainty_rank_correlation,
    }
