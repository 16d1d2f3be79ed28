"""Pictures of any Box as bytes (B, channels, height, width) and back, for families that think in frames. Pure torch."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from simservice.errors import InvalidInput
from simservice.types import leaves_of
from simservice.worlds.codec import torch_dtype

_USUAL_PATCH, _FEWEST_ALONG, _MOST_PATCHES = 8, 4, 600

MAX_CHANNELS = 16
"""Colours, or a stack of frames; more than this is no picture."""


class Pictures:
    """One Box of two or three axes; channels may come last (height, width, channels) or first.

    Whole numbers in [0, 255] are kept as they are; other bounds are laid on 256 levels. Raises UnsupportedSpace for
    spaces without a fixed shape and InvalidInput for what is no picture or has no bounds.
    """

    def __init__(self, space: gym.Space[Any], root: str) -> None:
        leaf = leaves_of(space, root)[0]
        box = leaf.space
        if not isinstance(space, spaces.Box) or not isinstance(box, spaces.Box) or len(leaf.shape) not in (2, 3):
            raise InvalidInput(root, f"{space} is no picture; this family takes a Box of two or three axes")
        self.leaf, self.path, self.dtype = leaf, leaf.path, torch_dtype(leaf.dtype)
        self.low, self.high = float(box.low.min()), float(box.high.max())
        if not (
            np.isfinite([self.low, self.high]).all() and (box.low == self.low).all() and (box.high == self.high).all()
        ):
            raise InvalidInput(leaf.path, f"{space} must have the same finite bounds everywhere to be a picture")
        self.axis = _channel_axis(leaf.shape)
        order = [axis for axis in range(len(leaf.shape)) if axis != self.axis]
        sides = [leaf.shape[axis] for axis in order]
        self.shape = (1 if self.axis is None else leaf.shape[self.axis], sides[0], sides[1])
        if self.shape[0] > MAX_CHANNELS:
            raise InvalidInput(leaf.path, f"it has {self.shape[0]} channels; a picture has up to {MAX_CHANNELS}")
        self._as_is = self.low == 0 and self.high == 255 and not self.dtype.is_floating_point

    def bytes_of(self, value: Tensor) -> Tensor:
        """Frames (..., *shape of the space) as uint8 (..., channels, height, width), without shared storage."""
        lead = value.ndim - (2 if self.axis is None else 3)
        if self.axis is None:
            value = value.unsqueeze(lead)
        elif self.axis == 2:
            value = value.movedim(-1, lead)
        if self._as_is:
            return value.to(torch.uint8, copy=True).contiguous()
        level = (value.double() - self.low) * (255 / (self.high - self.low))
        return level.round().clamp(0, 255).to(torch.uint8).contiguous()

    def frames_of(self, value: Tensor) -> Tensor:
        """The inverse, in the space's dtype."""
        lead = value.ndim - 3
        if self.axis is None:
            value = value.squeeze(lead)
        elif self.axis == 2:
            value = value.movedim(lead, -1)
        if self._as_is:
            return value.to(self.dtype, copy=True).contiguous()
        level = value.double() * ((self.high - self.low) / 255) + self.low
        if not self.dtype.is_floating_point:
            level = level.round()
        return level.clamp(self.low, self.high).to(self.dtype).contiguous()


def _channel_axis(shape: tuple[int, ...]) -> int | None:
    """Where the channels are: the shorter of the first and the last axis; None for two axes."""
    if len(shape) == 2:
        return None
    return 2 if shape[2] <= shape[0] else 0


def patch_side(pictures: Pictures, asked: int | None) -> int:
    """How many pixels a side the squares have that pictures are cut into; None asked: what suits them.

    That is the common divisor of both sides nearest to 8, by ratio, that gives 4 squares or more along each side and
    no more than 600 in all. Raises InvalidInput where there is none, and where what was asked does not divide both.
    """
    _, height, width = pictures.shape
    sides, setting = f"{height} x {width} pixels", "set patch to a divisor of both"
    if asked is not None:
        if height % asked or width % asked:
            raise InvalidInput(pictures.path, f"its {sides} are no multiple of the patch, {asked}; {setting}")
        return asked
    fitting = [
        side
        for side in range(1, min(height, width) // _FEWEST_ALONG + 1)
        if height % side == 0 == width % side and height * width <= _MOST_PATCHES * side**2
    ]
    if not fitting:
        raise InvalidInput(
            pictures.path, f"no patch cuts its {sides} into a few hundred squares; record others, or {setting}"
        )
    return min(fitting, key=lambda side: (abs(math.log(side / _USUAL_PATCH)), -side))


def centred(value: Tensor) -> Tensor:
    """Bytes as float32 in [-1, 1]."""
    return value.float() * (2 / 255) - 1


def snapped(value: Tensor) -> Tensor:
    """Floats of about [-1, 1] as the nearest bytes."""
    return ((value + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
