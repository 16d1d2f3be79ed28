"""Reads an ONNX file into a graph of plain nodes and its weights, or says what in it is not allowed.

What is kept is built anew from what is understood: nothing hides in a field that nobody looked at. Runs in the
inspection's process only.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import numpy_helper

from simservice.engine.policies import TensorSpec
from simservice.engine.uploads.limits import PolicyLimits
from simservice.engine.uploads.messages import first_line
from simservice.engine.uploads.operators import ALLOWED
from simservice.engine.uploads.weights import ELEMENT_TYPES, WeightSpec, check_finite
from simservice.errors import InvalidPolicy, PolicyLimitExceeded

OPSETS = (11, 23)
IR_VERSIONS = (4, 12)
NAME_CHARACTERS = 256

Attribute = onnx.AttributeProto
_PLAIN = {
    Attribute.FLOAT: "f",
    Attribute.INT: "i",
    Attribute.STRING: "s",
    Attribute.FLOATS: "floats",
    Attribute.INTS: "ints",
}


@dataclass(frozen=True)
class ParsedModel:
    """A file that holds nothing but what is allowed. Sizes and shapes between nodes are not looked at yet."""

    skeleton: onnx.ModelProto  # without weights
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]  # their shapes are not known yet
    weights: tuple[tuple[WeightSpec, bytes], ...]  # floating-point initializers; others belong to the graph

    @property
    def whole(self) -> onnx.ModelProto:
        """With the weights, as it is run."""
        model = onnx.ModelProto()
        model.CopyFrom(self.skeleton)
        for spec, raw in self.weights:
            model.graph.initializer.append(_tensor(spec, raw))
        return model


def parse_model(file: bytes, limits: PolicyLimits) -> ParsedModel:
    """The model in a file. InvalidPolicy or PolicyLimitExceeded tells what was found and what to do."""
    if len(file) > limits.file_bytes:
        raise PolicyLimitExceeded(
            "bytes of the file", found=len(file), most=limits.file_bytes, remedy="send a smaller network"
        )
    model = onnx.ModelProto()
    try:
        model.ParseFromString(file)
    except DecodeError:
        _refuse(
            "the bytes are no ONNX model, or one nested too deep or of too many parts",
            "send what torch.onnx.export wrote, whole",
        )
    _check_model(model)
    graph = model.graph
    for what, found, most in (
        ("nodes", len(graph.node), limits.nodes),
        ("initializers", len(graph.initializer), limits.tensors),
    ):
        if found > most:
            raise PolicyLimitExceeded(f"{what} of the graph", found=found, most=most, remedy="send a smaller network")
    skeleton = onnx.ModelProto(ir_version=model.ir_version)
    skeleton.opset_import.append(onnx.OperatorSetIdProto(domain="", version=_opset(model)))
    skeleton.graph.name = "policy"
    weights = _split_initializers(graph.initializer, skeleton, limits)
    skeleton.graph.node.extend(_node(place, node, limits) for place, node in enumerate(graph.node))
    held = {spec.name for spec, _ in weights} | {tensor.name for tensor in skeleton.graph.initializer}
    given = [value for value in graph.input if value.name not in held]  # older exporters list weights as inputs
    inputs = tuple(_input(value, limits) for value in given)
    outputs = tuple(_output(value) for value in graph.output)
    skeleton.graph.input.extend(declared(spec) for spec in inputs)
    skeleton.graph.output.extend(declared(spec) for spec in outputs)
    parsed = ParsedModel(skeleton, inputs, outputs, weights)
    try:
        onnx.checker.check_model(parsed.whole)
    except (onnx.checker.ValidationError, ValueError) as error:
        _refuse(f"the graph is no valid ONNX ({first_line(error)})", "see that onnx.checker takes it")
    return parsed


def _refuse(found: str, remedy: str) -> NoReturn:
    raise InvalidPolicy(found, remedy)


def _check_model(model: onnx.ModelProto) -> None:
    if not IR_VERSIONS[0] <= model.ir_version <= IR_VERSIONS[1]:
        _refuse(f"the file says IR version {model.ir_version}", f"export with {IR_VERSIONS[0]} to {IR_VERSIONS[1]}")
    if model.functions:
        _refuse(f"the model holds {len(model.functions)} functions of its own", "inline them (onnx.inliner)")
    if model.training_info or model.graph.sparse_initializer:
        _refuse("the model holds training information or sparse weights", "export for inference, dense")


def _opset(model: onnx.ModelProto) -> int:
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    strange = sorted({entry.domain for entry in model.opset_import} - {"", "ai.onnx"})
    used = {node.domain for node in model.graph.node}
    if named := [domain for domain in strange if domain in used]:
        _refuse(f"the model uses the operator domain {named[0][:60]!r}", "use ONNX's own operators only")
    if len(versions) != 1 or not OPSETS[0] <= versions[0] <= OPSETS[1]:
        _refuse(f"the model's opset is {versions or 'not told'}", f"export with opset {OPSETS[0]} to {OPSETS[1]}")
    return int(versions[0])


def _split_initializers(
    tensors: Iterable[onnx.TensorProto], skeleton: onnx.ModelProto, limits: PolicyLimits
) -> tuple[tuple[WeightSpec, bytes], ...]:
    """Floating-point weights apart from the integers that make shapes and indices, which stay in the skeleton."""
    weights = []
    names: set[str] = set()
    for tensor in tensors:
        spec, raw = _array(tensor, f"initializer {tensor.name[:60]!r}", limits)
        if spec.name in names:
            _refuse(f"two initializers are named {spec.name!r}", "give each its own name")
        names.add(spec.name)
        if np.dtype(spec.dtype).kind == "f":
            weights.append((spec, raw))
        else:
            skeleton.graph.initializer.append(_tensor(spec, raw))
    return tuple(weights)


def _node(place: int, node: onnx.NodeProto, limits: PolicyLimits) -> onnx.NodeProto:
    where = f"node {place} ({node.op_type[:40]})"
    if node.domain not in ("", "ai.onnx") or node.overload:
        _refuse(f"{where} is of the domain {node.domain[:60]!r}", "use ONNX's own operators only")
    if node.op_type not in ALLOWED:
        _refuse(
            f"{where} is an operator that policies may not use",
            "there are no loops, branches, randomness, strings or sequences; docs/policies.md lists what there is",
        )
    kept = onnx.NodeProto(op_type=node.op_type)
    for names, target in ((node.input, kept.input), (node.output, kept.output)):
        if len(names) > limits.tensors:
            raise PolicyLimitExceeded(
                f"inputs of {where}", found=len(names), most=limits.tensors, remedy="send a smaller network"
            )
        target.extend(_name(name, where) for name in names)
    kept.attribute.extend(_attribute(attribute, where, limits) for attribute in node.attribute)
    return kept


def _attribute(attribute: onnx.AttributeProto, where: str, limits: PolicyLimits) -> onnx.AttributeProto:
    where = f"attribute {attribute.name[:40]!r} of {where}"
    if attribute.ref_attr_name:
        _refuse(f"{where} refers to a function's", "inline functions (onnx.inliner)")
    kept = onnx.AttributeProto(name=_name(attribute.name, where), type=attribute.type)
    if attribute.type == Attribute.TENSOR:
        spec, raw = _array(attribute.t, where, limits)
        kept.t.CopyFrom(_tensor(spec._replace(name=""), raw))
        return kept
    if attribute.type not in _PLAIN:
        kind = Attribute.AttributeType.keys()[attribute.type] if 0 <= attribute.type < 15 else attribute.type
        _refuse(f"{where} is of the kind {kind}", "policies hold numbers, texts and dense tensors only")
    if not np.isfinite([attribute.f, *attribute.floats]).all():
        _refuse(f"{where} is NaN or infinite", "give it a finite number")
    if len(attribute.s) > 4096 or len(attribute.ints) + len(attribute.floats) > 65_536:
        _refuse(f"{where} is very long", "keep arrays in initializers")
    field = _PLAIN[attribute.type]
    if field in ("floats", "ints"):
        getattr(kept, field).extend(getattr(attribute, field))
    else:
        setattr(kept, field, getattr(attribute, field))
    return kept


def _array(tensor: onnx.TensorProto, where: str, limits: PolicyLimits) -> tuple[WeightSpec, bytes]:
    """A tensor's elements, wherever in the message they are; finite, and as many as its shape says."""
    if tensor.external_data or tensor.data_location != onnx.TensorProto.DEFAULT:
        _refuse(f"{where} keeps its data in another file", "save the model with all data inside")
    if tensor.HasField("segment"):
        _refuse(f"{where} is a segment of a tensor", "save it whole")
    dtype = ELEMENT_TYPES.get(tensor.data_type)
    if dtype is None:
        _refuse(
            f"{where} has the element type {tensor.data_type}", "use floats of 16 to 64 bits, integers and booleans"
        )
    shape = tuple(tensor.dims)
    if len(shape) > limits.rank or any(size < 0 or size > 2**31 for size in shape):
        _refuse(f"{where} has the shape {list(shape)[:12]}", f"at most {limits.rank} axes, none negative")
    spec = WeightSpec(_name(tensor.name, where), dtype.name, shape)
    if (count := int(np.prod(shape, dtype=object))) * dtype.itemsize > limits.file_bytes:
        raise PolicyLimitExceeded(
            f"bytes of {where}", found=count * dtype.itemsize, most=limits.file_bytes, remedy="send a smaller network"
        )
    if tensor.HasField("raw_data"):
        raw = tensor.raw_data
    else:
        try:
            raw = np.ascontiguousarray(numpy_helper.to_array(tensor), dtype=dtype).tobytes()
        except (ValueError, TypeError, OverflowError) as error:
            _refuse(f"{where} cannot be read ({first_line(error)})", "save it with raw data")
    check_finite(spec, raw)
    return spec, raw


