"""How metrics look at pictures: pooled for everything about states, and frame by frame for PSNR and SSIM.

These two describe pictures and nothing else (L0): a world can look right and disobey its actions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from scipy.ndimage import gaussian_filter

from simservice.fidelity.bootstrap import bounds, unit_weights
from simservice.fidelity.metric import UNKNOWN, Score, metric
from simservice.fidelity.traces import Traces, check_paired, matrix, per_unit
from simservice.types import Array

LEAST_SIDE = 16
"""Smaller arrays of bytes are boards and sensors, not pictures."""

POOLED_SIDE = 12
"""Pictures are seen as this many blocks a side, each by its mean colour: a frozen encoder without weights."""

MOST_DECIBELS = 100.0
"""What equal frames get, whose ratio is infinite."""

_AT_ONCE = 256  # frames made into floats together
_SIGMA, _REACH = 1.5, 5  # of SSIM's Gaussian window, 11 pixels wide
_LUMINANCE, _CONTRAST = (0.01 * 255.0) ** 2, (0.03 * 255.0) ** 2  # keep SSIM finite where a window is flat


def is_picture(array: Array, lead: int) -> bool:
    """Whether a leaf with `lead` leading axes holds frames: bytes, height x width x 1 or 3 colours (or stacks of 3)."""
    shape = array.shape[lead:]
    if array.dtype != np.uint8 or len(shape) != 3:
        return False
    return bool(min(shape[:2]) >= LEAST_SIDE and (shape[2] == 1 or shape[2] % 3 == 0))


def picture(leaves: Mapping[str, Array], lead: int) -> Array | None:
    """The first leaf that holds frames, if one does."""
    return next((array for array in leaves.values() if is_picture(array, lead)), None)


def seen(leaves: Mapping[str, Array], lead: int) -> Array:
    """Observation leaves with `lead` leading axes as one float64 array (..., D); pictures are pooled."""
    return matrix({path: _pooled(array, lead) for path, array in leaves.items()}, lead)


def _pooled(array: Array, lead: int) -> Array:
    if not is_picture(array, lead):
        return array
    height, width = array.shape[lead : lead + 2]
    rows, columns = (np.linspace(0, size, POOLED_SIDE, endpoint=False).round().astype(int) for size in (height, width))
    counts = np.outer(np.diff(np.r_[rows, height]), np.diff(np.r_[columns, width]))[..., None]
    frames = array.reshape(-1, *array.shape[lead:])
    pooled = np.empty((len(frames), POOLED_SIDE, POOLED_SIDE, frames.shape[-1]))
    for first in range(0, len(frames), _AT_ONCE):
        part = frames[first : first + _AT_ONCE].astype(np.float64)
        sums = np.add.reduceat(np.add.reduceat(part, rows, axis=1), columns, axis=2)
        pooled[first : first + _AT_ONCE] = sums / counts
    return pooled.reshape(*array.shape[:lead], *pooled.shape[1:])


def psnr(real: Array, imagined: Array) -> Array:
    """(N,) decibels of frames (N, height, width, colours) in bytes; more is closer."""
    error = np.mean((real.astype(np.float64) - imagined) ** 2, axis=(1, 2, 3))
    return np.asarray(np.minimum(10.0 * np.log10(255.0**2 / np.maximum(error, 1e-12)), MOST_DECIBELS))


def ssim(real: Array, imagined: Array) -> Array:
    """(N,) structural similarity (Wang et al. 2004), mean over the mirrored picture and its colours; 1 is equal."""
    one, other = real.astype(np.float64), imagined.astype(np.float64)
    mean_one, mean_other = _blurred(one), _blurred(other)
    variance_one = _blurred(one**2) - mean_one**2
    variance_other = _blurred(other**2) - mean_other**2
    covariance = _blurred(one * other) - mean_one * mean_other
    found = (2 * mean_one * mean_other + _LUMINANCE) * (2 * covariance + _CONTRAST)
    found /= (mean_one**2 + mean_other**2 + _LUMINANCE) * (variance_one + variance_other + _CONTRAST)
    return np.asarray(found.mean(axis=(1, 2, 3)))


def _blurred(frames: Array) -> Array:
    sigmas = (0.0, _SIGMA, _SIGMA, 0.0)
    return np.asarray(gaussian_filter(frames, sigmas, mode="mirror", radius=(0, _REACH, _REACH, 0)))


def _frame_score(real: Traces, imagined: Traces, of: Callable[[Array, Array], Array]) -> Score:
    """The mean over next frames, resampled over episodes."""
    check_paired(real, imagined)
    if real.frames is None or imagined.frames is None:
        return UNKNOWN
    rows = np.flatnonzero(real.valid[:, 0] & imagined.valid[:, 0])
    if len(np.unique(real.unit[rows])) < 2:
        return UNKNOWN
    values = of(real.frames[rows, 1], imagined.frames[rows, 1])
    sums = per_unit(real.unit[rows], np.stack([values, np.ones_like(values)], axis=1))
    resampled = unit_weights(len(sums)) @ sums
    value = float(values.mean())
    return Score(value, *bounds(resampled[:, 0] / resampled[:, 1], value), len(sums))


def _register(name: str, of: Callable[[Array, Array], Array], perfect: float, convention: str) -> None:
    @metric(name, level="L0", evidence="steps", unit="episode", perfect=perfect, convention=convention)
    def measure(real: Traces, imagined: Traces) -> Score:
        return _frame_score(real, imagined, of)


_register("frame_psnr_decibels", psnr, MOST_DECIBELS, f"next frames, bytes, at most {MOST_DECIBELS:g} dB")
_register("frame_ssim_ratio", ssim, 1.0, "next frames; Gaussian window of 11 pixels, sigma 1.5; mean over colours")
