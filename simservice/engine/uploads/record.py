"""An inspected graph as it is stored and sent: what it takes and gives, and its ONNX without weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from simservice.engine.policies import DistributionName, TensorSpec
from simservice.engine.uploads.weights import WeightSpec

_LENGTH_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class PolicyGraph:
    """One graph that passed the inspection. Its hash covers all that decides what it computes, but for the weights."""

    distribution: DistributionName
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]  # the head first
    weights: tuple[WeightSpec, ...]
    rows_per_call: int  # a larger batch is run in several calls
    skeleton: bytes  # the model without its weights

    @cached_property
    def graph_hash(self) -> str:
        """64 hexadecimal digits."""
        told = json.dumps([self.distribution, [list(spec) for spec in self.weights]])
        return hashlib.sha256(told.encode() + b"\0" + self.skeleton).hexdigest()

    def content_hash(self, weights: bytes) -> str:
        """Of the graph with these weights (a fragment)."""
        digest = hashlib.sha256(self.graph_hash.encode())
        digest.update(weights)
        return digest.hexdigest()

    def to_bytes(self) -> bytes:
        """A JSON head behind its length, then the skeleton."""
        head = json.dumps(
            {
                "distribution": self.distribution,
                "inputs": _told(self.inputs),
                "outputs": _told(self.outputs),
                "weights": [list(spec) for spec in self.weights],
                "rows_per_call": self.rows_per_call,
            }
        ).encode()
        return len(head).to_bytes(_LENGTH_BYTES, "little") + head + self.skeleton

    @classmethod
    def from_bytes(cls, record: bytes) -> PolicyGraph:
        """The inverse of to_bytes."""
        end = _LENGTH_BYTES + int.from_bytes(record[:_LENGTH_BYTES], "little")
        head = json.loads(record[_LENGTH_BYTES:end])
        return cls(
            distribution=head["distribution"],
            inputs=_specs(head["inputs"]),
            outputs=_specs(head["outputs"]),
            weights=tuple(WeightSpec(name, dtype, tuple(shape)) for name, dtype, shape in head["weights"]),
            rows_per_call=head["rows_per_call"],
            skeleton=record[end:],
        )


def _told(specs: Sequence[TensorSpec]) -> list[list[object]]:
    return [[spec.name, list(spec.shape), spec.dtype.name] for spec in specs]


def _specs(told: list[tuple[str, list[int], str]]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name, tuple(shape), np.dtype(dtype)) for name, shape, dtype in told)