def _tensor(spec: WeightSpec, raw: bytes) -> onnx.TensorProto:
    kind = next(number for number, dtype in ELEMENT_TYPES.items() if dtype.name == spec.dtype)
    return onnx.TensorProto(name=spec.name, data_type=kind, dims=spec.shape, raw_data=raw)


def _input(value: onnx.ValueInfoProto, limits: PolicyLimits) -> TensorSpec:
    """An input's name, and shape and dtype behind the lane axis."""
    where = f"input {value.name[:80]!r}"
    dtype = _element_type(value, where)
    tensor = value.type.tensor_type
    dims = list(tensor.shape.dim)
    if not dims or len(dims) > limits.rank:
        _refuse(f"{where} has no shape, no axis or too many", "give it the shape (N, ...)")
    if dims[0].HasField("dim_value"):
        _refuse(
            f"{where} is for exactly {dims[0].dim_value} lanes",
            "export with a dynamic first axis, e.g. dynamic_shapes={0: 'N'}",
        )
    sizes = tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in dims[1:])
    if any(size < 1 for size in sizes):
        _refuse(f"{where} has an axis of unknown size behind the first", "only the first axis may be dynamic")
    return TensorSpec(_name(value.name, where), sizes, dtype)


def _output(value: onnx.ValueInfoProto) -> TensorSpec:
    where = f"output {value.name[:80]!r}"
    return TensorSpec(_name(value.name, where), (), _element_type(value, where))


def _element_type(value: onnx.ValueInfoProto, where: str) -> np.dtype[Any]:
    if not value.type.HasField("tensor_type"):
        _refuse(f"{where} is no tensor", "policies take and give dense tensors only")
    dtype = ELEMENT_TYPES.get(value.type.tensor_type.elem_type)
    if dtype is None:
        _refuse(f"{where} has an element type that policies may not use", "use floats, integers or booleans")
    return dtype


def declared(spec: TensorSpec) -> onnx.ValueInfoProto:
    """An input or output as the file says it."""
    kind = next(number for number, dtype in ELEMENT_TYPES.items() if dtype == spec.dtype)
    return onnx.helper.make_tensor_value_info(spec.name, kind, ["N", *spec.shape])


def _name(name: str, where: str) -> str:
    if len(name) > NAME_CHARACTERS:
        _refuse(f"{where} has a name of {len(name):,} characters", f"names have at most {NAME_CHARACTERS}")
    return name
