"""What a world sees and shows when observations have several leaves: vectors as one, each picture by itself.

Vectors are put on the scale of the data and squashed by symlog; what is shown stays within a multiple of the data's
range. Nothing here is transcendental on fewer than 16 columns, see families/ensemble.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from simservice.types import Episode, Leaf, WorldSpec, leaves_of
from simservice.worlds.circles import Circles
from simservice.worlds.codec import Codec, is_picture
from simservice.worlds.nets.distributions import symexp, symlog
from simservice.worlds.nets.members import padded
from simservice.worlds.nets.perceptron import Perceptron
from simservice.worlds.nets.pyramid import PyramidDecoder, PyramidEncoder
from simservice.worlds.world import Tensors

_SMALLEST_CONTRAST = 0.02  # of a picture, from 0 to 1
_FITTED_FRAMES = 1000
_SMALLEST_SPREAD = 1e-6  # relative to a feature's size; what varies less counts as constant


class Senses(nn.Module):
    """Observations to embeddings (B, embedding), and features (B, inputs) of a model back to observations."""

    mean: Tensor  # (width,) of the vectors' features
    deviation: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, spec: WorldSpec, *, inputs: int, units: int, layers: int, depth: int) -> None:
        super().__init__()
        self.leaves = leaves_of(spec.observation_space, "observation")
        self.pictures = tuple(leaf for leaf in self.leaves if is_picture(leaf))
        self.codec = Codec.beside_pictures(spec.observation_space, "observation")
        self.width = self.codec.width
        self.circles = Circles(self.width)
        self.embedding = units * (len(self.pictures) + (self.width > 0))
        if self.width:
            self.vector_encoder = Perceptron([padded(self.width), *[units] * layers])
            self.vector_decoder = Perceptron([inputs, *[units] * layers], padded(self.width))
        self.encoders = nn.ModuleList(PyramidEncoder(_frame(leaf), depth, units) for leaf in self.pictures)
        self.decoders = nn.ModuleList(PyramidDecoder(_frame(leaf), depth, inputs) for leaf in self.pictures)
        for number, leaf in enumerate(self.pictures):
            self.register_buffer(f"picture_mean_{number}", torch.full(_frame(leaf), 0.5))
            self.register_buffer(f"picture_deviation_{number}", torch.ones(()))
        for name, value in (("mean", 0.0), ("deviation", 1.0), ("low", -torch.inf), ("high", torch.inf)):
            self.register_buffer(name, torch.full((self.width,), value))

    def fit(self, episodes: Sequence[Episode], range_factor: float, *, scales: bool) -> None:
        """Takes bounds, and scales where asked to, from recorded observations."""
        if scales:
            for number, leaf in enumerate(self.pictures):
                self._fit_picture(number, _some(episodes, leaf))
        if not self.width:
            return
        rows = torch.cat([self.codec.encode(_tensors(episode.observation, self.codec)) for episode in episodes])
        rows = rows.to(self.mean.device)
        self.circles.fit(rows, self.codec.columns())
        low, high = rows.amin(0), rows.amax(0)
        room = (range_factor - 1) / 2 * (high - low)
        self.low.copy_(low - room)
        self.high.copy_(high + room)
        if scales:
            mean, deviation = rows.double().mean(0), rows.double().std(0, unbiased=False)
            varies = deviation > _SMALLEST_SPREAD * rows.double().abs().amax(0).clamp(min=_SMALLEST_SPREAD)
            self.mean.copy_(mean)
            self.deviation.copy_(torch.where(varies, deviation, torch.ones_like(deviation)))

    def _fit_picture(self, number: int, levels: Tensor) -> None:
        """The mean picture, and one deviation of all pixels from it: a still background costs no learning."""
        mean = levels.mean(0)
        getattr(self, f"picture_mean_{number}").copy_(mean)
        deviation = (levels - mean).square().mean().sqrt()
        getattr(self, f"picture_deviation_{number}").copy_(deviation.clamp(min=_SMALLEST_CONTRAST))

    def _scale(self, number: int) -> tuple[Tensor, Tensor]:
        return getattr(self, f"picture_mean_{number}"), getattr(self, f"picture_deviation_{number}")

    def _decoded(self, number: int, inputs: Tensor) -> Tensor:
        """(B, height, width, channels) float; 0 is black and 1 white, values may lie beyond."""
        mean, deviation = self._scale(number)
        decoded: Tensor = self.decoders[number](inputs).float() * deviation + mean
        return decoded

    def features(self, observation: Mapping[str, Tensor]) -> Tensor | None:
        """The vectors' features (B, width) as they are; None where there are pictures alone."""
        return self.codec.encode(observation) if self.width else None

    def squashed(self, features: Tensor) -> Tensor:
        """(B, padded width) on the scale of the data, far values brought near; zero beyond the width."""
        squashed: Tensor = symlog(F.pad((features - self.mean) / self.deviation, (0, padded(self.width) - self.width)))
        return squashed

    def encode(self, features: Tensor | None, observation: Mapping[str, Tensor]) -> Tensor:
        """The embedding (B, embedding) of vectors as features() gave them, and of the observation's pictures."""
        parts = [] if features is None else [self.vector_encoder(self.squashed(features))]
        for number, (leaf, encoder) in enumerate(zip(self.pictures, self.encoders, strict=True)):
            mean, deviation = self._scale(number)
            parts.append(encoder((_levels(observation[leaf.path], leaf) - mean) / deviation))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)

    def vector(self, inputs: Tensor) -> Tensor:
        """Features (B, width) that the model's features stand for, inside their bounds."""
        free = symexp(self.vector_decoder(inputs))[:, : self.width] * self.deviation + self.mean
        bounded: Tensor = self.circles(torch.clamp(free, self.low, self.high))
        return bounded

    def picture(self, inputs: Tensor, number: int) -> Tensor:
        """The picture (B, ...) uint8 of that place among the pictures."""
        leaf = self.pictures[number]
        levels = self._decoded(number, inputs) * 255
        picture: Tensor = levels.round().clamp(0, 255).to(torch.uint8)
        return picture.reshape(-1, *leaf.shape)

    def losses(
        self, inputs: Tensor, features: Tensor | None, observation: Mapping[str, Tensor], worst_pixel: float
    ) -> dict[str, Tensor]:
        """Squared errors (B,) by leaf path, vectors as one: summed over elements, plus the frame's largest."""
        found: dict[str, Tensor] = {}
        if features is not None:
            error = self.vector_decoder(inputs).float() - self.squashed(features)
            found["vector"] = error[:, : self.width].square().sum(-1)
        for number, leaf in enumerate(self.pictures):
            shown = self._decoded(number, inputs)
            error = (shown - _levels(observation[leaf.path], leaf)).square().flatten(1)
            found[leaf.path] = error.sum(-1) + worst_pixel * error.amax(-1)
        return found

    def unseen(self, inputs: Tensor, features: Tensor | None, observation: Mapping[str, Tensor]) -> Tensor:
        """(B,) how much of an observation a model's features do not show: root mean squares, in spreads of the data.

        That of each picture, and of the vectors as squashed() sees them, together as if along axes of their own.
        """
        total = inputs.new_zeros(inputs.shape[0])
        if features is not None:
            missed = (self.vector_decoder(inputs).float() - self.squashed(features))[:, : self.width]
            total = total + missed.square().sum(-1) * (1 / self.width)
        for number, leaf in enumerate(self.pictures):
            shown = self._decoded(number, inputs).clamp(0, 1)
            off = ((shown - _levels(observation[leaf.path], leaf)) / self._scale(number)[1]).square().flatten(1)
            total = total + off.sum(-1) * (1 / off.shape[1])
        return total.sqrt()


def _frame(leaf: Leaf) -> tuple[int, int, int]:
    height, width, *channels = leaf.shape
    return height, width, math.prod(channels)


def _levels(pictures: Tensor, leaf: Leaf) -> Tensor:
    """Pictures (B, ...) uint8 as (B, height, width, channels) float from 0 to 1."""
    return pictures.reshape(-1, *_frame(leaf)).float() / 255


def _some(episodes: Sequence[Episode], leaf: Leaf) -> Tensor:
    """Levels of _FITTED_FRAMES frames, evenly spread."""
    frames = np.concatenate([episode.observation[leaf.path] for episode in episodes])
    chosen = np.unique(np.linspace(0, len(frames) - 1, min(len(frames), _FITTED_FRAMES)).astype(int))
    return _levels(torch.from_numpy(frames[chosen]), leaf)


def _tensors(observation: Mapping[str, np.ndarray], codec: Codec) -> Tensors:
    return {leaf.path: torch.from_numpy(np.ascontiguousarray(observation[leaf.path])) for leaf in codec.leaves}
