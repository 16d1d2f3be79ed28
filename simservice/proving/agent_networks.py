"""The proving agent's networks: what it sees as numbers, a policy, a value. Vectors, pictures, and Dicts of both."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from simservice.errors import UnsupportedSpace
from simservice.types import Leaf, leaves_of

Seen = dict[str, Tensor]
"""A batch of observations by leaf path, in the space's dtypes."""

LEAST_SIDE = 16  # smaller arrays of bytes are boards, and seen as vectors


class Agent(nn.Module):
    """Policy and value over one observation space. Vectors are normalised by running moments; pictures pass a CNN."""

    mean: Tensor
    variance: Tensor

    def __init__(self, observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> None:
        super().__init__()
        leaves = leaves_of(observation_space, "observation")
        self.pictures = [leaf for leaf in leaves if _is_picture(leaf)]
        self.vectors = [leaf for leaf in leaves if not _is_picture(leaf)]
        if isinstance(action_space, spaces.Discrete):
            outputs = int(action_space.n)
        elif isinstance(action_space, spaces.Box):
            outputs = int(np.prod(action_space.shape))
            self.register_buffer("limit", torch.from_numpy(action_space.high.reshape(-1).astype(np.float32)))
        else:
            raise UnsupportedSpace("action", type(action_space).__name__)
        self.action_space = action_space
        self.eyes = nn.ModuleList([_eye(leaf) for leaf in self.pictures])
        width = sum(math.prod(leaf.shape) for leaf in self.vectors)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("variance", torch.ones(width))
        self.count = 1e-4
        inputs = width + _SEEN * len(self.pictures)
        self.policy, self.value = _network(inputs, outputs, 0.01), _network(inputs, 1, 1.0)
        self.log_std = nn.Parameter(torch.zeros(outputs))

    @property
    def discrete(self) -> bool:
        """Whether an action is one of several."""
        return isinstance(self.action_space, spaces.Discrete)

    def see(self, observation: Seen) -> None:
        """Updates the moments of vectors by a batch."""
        if not self.vectors:
            return
        rows = self._flat(observation)
        count, mean, variance = len(rows), rows.mean(0), rows.var(0, unbiased=False)
        total, gap = self.count + count, mean - self.mean
        self.variance.copy_(
            (self.variance * self.count + variance * count + gap.square() * self.count * count / total) / total
        )
        self.mean.add_(gap * count / total)
        self.count = total

    def look(self, observation: Seen) -> Tensor:
        """(B, inputs) what policy and value take."""
        parts = [eye(_light(observation[leaf.path])) for eye, leaf in zip(self.eyes, self.pictures, strict=True)]
        if self.vectors:
            flat = (self._flat(observation) - self.mean) / torch.sqrt(self.variance + 1e-8)
            parts.append(flat.clamp(-10, 10))
        return parts[0] if len(parts) == 1 else torch.cat(parts, -1)

    def draw(self, output: Tensor, generator: torch.Generator) -> Tensor:
        """A sampled action for each row of the policy's output."""
        if self.discrete:
            uniform = torch.rand(output.shape, generator=generator).clamp_min(1e-9)
            return (output - torch.log(-torch.log(uniform))).argmax(-1)
        return output + torch.randn(output.shape, generator=generator) * self.log_std.exp()

    def log_probability(self, output: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """(log-probability, entropy) of actions under the policy's output."""
        if self.discrete:
            logs = torch.log_softmax(output, -1)
            return logs.gather(-1, action.unsqueeze(-1)).squeeze(-1), -(logs.exp() * logs).sum(-1)
        std = self.log_std.exp()
        log = -0.5 * ((action - output) / std).square() - self.log_std - 0.5 * math.log(2 * math.pi)
        return log.sum(-1), (self.log_std + 0.5 * math.log(2 * math.pi * math.e)).sum().expand(len(output))

    def taken(self, action: Tensor) -> Tensor:
        """What the environment is given for a drawn action."""
        return action if self.discrete else action.clamp(-1, 1) * self.get_buffer("limit")

    @torch.no_grad()
    def greedy(self, observation: Seen) -> np.ndarray[Any, np.dtype[Any]]:
        """The likeliest action of each row, as the action space has it."""
        output = self.policy(self.look(observation))
        if isinstance(self.action_space, spaces.Discrete):
            return np.asarray(output.argmax(-1).numpy() + self.action_space.start, dtype=self.action_space.dtype)
        assert self.action_space.shape is not None
        return np.asarray(self.taken(output).reshape(-1, *self.action_space.shape).numpy(), self.action_space.dtype)

    def _flat(self, observation: Seen) -> Tensor:
        rows = [observation[leaf.path].flatten(1).float() for leaf in self.vectors]
        return rows[0] if len(rows) == 1 else torch.cat(rows, -1)


_SEEN = 128  # numbers a picture is seen as


def _is_picture(leaf: Leaf) -> bool:
    return leaf.dtype == np.uint8 and len(leaf.shape) == 3 and min(leaf.shape[:2]) >= LEAST_SIDE


def _light(frames: Tensor) -> Tensor:
    """(B, channels, height, width) in [0, 1] of bytes (B, height, width, channels)."""
    return frames.permute(0, 3, 1, 2).float().div_(255)


def _eye(leaf: Leaf) -> nn.Module:
    """Patches of an eighth of the side first: cheap, and cells of the proving grounds are as large."""
    height, width, channels = leaf.shape
    patch = max(4, min(height, width) // 8)
    first = nn.Conv2d(channels, 32, patch, patch)
    second = nn.Conv2d(32, 32, 3, 2, 1)
    with torch.no_grad():
        flat = second(first(torch.zeros(1, channels, height, width))).numel()
    last = nn.Linear(flat, _SEEN)
    for layer in (first, second, last):
        nn.init.orthogonal_(layer.weight, math.sqrt(2))
        assert layer.bias is not None
        nn.init.zeros_(layer.bias)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Flatten(), last, nn.ReLU())


def _network(inputs: int, outputs: int, gain: float) -> nn.Sequential:
    layers = [nn.Linear(inputs, 64), nn.Linear(64, 64), nn.Linear(64, outputs)]
    for layer, size in zip(layers, (math.sqrt(2), math.sqrt(2), gain), strict=True):
        nn.init.orthogonal_(layer.weight, size)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(layers[0], nn.Tanh(), layers[1], nn.Tanh(), layers[2])
