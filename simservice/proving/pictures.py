"""Pictures of dreams: the strip that a training writes, too; curves for vectors. Writes PNG files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from simservice.proving.recipe import Trial
from simservice.training.strip import png, write_strip
from simservice.training.windows import cut_windows, forecast, has_pictures
from simservice.types import Array

CURVES_HIGH, CURVES_WIDE = 120, 360


def write(trial: Trial, path: Path, steps: int = 12) -> Path:
    """An open-loop dream of a held-out episode, beside reality."""
    if has_pictures(trial.held_out):
        return write_strip(trial.world, trial.held_out, path, steps)
    path.write_bytes(png(curves(trial)))
    return path


def curves(trial: Trial, horizon: int = 50, features: int = 6) -> Array:
    """One panel a feature: reality broad and grey, the dream in orange, from one start, under the real actions."""
    episode = max(trial.held_out, key=len)
    windows = cut_windows([episode], horizon, 1, trial.world.context_frames)
    guess, _ = forecast(trial.world, windows, copies=5)
    real, dreamt, panels = windows.truth[0], guess[0], list[Array]()
    for column in range(min(features, real.shape[1])):
        low = min(real[:, column].min(), dreamt[:, column].min())
        high = max(real[:, column].max(), dreamt[:, column].max())
        panel = np.full((CURVES_HIGH, CURVES_WIDE, 3), 24, np.uint8)
        for values, colour, thick in ((real[:, column], (150, 150, 150), 2), (dreamt[:, column], (255, 150, 40), 0)):
            across = np.linspace(4, CURVES_WIDE - 5, CURVES_WIDE * 30)  # so many that steep lines have no gaps
            height = np.interp(across, np.linspace(4, CURVES_WIDE - 5, len(values)), values)
            rows = CURVES_HIGH - 6 - (height - low) / max(high - low, 1e-9) * (CURVES_HIGH - 12)
            for shift in range(-thick, thick + 1):  # reality is the broad line under the dream's
                panel[(rows + shift).round().astype(int), across.round().astype(int)] = colour
        panels.append(np.pad(panel, ((1, 1), (1, 1), (0, 0)), constant_values=70))
    return np.concatenate(panels)
