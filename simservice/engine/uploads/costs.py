"""What a graph would cost, told from its shapes before anything of it runs. Runs in the inspection's process only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from simservice.engine.policies import TensorSpec
from simservice.engine.uploads.graph import ParsedModel
from simservice.engine.uploads.limits import PolicyLimits
from simservice.engine.uploads.messages import first_line
from simservice.engine.uploads.operators import multiply_adds, workspace
from simservice.engine.uploads.weights import ELEMENT_TYPES
from simservice.errors import InvalidPolicy, PolicyLimitExceeded

_Known = Mapping[str, tuple[tuple[int, ...], int]]  # shape and element size by name


@dataclass(frozen=True)
class Costs:
    """Of a policy that keeps within the limits."""

    rows_per_call: int
    outputs: tuple[TensorSpec, ...]


def estimate(parsed: ParsedModel, limits: PolicyLimits) -> Costs:
    """The largest batch one call may have. PolicyLimitExceeded when not even the fewest rows fit."""
    few, more = limits.least_rows, 2 * limits.least_rows
    _check_plain(parsed, few, limits)
    first, second = _Estimate.at(parsed, few), _Estimate.at(parsed, more)
    outputs = _outputs(parsed, first, second, (few, more))
    per_row = (second.multiply_adds - first.multiply_adds) / (more - few)
    if per_row > limits.multiply_adds_per_row:
        raise PolicyLimitExceeded(
            "multiply-adds a lane",
            found=math.ceil(per_row),
            most=limits.multiply_adds_per_row,
            remedy="send a smaller network",
        )
    rows = limits.most_rows
    while rows > few and not _within(first, second, few, more, rows, limits):
        rows //= 2
    # A straight line through two sizes said so; what grows faster than its batch is met here.
    _check(_Estimate.at(parsed, rows), rows, limits)
    return Costs(rows, outputs)


@dataclass(frozen=True)
class _Estimate:
    shapes: _Known
    largest: tuple[str, int]
    bytes: int
    multiply_adds: int

    @classmethod
    def at(cls, parsed: ParsedModel, rows: int) -> _Estimate:
        """With a batch of so many rows."""
        inferred = _inferred(parsed, rows, data_prop=True)
        shapes = _shapes(inferred)
        computed = {name: math.prod(shapes[name][0]) * shapes[name][1] for name in _computed(inferred, shapes)}
        largest = max(computed.items(), key=lambda item: item[1], default=("", 0))
        work, beside = 0, 0
        for node in inferred.graph.node:
            more, kept = _work(node, shapes)
            work, beside = work + more, max(beside, kept)
        return cls(shapes, largest, sum(computed.values()) + beside, work)


def _check_plain(parsed: ParsedModel, rows: int, limits: PolicyLimits) -> None:
    """Looks at the sizes that constants tell; working out what follows of a huge one would be as huge."""
    inferred = _inferred(parsed, rows, data_prop=False)
    shapes = _shapes(inferred)
    known = {name for node in inferred.graph.node for name in node.output if name in shapes}
    sizes = {name: math.prod(shapes[name][0]) * shapes[name][1] for name in known}
    largest = max(sizes.items(), key=lambda item: item[1], default=("", 0))
    _check(_Estimate(shapes, largest, sum(sizes.values()), 0), rows, limits)


def _inferred(parsed: ParsedModel, rows: int, *, data_prop: bool) -> onnx.ModelProto:
    try:
        return onnx.shape_inference.infer_shapes(
            _of_batch(parsed, rows), check_type=True, strict_mode=True, data_prop=data_prop
        )
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError) as error:
        raise InvalidPolicy(
            f"the shapes of the graph do not go together ({first_line(error)})",
            "see that onnx.shape_inference takes it in strict mode",
        ) from error


def _of_batch(parsed: ParsedModel, rows: int) -> onnx.ModelProto:
    model = onnx.ModelProto()
    model.CopyFrom(parsed.skeleton)
    for value in model.graph.input:
        value.type.tensor_type.shape.dim[0].dim_value = rows
    # Weights without values: an update may bring any others, so no size may depend on them.
    for spec, _ in parsed.weights:
        kind = next(number for number, dtype in ELEMENT_TYPES.items() if dtype.name == spec.dtype)
        model.graph.input.append(onnx.helper.make_tensor_value_info(spec.name, kind, spec.shape))
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    return model


def _shapes(model: onnx.ModelProto) -> _Known:
    found: dict[str, tuple[tuple[int, ...], int]] = {"": ((0,), 0)}  # an optional input that is not given
    for tensor in model.graph.initializer:
        found[tensor.name] = (tuple(tensor.dims), ELEMENT_TYPES[tensor.data_type].itemsize)
    for value in (*model.graph.input, *model.graph.value_info, *model.graph.output):
        kind = value.type.tensor_type
        dims = kind.shape.dim
        if kind.HasField("shape") and all(dim.HasField("dim_value") for dim in dims):
            dtype = ELEMENT_TYPES.get(kind.elem_type)
            if dtype is None:
                raise InvalidPolicy(
                    f"{value.name[:80]!r} has an element type that policies may not use",
                    "use floats of 16 to 64 bits, integers and booleans",
                )
            found[value.name] = (tuple(dim.dim_value for dim in dims), dtype.itemsize)
    return found


def _computed(model: onnx.ModelProto, shapes: _Known) -> set[str]:
    """The names of all that nodes give; InvalidPolicy for one whose size cannot be told."""
    names: set[str] = set()
    for place, node in enumerate(model.graph.node):
        for name in node.output:
            if name not in shapes:
                raise InvalidPolicy(
                    f"the size of {name[:80]!r}, a result of node {place} ({node.op_type}), cannot be told before it "
                    "runs",
                    "let shapes depend on constants and the number of lanes alone, e.g. Flatten or Reshape to (-1, 64)",
                )
            names.add(name)
    return names - {""}


def _work(node: onnx.NodeProto, shapes: _Known) -> tuple[int, int]:
    """Its multiply-adds, and the bytes it may keep while it works."""
    attributes: dict[str, Any] = {}
    for attribute in node.attribute:
        value = onnx.helper.get_attribute_value(attribute)
        attributes[attribute.name] = value.decode("ascii", "replace") if isinstance(value, bytes) else value
    try:
        taken, given = ([shapes[name][0] for name in names] for names in (node.input, node.output))
        beside = 8 * workspace(node.op_type, attributes, taken, given)
        return multiply_adds(node.op_type, attributes, taken, given), beside
    except (KeyError, IndexError) as error:
        raise InvalidPolicy(
            f"a {node.op_type} lacks what it needs ({first_line(error)})", "correct the graph"
        ) from error


def _within(first: _Estimate, second: _Estimate, few: int, more: int, rows: int, limits: PolicyLimits) -> bool:
    def along(at_few: int, at_more: int) -> float:
        return at_few + (at_more - at_few) * (rows - few) / (more - few)

    return (
        along(first.bytes, second.bytes) <= limits.call_bytes
        and along(first.multiply_adds, second.multiply_adds) <= limits.call_multiply_adds
    )


def _check(estimate: _Estimate, rows: int, limits: PolicyLimits) -> None:
    if estimate.bytes > limits.call_bytes:
        name, size = estimate.largest
        raise PolicyLimitExceeded(
            f"bytes computed in one call of {rows} lanes (the most, {size:,}, are {name[:60]!r})",
            found=estimate.bytes,
            most=limits.call_bytes,
            remedy="make what the graph computes smaller",
        )
    if estimate.multiply_adds > limits.call_multiply_adds:
        raise PolicyLimitExceeded(
            f"multiply-adds in one call of {rows} lanes",
            found=estimate.multiply_adds,
            most=limits.call_multiply_adds,
            remedy="send a smaller network",
        )


def _outputs(parsed: ParsedModel, first: _Estimate, second: _Estimate, rows: tuple[int, int]) -> tuple[TensorSpec, ...]:
    """The outputs with their shapes: lanes first, and everything else the same in every batch."""
    found = []
    for spec in parsed.outputs:
        if spec.name not in first.shapes or spec.name not in second.shapes:
            raise InvalidPolicy(f"output {spec.name!r} comes out of no node", "let a node compute it")
        shapes = first.shapes[spec.name][0], second.shapes[spec.name][0]
        if any(shape[:1] != (count,) for shape, count in zip(shapes, rows, strict=True)):
            raise InvalidPolicy(
                f"output {spec.name!r} has the shape {list(shapes[0])} for {rows[0]} lanes",
                "its first axis must be the lanes, as of the inputs",
            )
        if shapes[0][1:] != shapes[1][1:]:
            raise InvalidPolicy(
                f"output {spec.name!r} grows with the lanes behind its first axis", "lanes must not know each other"
            )
        found.append(TensorSpec(spec.name, shapes[0][1:], np.dtype(spec.dtype)))
    return tuple(found)
