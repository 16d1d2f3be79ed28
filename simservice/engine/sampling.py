"""Actions and their log-probabilities from a policy head's outputs and the lanes' own luck, in numpy.

Conventions are RLlib's (ray.rllib.core.distribution.torch.torch_distribution and the connector
NormalizeAndClipActions): a learner gets the raw action that was sampled, the world the one that fits its space. Draws
are handed in, so a lane's actions do not depend on who shares its batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from simservice.engine.policies import DISTRIBUTIONS, DistributionName, TensorSpec
from simservice.errors import InvalidInput, InvalidPolicy
from simservice.types import Array, Leaf, leaves_of
from simservice.worlds.world import Draw

LOG_STD_BOUNDS = (-5.0, 2.0)
"""Of squashed Gaussians, as in SAC's reference implementations and RLlib (MIN_LOG_NN_OUTPUT, MAX_LOG_NN_OUTPUT)."""

_LOG_ROOT_TWO_PI = 0.5 * math.log(2.0 * math.pi)
_LOG_TWO = math.log(2.0)


@dataclass(frozen=True, kw_only=True)
class SamplingParameters:
    """How a rollout explores."""

    explore: bool = True  # False: the likeliest action, the mean, the highest value; log-probabilities are 0 then
    epsilon: float = 0.0  # of epsilon_greedy: the share of actions that are drawn evenly
    rescale: bool = True  # Box: raw actions in [-1, 1] are stretched onto finite bounds; False: they are only clipped

    def __post_init__(self) -> None:
        if not 0.0 <= self.epsilon <= 1.0:
            raise InvalidInput("epsilon", f"is {self.epsilon}; it is a probability, 0 to 1")


class Sampled(NamedTuple):
    """One action for each lane."""

    raw: Array  # as the learner trains on it: int64 (lanes,) or (lanes, k), or float32 (lanes, *shape)
    action: Array  # as the world takes it: (lanes, *shape) in the space's dtype, inside the space
    log_probability: Array  # (lanes,) float32, of the raw action


@dataclass(frozen=True)
class ActionDistribution:
    """A distribution over one world's actions. InvalidPolicy where the two do not go together."""

    name: DistributionName
    space: gym.Space[Any]
    leaf: Leaf = field(init=False)

    def __post_init__(self) -> None:
        if self.name not in DISTRIBUTIONS:
            raise InvalidPolicy(f"distribution {self.name!r} is unknown", f"take one of: {', '.join(DISTRIBUTIONS)}")
        kinds = _KINDS[self.name]
        if not isinstance(self.space, kinds) or (isinstance(self.space, spaces.Box) and not _of_floats(self.space)):
            wanted = " or ".join(kind.__name__ for kind in kinds)
            raise InvalidPolicy(
                f"a {self.name} distribution gives actions of a {wanted} of floats or a Discrete kind, and this "
                f"world's actions are {self.space}",
                "take a distribution that fits the action space",
            )
        object.__setattr__(self, "leaf", leaves_of(self.space, "action")[0])

    @cached_property
    def head(self) -> TensorSpec:
        """The output that a policy must have for it."""
        numbers = math.prod(self.leaf.shape)
        if self.name == "deterministic":
            kind = np.dtype(np.float32 if isinstance(self.space, spaces.Box) else np.int64)
            return TensorSpec("actions", self.leaf.shape, kind)
        width = 2 * numbers if self.name in ("gaussian", "squashed_gaussian") else int(self._counts.sum())
        name = "q_values" if self.name == "epsilon_greedy" else "action_dist_inputs"
        return TensorSpec(name, (width,), np.dtype(np.float32))

    @cached_property
    def draws(self) -> Mapping[str, Draw]:
        """The luck it takes for each lane and step; none is needed where nothing is explored."""
        if self.name == "deterministic":
            return {}
        if self.name in ("gaussian", "squashed_gaussian"):
            return {"normal": Draw("normal", (math.prod(self.leaf.shape),))}
        return {"uniform": Draw("uniform", (2 if self.name == "epsilon_greedy" else len(self._counts),))}

    @cached_property
    def _counts(self) -> Array:
        if isinstance(self.space, spaces.Discrete):
            return np.array([int(self.space.n)])
        assert isinstance(self.space, spaces.MultiDiscrete)
        return np.asarray(self.space.nvec).reshape(-1)

    def to_world(self, raw: Array, parameters: SamplingParameters) -> Array:
        """Raw actions as the world takes them."""
        if isinstance(self.space, spaces.Box):
            low, high = self._bounds
            # In RLlib's order of operations, so that both round alike.
            stretched = parameters.rescale and self._finite
            action: Array = low + (raw + 1.0) * (high - low) / 2.0 if stretched else raw
            return np.asarray(np.clip(action, low, high), dtype=self.leaf.dtype)
        assert isinstance(self.space, spaces.Discrete | spaces.MultiDiscrete)
        return np.asarray(raw.reshape(len(raw), *self.leaf.shape) + self.space.start, dtype=self.leaf.dtype)

    @cached_property
    def _bounds(self) -> tuple[Array, Array]:
        assert isinstance(self.space, spaces.Box)
        return self.space.low, self.space.high

    @cached_property
    def _finite(self) -> bool:
        return all(bool(np.isfinite(bound).all()) for bound in self._bounds)


