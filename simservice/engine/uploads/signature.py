"""Holds a policy's inputs and outputs against what a world shows and takes. Knows no ONNX and no spaces."""

from __future__ import annotations

import math
from collections.abc import Sequence

from simservice.engine.policies import DistributionName, TensorSpec
from simservice.engine.uploads.limits import PolicyLimits
from simservice.errors import InvalidPolicy, PolicyLimitExceeded

_HEADS = {"action_dist_inputs", "q_values", "actions"}


def check_inputs(inputs: Sequence[TensorSpec], leaves: Sequence[TensorSpec]) -> None:
    """InvalidPolicy names the first input that is none of the observation's leaves, or not as the leaf is."""
    known = {leaf.name: leaf for leaf in leaves}
    if not inputs:
        raise InvalidPolicy("the graph has no input", f"give it inputs named {', '.join(known)}")
    for spec in inputs:
        leaf = known.get(spec.name)
        if leaf is None:
            raise InvalidPolicy(
                f"input {spec.name[:80]!r} is no leaf of the observation", f"name inputs as leaves: {', '.join(known)}"
            )
        if (spec.shape, spec.dtype) != (leaf.shape, leaf.dtype):
            raise InvalidPolicy(
                f"input {spec.name!r} is {told(spec.shape, spec.dtype.name)}, and observations of this world are "
                f"{told(leaf.shape, leaf.dtype.name)}",
                "take that shape and dtype, and cast or reshape inside the graph",
            )


def check_outputs(
    outputs: Sequence[TensorSpec], distribution: DistributionName, head: TensorSpec, limits: PolicyLimits
) -> tuple[TensorSpec, ...]:
    """The outputs, the head first; InvalidPolicy names what the distribution over the world's actions lacks."""
    named = {spec.name: spec for spec in outputs}
    found = named.pop(head.name, None)
    if found is None:
        raise InvalidPolicy(
            f"there is no output {head.name!r} among {_names(outputs)}",
            f"a {distribution} policy of this world gives {head.name!r}, {told(head.shape, head.dtype.name)}",
        )
    if (found.shape, found.dtype) != (head.shape, head.dtype):
        raise InvalidPolicy(
            f"output {head.name!r} is {told(found.shape, found.dtype.name)}",
            f"a {distribution} policy of this world gives {told(head.shape, head.dtype.name)}",
        )
    if strange := sorted(_HEADS & named.keys()):
        raise InvalidPolicy(
            f"output {strange[0]!r} stands beside {head.name!r}", f"a {distribution} policy has one head"
        )
    value = named.get("value")
    if value is not None and (value.shape, value.dtype.name) != ((), "float32"):
        raise InvalidPolicy(
            f"output 'value' is {told(value.shape, value.dtype.name)}", "it is one float32 a lane, (N,): squeeze it"
        )
    more = sum(math.prod(spec.shape) * spec.dtype.itemsize for spec in named.values())
    if more > limits.output_bytes_per_row:
        raise PolicyLimitExceeded(
            "bytes a lane of outputs beside the head",
            found=more,
            most=limits.output_bytes_per_row,
            remedy="give fewer outputs; every step of a rollout carries them",
        )
    return (found, *named.values())


def told(shape: Sequence[int], dtype: str) -> str:
    """As people write it: "float32 (N, 3)"."""
    return f"{dtype} ({', '.join(['N', *map(str, shape)])}{',' if not shape else ''})"


def _names(outputs: Sequence[TensorSpec]) -> str:
    return ", ".join(repr(spec.name[:40]) for spec in outputs[:6]) or "none"
