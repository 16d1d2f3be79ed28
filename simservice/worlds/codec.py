"""Observations and actions as flat float features and back, for families that think in vectors. Pure torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from simservice.errors import InvalidInput
from simservice.types import Leaf, leaves_of
from simservice.worlds.world import Tensors

MAX_WIDTH = 4096
"""Wider than this is no vector any more: a network layer over it would be larger than a pixel family's world."""


def torch_dtype(dtype: np.dtype[Any]) -> torch.dtype:
    """The torch dtype of a numpy one, as torch.from_numpy pairs them."""
    return torch.from_numpy(np.zeros(1, dtype=dtype)).dtype


def is_picture(leaf: Leaf) -> bool:
    """Whether a leaf is a frame of pixels: uint8, (height, width) or (height, width, channels)."""
    return isinstance(leaf.space, spaces.Box) and leaf.dtype == np.uint8 and len(leaf.shape) >= 2


@dataclass(frozen=True)
class _Part:
    """Where one leaf lies in the features: a Box as it is, categories as one-hots one after another, bits as 0 or 1."""

    leaf: Leaf
    start: int
    end: int
    dtype: torch.dtype
    categories: tuple[int, ...] = ()  # how many of each, for one-hots
    offsets: tuple[int, ...] = ()  # what the first category of each is called


class Codec:
    """The features of one space: (B, width) float32.

    Takes Box, Discrete, MultiDiscrete and MultiBinary, and Dict or Tuple of these, up to MAX_WIDTH features.
    Raises UnsupportedSpace for spaces without a fixed shape and InvalidInput for pictures and for too wide ones.
    """

    def __init__(self, space: gym.Space[Any], root: str) -> None:
        self._place(leaves_of(space, root), root)

    @classmethod
    def beside_pictures(cls, space: gym.Space[Any], root: str) -> Codec:
        """The features of all leaves but the pictures, for families that see those by other means; may be none."""
        codec = cls.__new__(cls)
        codec._place(tuple(leaf for leaf in leaves_of(space, root) if not is_picture(leaf)), root)
        return codec

    def _place(self, leaves: tuple[Leaf, ...], root: str) -> None:
        self.leaves = leaves
        self.parts: tuple[_Part, ...] = ()
        start = 0
        for leaf in self.leaves:
            part = _part(leaf, start)
            self.parts, start = (*self.parts, part), part.end
        self.width = start
        if self.width > MAX_WIDTH:
            raise InvalidInput(root, f"it has {self.width} features; families of vectors take up to {MAX_WIDTH}")
        self.is_continuous = all(part.dtype.is_floating_point for part in self.parts)
        self._on_device: dict[torch.device, dict[str, Tensor]] = {}
        self._snapped = [part for part in self.parts if not part.dtype.is_floating_point]

    def _labels(self, device: torch.device) -> dict[str, Tensor]:
        """For each one-hot column the category it stands for, and which of several it belongs to."""
        if device not in self._on_device:
            labels: dict[str, Tensor] = {}
            for part in self.parts:
                pairs = zip(part.categories, part.offsets, strict=True)
                hot = [(column, first + i) for column, (n, first) in enumerate(pairs) for i in range(n)]
                labels[f"{part.leaf.path}/column"] = torch.tensor([column for column, _ in hot], device=device)
                labels[part.leaf.path] = torch.tensor([label for _, label in hot], device=device)
            self._on_device[device] = labels
        return self._on_device[device]

    def encode(self, values: Mapping[str, Tensor]) -> Tensor:
        """Leaves (B, ...) by path, in the space's dtypes, to features (B, width) float32."""
        labels = self._labels(next(iter(values.values())).device)
        features = [_encoded(part, values[part.leaf.path], labels) for part in self.parts]
        return features[0] if len(features) == 1 else torch.cat(features, dim=-1)

    def decode(self, features: Tensor) -> Tensors:
        """Features to leaves in the space's dtypes: whole numbers rounded into bounds, the largest of each one-hot.

        Floats are given as they are: a prediction outside the bounds is the world's error, which must be seen.
        The result shares no storage with the features.
        """
        return {part.leaf.path: _decoded(part, features[:, part.start : part.end]) for part in self.parts}

    def snap(self, features: Tensor) -> Tensor:
        """The features of the values that decode would give: what an agent sees is what the world goes on from."""
        if not self._snapped:
            return features
        features = features.clone()
        for part in self._snapped:
            block = features[:, part.start : part.end]
            features[:, part.start : part.end] = _encoded(part, _decoded(part, block), self._labels(block.device))
        return features

    def columns(self) -> Tensor:
        """(width,) bool, True where a feature is a float of the space itself and may be smoothed or scaled."""
        mask = torch.zeros(self.width, dtype=torch.bool)
        for part in self.parts:
            mask[part.start : part.end] = part.dtype.is_floating_point
        return mask


def _part(leaf: Leaf, start: int) -> _Part:
    space, dtype = leaf.space, torch_dtype(leaf.dtype)
    if isinstance(space, spaces.Discrete):
        return _Part(leaf, start, start + int(space.n), dtype, (int(space.n),), (int(space.start),))
    if isinstance(space, spaces.MultiDiscrete):
        categories = tuple(int(n) for n in space.nvec.ravel())
        offsets = tuple(int(first) for first in space.start.ravel())
        return _Part(leaf, start, start + sum(categories), dtype, categories, offsets)
    if is_picture(leaf):
        raise InvalidInput(leaf.path, f"it is a picture {leaf.shape}; families of vectors take vectors only")
    return _Part(leaf, start, start + math.prod(leaf.shape), dtype)


def _encoded(part: _Part, value: Tensor, labels: Mapping[str, Tensor]) -> Tensor:
    if not part.categories:
        return value.reshape(value.shape[0], part.end - part.start).float()
    columns = value.reshape(value.shape[0], len(part.categories)).long()
    if len(part.categories) > 1:
        columns = columns[:, labels[f"{part.leaf.path}/column"]]
    return (columns == labels[part.leaf.path]).float()


def _decoded(part: _Part, block: Tensor) -> Tensor:
    shape = (block.shape[0], *part.leaf.shape)
    if part.categories:
        best = [
            chunk.argmax(-1) + offset
            for chunk, offset in zip(torch.split(block, list(part.categories), dim=-1), part.offsets, strict=True)
        ]
        return torch.stack(best, dim=-1).reshape(shape).to(part.dtype)
    if part.dtype.is_floating_point:
        return block.reshape(shape).to(part.dtype, copy=True)
    if part.dtype == torch.bool or isinstance(part.leaf.space, spaces.MultiBinary):
        return (block > 0.5).reshape(shape).to(part.dtype)
    return _whole(part, block.reshape(shape))


def _whole(part: _Part, value: Tensor) -> Tensor:
    """Rounded to whole numbers inside the Box; in float64, which holds every bound of up to 53 bits exactly."""
    space = part.leaf.space
    assert isinstance(space, spaces.Box)
    low = torch.as_tensor(np.asarray(space.low, dtype=np.float64), device=value.device)
    high = torch.as_tensor(np.asarray(space.high, dtype=np.float64), device=value.device)
    inside = value.double().round().clamp(low, high)
    if part.dtype == torch.int64:
        inside = inside.clamp(-(2.0**62), 2.0**62)  # 2**63 itself is no int64
    return inside.to(part.dtype)
