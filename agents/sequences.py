"""What a planner believes about good action sequences: one distribution for each environment, sampled and refitted.

Sequences are (steps, environments, samples, ...). Refitting takes weights of the samples, and the two rules for these
are here, too: the cross-entropy method (Rubinstein 1999; as in Chua et al. 2018, PETS, algorithm 1) keeps the best few
alike, model predictive path integral control (Williams et al. 2017, equation 34) all of them by their returns.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium import spaces

Weights = Callable[[np.ndarray], np.ndarray]  # (environments, samples) returns to weights that sum to 1


def cross_entropy(elites: int) -> Weights:
    """The best `elites` count alike, all others not at all."""

    def weigh(returns: np.ndarray) -> np.ndarray:
        ranks = (-returns).argsort(1, kind="stable").argsort(1)
        return (ranks < elites) / elites

    return weigh


def path_integral(temperature: float) -> Weights:
    """exp(return / temperature), the temperature in standard deviations of the returns: it fits any reward."""

    def weigh(returns: np.ndarray) -> np.ndarray:
        scale = temperature * returns.std(1, keepdims=True) + 1e-9
        weights = np.exp((returns - returns.max(1, keepdims=True)) / scale)
        return weights / weights.sum(1, keepdims=True)

    return weigh


class Categories:
    """For Discrete actions: probabilities (steps, environments, n), never quite zero."""

    def __init__(self, space: spaces.Discrete, steps: int, environments: int, floor: float = 0.02) -> None:
        self._start, self._floor = int(space.start), floor
        self.probability = np.full((steps, environments, int(space.n)), 1.0 / int(space.n))

    def sample(self, samples: int, random: np.random.Generator) -> np.ndarray:
        """(steps, environments, samples) actions."""
        luck = random.random((*self.probability.shape[:2], samples, 1))
        below = self.probability.cumsum(-1)[:, :, None, :-1]
        return (luck > below).sum(-1) + self._start

    def refit(self, actions: np.ndarray, weights: np.ndarray) -> None:
        """Towards what the weighted samples did."""
        n = self.probability.shape[-1]
        did = actions[..., None] - self._start == np.arange(n)
        seen = np.einsum("tesn,es->ten", did, weights)
        self.probability = (1.0 - self._floor) * seen + self._floor / n

    def first(self) -> np.ndarray:
        """(environments,) the likeliest first action."""
        return self.probability[0].argmax(-1) + self._start

    def shift(self) -> None:
        """One step later: the plan goes on, and nothing is known of its new last step."""
        n = self.probability.shape[-1]
        later = np.concatenate([self.probability[1:], np.full_like(self.probability[:1], 1.0 / n)])
        self.probability = 0.8 * later + 0.2 / n  # the next plan is to look round again


class Gaussians:
    """For Box actions with bounds: mean and deviation of every element, (steps, environments, *shape)."""

    def __init__(self, space: spaces.Box, steps: int, environments: int, floor: float = 0.1) -> None:
        self._low, self._high, self._dtype = space.low, space.high, space.dtype
        self._wide = (space.high - space.low) / 2.0
        self._floor = floor * self._wide
        self.mean = np.broadcast_to((space.low + space.high) / 2.0, (steps, environments, *space.shape)).copy()
        self.deviation = np.broadcast_to(self._wide, self.mean.shape).copy()

    def sample(self, samples: int, random: np.random.Generator) -> np.ndarray:
        """(steps, environments, samples, *shape) actions inside the bounds."""
        shape = (*self.mean.shape[:2], samples, *self.mean.shape[2:])
        drawn = self.mean[:, :, None] + self.deviation[:, :, None] * random.standard_normal(shape)
        return drawn.clip(self._low, self._high).astype(self._dtype)

    def refit(self, actions: np.ndarray, weights: np.ndarray) -> None:
        """To the weighted samples' moments."""
        self.mean = np.einsum("tes...,es->te...", actions, weights)
        square = np.einsum("tes...,es->te...", (actions - self.mean[:, :, None]) ** 2, weights)
        self.deviation = np.maximum(np.sqrt(square), self._floor)

    def first(self) -> np.ndarray:
        """(environments, *shape) the mean first action."""
        return self.mean[0].clip(self._low, self._high).astype(self._dtype)

    def shift(self) -> None:
        """One step later, with all doubt back."""
        self.mean = np.concatenate([self.mean[1:], np.zeros_like(self.mean[:1]) + (self._low + self._high) / 2.0])
        self.deviation = np.broadcast_to(self._wide, self.mean.shape).copy()


def believe(space: Any, steps: int, environments: int) -> Categories | Gaussians:
    """Everything possible, at first."""
    if isinstance(space, spaces.Discrete):
        return Categories(space, steps, environments)
    if isinstance(space, spaces.Box) and space.is_bounded():
        return Gaussians(space, steps, environments)
    raise SystemExit(f"planning needs Discrete actions or a Box with bounds, {space} is neither")