def _of_floats(space: spaces.Box) -> bool:
    return np.issubdtype(space.dtype, np.floating)


def sample(
    distribution: ActionDistribution,
    outputs: Mapping[str, Array],
    draws: Mapping[str, Array],
    parameters: SamplingParameters,
) -> Sampled:
    """One action a lane. `outputs` holds the distribution's head, `draws` (lanes, ...) what it asks for, float32.

    InvalidPolicy when the head gave what is no distribution: NaN, infinite, or no action that is possible.
    """
    head = outputs[distribution.head.name]
    raw, log_probability = _SAMPLERS[distribution.name](distribution, head, draws, parameters)
    return Sampled(raw, distribution.to_world(raw, parameters), log_probability)


# ---- discrete ------------------------------------------------------------------------------------------------------


def _categorical(
    distribution: ActionDistribution, logits: Array, draws: Mapping[str, Array], parameters: SamplingParameters
) -> tuple[Array, Array]:
    uniform = draws["uniform"][:, 0] if parameters.explore else None
    return _pick(logits, uniform)


def _multi_categorical(
    distribution: ActionDistribution, logits: Array, draws: Mapping[str, Array], parameters: SamplingParameters
) -> tuple[Array, Array]:
    ends = np.cumsum(distribution._counts)
    picked = [
        _pick(part, draws["uniform"][:, place] if parameters.explore else None)
        for place, part in enumerate(np.split(logits, ends[:-1], axis=1))
    ]
    return np.stack([choice for choice, _ in picked], axis=1), np.stack([log for _, log in picked]).sum(axis=0)


def _pick(logits: Array, uniform: Array | None) -> tuple[Array, Array]:
    """By the inverse of the cumulative distribution; None: the likeliest. -inf is an action that is not possible."""
    # One row an action: numpy reduces over rows several times faster than over short columns.
    rows = np.ascontiguousarray(logits.T)
    highest = rows.max(axis=0)
    _refuse_strange(highest, "logits")
    if uniform is None:
        return logits.argmax(axis=1), np.zeros(len(logits), np.float32)
    shifted = rows - highest
    cumulative = np.cumsum(np.exp(shifted), axis=0, dtype=np.float64)
    total = cumulative[-1]
    # 53 bits of a sum against 24 of a draw: the product stays below the total, and impossible actions are passed over.
    choice: Array = (cumulative <= uniform * total).sum(axis=0)
    log_probability = shifted[choice, _numbered(len(choice))] - np.log(total)
    return choice, log_probability.astype(np.float32)


@lru_cache(maxsize=16)
def _numbered(lanes: int) -> Array:
    return np.arange(lanes)


def _epsilon_greedy(
    distribution: ActionDistribution, values: Array, draws: Mapping[str, Array], parameters: SamplingParameters
) -> tuple[Array, Array]:
    rows = np.ascontiguousarray(values.T)
    _refuse_strange(rows.max(axis=0), "q_values")
    greedy: Array = rows.argmax(axis=0)
    if not parameters.explore:
        return greedy, np.zeros(len(values), np.float32)
    cumulative = np.cumsum(np.isfinite(rows), axis=0)  # values of -inf mask actions
    count = cumulative[-1]
    uniform = draws["uniform"].astype(np.float64)
    anything: Array = (cumulative <= np.floor(uniform[:, 1] * count)).sum(axis=0)
    choice = np.where(uniform[:, 0] < parameters.epsilon, anything, greedy)
    probability = parameters.epsilon / count + (1.0 - parameters.epsilon) * (choice == greedy)
    return choice, np.log(probability).astype(np.float32)


