"""Frames from numbers and numbers from frames: cells, soft discs, strokes, shrinking. Knows no environment."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


def cells_to_frame(grid: Array, pixels: int) -> Array:
    """Every cell (rows, columns, 3) uint8 as a square of `pixels`: (rows x pixels, columns x pixels, 3)."""
    return np.repeat(np.repeat(grid, pixels, axis=0), pixels, axis=1)


def frame_to_cells(frames: Array, pixels: int) -> Array:
    """Mean colour of every cell, (..., rows, columns, channels) float64, of frames (..., height, width, channels)."""
    *lead, height, width, channels = frames.shape
    split = frames.reshape(*lead, height // pixels, pixels, width // pixels, pixels, channels)
    mean: Array = split.astype(np.float64).mean(axis=(-4, -2))
    return mean


def brightest(cells: Array) -> tuple[Array, Array, Array]:
    """(row, column, clean) of the brightest cell of each (..., rows, columns); clean: it alone is above one half."""
    flat = cells.reshape(*cells.shape[:-2], -1)
    place = flat.argmax(-1)
    lit = flat > 127.5
    clean = (lit.sum(-1) == 1) & np.take_along_axis(lit, place[..., None], -1)[..., 0]
    return place // cells.shape[-1], place % cells.shape[-1], clean


def disc(centres: Array, radius: float, size: int) -> Array:
    """(N, size, size) coverage in [0, 1] of discs around centres (N, 2) of (row, column) in pixels, edges smooth."""
    axis = np.arange(size) + 0.5
    rows, columns = axis[None, :, None] - centres[:, 0, None, None], axis[None, None, :] - centres[:, 1, None, None]
    covered: Array = np.clip(radius + 0.5 - np.hypot(rows, columns), 0.0, 1.0)
    return covered


def stroke(begin: Array, end: Array, thickness: float, size: int) -> Array:
    """(N, size, size) coverage in [0, 1] of straight strokes between points (N, 2) of (row, column) in pixels."""
    axis = np.arange(size) + 0.5
    way = end - begin
    length = np.maximum((way**2).sum(-1), 1e-9)
    rows = axis[None, :, None] - begin[:, 0, None, None]
    columns = axis[None, None, :] - begin[:, 1, None, None]
    along = np.clip((rows * way[:, 0, None, None] + columns * way[:, 1, None, None]) / length[:, None, None], 0.0, 1.0)
    away = np.hypot(rows - along * way[:, 0, None, None], columns - along * way[:, 1, None, None])
    covered: Array = np.clip(thickness / 2 + 0.5 - away, 0.0, 1.0)
    return covered


def centroid(weight: Array) -> tuple[Array, Array, Array]:
    """(row, column, mass) in pixels of weights (..., height, width); NaN where there is no mass."""
    mass = weight.sum((-2, -1))
    rows, columns = np.arange(weight.shape[-2]) + 0.5, np.arange(weight.shape[-1]) + 0.5
    with np.errstate(invalid="ignore", divide="ignore"):
        row = (weight.sum(-1) * rows).sum(-1) / mass
        column = (weight.sum(-2) * columns).sum(-1) / mass
    return row, column, mass


def to_bytes(picture: Array) -> Array:
    """Brightness in [0, 1] as uint8."""
    return np.asarray(np.rint(picture * 255), dtype=np.uint8)


def shrinking(before: int, after: int) -> Array:
    """(after, before) weights that average `before` pixels to `after`, each by the share that it covers."""
    edges = np.linspace(0, before, after + 1)
    low = np.maximum(edges[:-1, None], np.arange(before)[None])
    high = np.minimum(edges[1:, None], np.arange(1, before + 1)[None])
    covered = np.maximum(high - low, 0.0)
    return np.asarray(covered / covered.sum(1, keepdims=True), dtype=np.float32)
