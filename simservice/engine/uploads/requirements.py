"""What a policy must fit to act in a world, as the inspecting process is told it. Knows no ONNX and no spaces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from simservice.engine.policies import DistributionName, TensorSpec
from simservice.engine.uploads.limits import PolicyLimits
from simservice.types import Array

SAMPLES = 3
"""So many lanes are tried together and each alone: no lane may know its neighbours."""


@dataclass(frozen=True, kw_only=True)
class Requirements:
    """What a policy must fit: the world's observation leaves with samples of them, and the head it has to have."""

    distribution: DistributionName
    head: TensorSpec
    leaves: tuple[TensorSpec, ...]
    samples: tuple[bytes, ...]  # of each leaf SAMPLES values, raw

    def to_head(self, limits: PolicyLimits) -> dict[str, Any]:
        """As JSON, but for the samples."""
        return {
            "distribution": self.distribution,
            "head": _spec_told(self.head),
            "leaves": [_spec_told(leaf) for leaf in self.leaves],
            "limits": asdict(limits),
        }

    @classmethod
    def from_head(cls, head: Mapping[str, Any], samples: tuple[bytes, ...]) -> Requirements:
        """The inverse of to_head."""
        return cls(
            distribution=head["distribution"],
            head=_spec_of(head["head"]),
            leaves=tuple(_spec_of(leaf) for leaf in head["leaves"]),
            samples=samples,
        )

    def observation(self) -> dict[str, Array]:
        """The samples by leaf."""
        return {
            leaf.name: np.frombuffer(raw, leaf.dtype).reshape(SAMPLES, *leaf.shape)
            for leaf, raw in zip(self.leaves, self.samples, strict=True)
        }


def _spec_told(spec: TensorSpec) -> list[object]:
    return [spec.name, list(spec.shape), spec.dtype.name]


def _spec_of(told_as: tuple[str, list[int], str]) -> TensorSpec:
    name, shape, dtype = told_as
    return TensorSpec(name, tuple(shape), np.dtype(dtype))
