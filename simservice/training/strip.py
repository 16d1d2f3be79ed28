"""A strip of a dream for people: real frames, imagined ones, and how they differ, as a PNG beside the world."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from simservice.fidelity.pixels import is_picture
from simservice.types import Array, Context, Episode
from simservice.worlds.rollout import imagine
from simservice.worlds.world import World

STRIP = "strip.png"
"""Its name in the world's folder."""

_LEAST_SIDE = 96  # pixels a frame is shown at
_LINE = 70  # grey between frames


def write_strip(world: World, episodes: Sequence[Episode], path: Path, steps: int = 12) -> Path:
    """Dreams the longest episode from its first frames, open loop, under its actions, and writes the PNG."""
    real, dreamt = dreamt_frames(world, max(episodes, key=len), steps)
    path.write_bytes(png(strip(real, dreamt)))
    return path


def dreamt_frames(world: World, episode: Episode, steps: int) -> tuple[Array, Array]:
    """Real and imagined frames (steps + 1, height, width, channels) uint8 of the first picture among the leaves.

    The first frame is the last of the context; an episode that is shorter gives fewer.
    """
    name = next(path for path, array in episode.observation.items() if is_picture(array, 1))
    frames = min(world.context_frames, len(episode))
    end = min(frames - 1 + steps, len(episode))
    context = Context(
        {path: array[None, :frames] for path, array in episode.observation.items()},
        {path: array[None, : frames - 1] for path, array in episode.action.items()},
    )
    actions = {path: array[None, frames - 1 : end] for path, array in episode.action.items()}
    dreamt = imagine(world, actions, context=context).observation[name][0]
    return episode.observation[name][frames - 1 : end + 1], dreamt


def strip(real: Array, dreamt: Array) -> Array:
    """(height, width, 3) uint8: three rows, the frames in time from left to right; a stack's newest frame counts."""
    real, dreamt = (np.broadcast_to(part[..., -3:], (*part.shape[:-1], 3)) for part in (real, dreamt))
    difference = np.abs(real.astype(np.int16) - dreamt).astype(np.uint8)
    times = -(-_LEAST_SIDE // real.shape[1])
    rows = [np.concatenate([_framed(frame, times) for frame in row], axis=1) for row in (real, dreamt, difference)]
    return np.concatenate(rows)


def _framed(frame: Array, times: int) -> Array:
    large = np.repeat(np.repeat(frame, times, axis=0), times, axis=1)
    return np.pad(large, ((1, 1), (1, 1), (0, 0)), constant_values=_LINE)


def png(picture: Array) -> bytes:
    """A picture (height, width, 3) uint8 as a PNG file: trainings run where no imaging library is."""
    height, width = picture.shape[:2]
    rows = b"".join(b"\0" + np.ascontiguousarray(row).tobytes() for row in picture)  # 0: each row as it is
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits each of red, green, blue
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
