"""What a rollout asks of an uploaded policy: observations in, its head's outputs out. Knows no ONNX and no wire.

Arrays go by leaf path as everywhere ("observation", "observation/image", "observation/0"), lanes first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from simservice.types import Array, Leaves

DistributionName = Literal[
    "categorical", "multi_categorical", "gaussian", "squashed_gaussian", "epsilon_greedy", "deterministic"
]

DISTRIBUTIONS: tuple[DistributionName, ...] = (
    "categorical",
    "multi_categorical",
    "gaussian",
    "squashed_gaussian",
    "epsilon_greedy",
    "deterministic",
)


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a policy: its name, and the shape and dtype of one lane's value."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class RolloutPolicy(Protocol):
    """A policy that was checked and is loaded. Calls may come from any thread, several at a time."""

    content_hash: str  # over graph, weights and distribution: 64 hexadecimal digits
    distribution: DistributionName  # how actions come of the head's outputs; sampling.py
    inputs: tuple[TensorSpec, ...]  # observation leaves, by path
    outputs: tuple[TensorSpec, ...]  # "action_dist_inputs", "q_values" or "actions", then whatever else it gives

    def __call__(self, observation: Leaves) -> dict[str, Array]:
        """Outputs by name, each (lanes, ...), of observation leaves (lanes, ...).

        Rows do not know each other. InvalidPolicy or PolicyLimitExceeded when the call fails or takes too long; the
        policy is of no use then.
        """