# ---- continuous ----------------------------------------------------------------------------------------------------


def _gaussian(
    distribution: ActionDistribution, head: Array, draws: Mapping[str, Array], parameters: SamplingParameters
) -> tuple[Array, Array]:
    mean, log_std = _halves(head)
    if not parameters.explore:
        return _shaped(mean, distribution), np.zeros(len(mean), np.float32)
    noise = draws["normal"]
    with np.errstate(over="ignore"):
        raw = mean + np.exp(log_std) * noise
    _refuse_strange(raw, "standard deviations")
    return _shaped(raw, distribution), _over_lanes(_log_normal(noise, log_std))


def _squashed_gaussian(
    distribution: ActionDistribution, head: Array, draws: Mapping[str, Array], parameters: SamplingParameters
) -> tuple[Array, Array]:
    """Haarnoja et al. 2018 (arXiv:1801.01290), Appendix C, equation 21, with log(1 - tanh²x) in its stable form."""
    mean, log_std = _halves(head)
    if not parameters.explore:
        return _shaped(np.tanh(mean), distribution), np.zeros(len(mean), np.float32)
    log_std = np.clip(log_std, *LOG_STD_BOUNDS)
    noise = draws["normal"]
    before = mean + np.exp(log_std) * noise
    size = np.abs(before)  # the slope is the same on both sides, and the exponential then never large
    log_slope = 2.0 * (_LOG_TWO - size - np.log(1.0 + np.exp(-2.0 * size)))
    log_probability = _over_lanes(_log_normal(noise, log_std) - log_slope)
    return _shaped(np.tanh(before), distribution), log_probability


def _halves(head: Array) -> tuple[Array, Array]:
    """Means and logarithms of standard deviations."""
    _refuse_strange(head, "means and log standard deviations")
    half = head.shape[1] // 2
    return head[:, :half], head[:, half:]


def _over_lanes(numbers: Array) -> Array:
    """The sum of each lane's numbers, added up number by number, whoever else is in the batch."""
    total: Array = np.ascontiguousarray(numbers.T).sum(axis=0)
    return total


def _log_normal(noise: Array, log_std: Array) -> Array:
    """The log-density of mean + exp(log_std) * noise."""
    density: Array = -0.5 * noise * noise - log_std - np.float32(_LOG_ROOT_TWO_PI)
    return density


def _shaped(raw: Array, distribution: ActionDistribution) -> Array:
    return raw.reshape(len(raw), *distribution.leaf.shape)


def _deterministic(
    distribution: ActionDistribution, actions: Array, draws: Mapping[str, Array], parameters: SamplingParameters
) -> tuple[Array, Array]:
    nothing = np.zeros(len(actions), np.float32)
    if isinstance(distribution.space, spaces.Box):
        _refuse_strange(actions, "actions")
        return actions, nothing
    flat = actions.reshape(len(actions), -1)
    if ((flat < 0) | (flat >= distribution._counts)).any():
        raise InvalidPolicy(
            f"the policy chose an action outside 0 to {int(distribution._counts.max()) - 1}",
            "count actions from 0, whatever the space's start is",
        )
    return actions, nothing


def _refuse_strange(numbers: Array, what: str) -> None:
    finite = np.isfinite(numbers)
    if finite.all():
        return
    lane = int(np.argmin(finite.reshape(len(numbers), -1).all(axis=1)))
    raise InvalidPolicy(
        f"the policy gave {what} that are NaN or infinite in lane {lane}",
        "see whether its weights have diverged, or what it does with observations of this world",
    )


_Draw = Callable[[ActionDistribution, Array, Mapping[str, Array], SamplingParameters], tuple[Array, Array]]

_SAMPLERS: Mapping[str, _Draw] = {
    "categorical": _categorical,
    "multi_categorical": _multi_categorical,
    "gaussian": _gaussian,
    "squashed_gaussian": _squashed_gaussian,
    "epsilon_greedy": _epsilon_greedy,
    "deterministic": _deterministic,
}

_KINDS: Mapping[str, tuple[type[gym.Space[Any]], ...]] = {
    "categorical": (spaces.Discrete,),
    "multi_categorical": (spaces.MultiDiscrete,),
    "gaussian": (spaces.Box,),
    "squashed_gaussian": (spaces.Box,),
    "epsilon_greedy": (spaces.Discrete,),
    "deterministic": (spaces.Discrete, spaces.MultiDiscrete, spaces.Box),
}
